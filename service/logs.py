"""Logs on standard error, for a program (JSON) or a person; never with the content of requests."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import orjson

from service.console import BUILT_IN, ConsoleFormatter, takes_colours
from service.printable import printable

LogFormat = Literal["auto", "console", "json"]


class JsonFormatter(logging.Formatter):
    """Formats time, level, logger, message and `extra`; `always` is in every line."""

    def __init__(self, always: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._always = dict(always or {})

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON, without a control character."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in BUILT_IN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return printable(orjson.dumps(line, default=str).decode())
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            return json.dumps(line, default=str, skipkeys=True)


def configure(
    level: str, always: Mapping[str, object] | None = None, *, form: LogFormat = "auto", access: bool = True
) -> None:
    """Send all logs, uvicorn's too, to standard error, with the fields of `always`.

    `auto` is `console` on a terminal, and `json` elsewhere. `access` says whether requests have lines. Libraries show
    progress bars on a terminal alone, and not where several server processes would draw over each other.
    """
    terminal = sys.stderr.isatty()
    console = form == "console" or (form == "auto" and terminal)
    if not console or not terminal or always:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers reads it, too
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ConsoleFormatter(always, colours=takes_colours(sys.stderr), bars=terminal) if console else JsonFormatter(always)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("sonde.requests").setLevel("NOTSET" if access else "WARNING")
    # Sonde's own line per request replaces uvicorn's; libraries would log each file that they open.
    for name, least in {
        "uvicorn.access": "ERROR",
        "uvicorn.error": "WARNING",
        "httpx": "WARNING",
        "sentence_transformers": "WARNING",
    }.items():
        logging.getLogger(name).setLevel(least)
