"""Logs as one JSON object a line on standard error. What callers send is never in them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

_BUILT_IN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, and whatever was passed as `extra`; `always` is in every line."""

    def __init__(self, always: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._always = dict(always or {})

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
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
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            return json.dumps(line, default=str, skipkeys=True)


def configure(level: str, always: Mapping[str, object] | None = None) -> None:
    """Send all logs, uvicorn's too, to standard error as JSON, each with the fields of `always`. Called once, by the
    command line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(always))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Our own line a request says more; libraries' chatter about each file they open says too much.
    for name, least in {
        "uvicorn.access": "ERROR",
        "uvicorn.error": "WARNING",
        "httpx": "WARNING",
        "sentence_transformers": "WARNING",
    }.items():
        logging.getLogger(name).setLevel(least)
