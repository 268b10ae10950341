"""Logs: one JSON object per line on standard error, never with the content of requests."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from service.printable import printable

_BUILT_IN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


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
        line.update({name: value for name, value in record.__dict__.items() if name not in _BUILT_IN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return printable(orjson.dumps(line, default=str).decode())
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            return json.dumps(line, default=str, skipkeys=True)


def configure(level: str, always: Mapping[str, object] | None = None) -> None:
    """Send all logs, uvicorn's too, to standard error as JSON, with the fields of `always`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(always))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Sonde's own line per request replaces uvicorn's; libraries would log each file that they open.
    for name, least in {
        "uvicorn.access": "ERROR",
        "uvicorn.error": "WARNING",
        "httpx": "WARNING",
        "sentence_transformers": "WARNING",
    }.items():
        logging.getLogger(name).setLevel(least)
