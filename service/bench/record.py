"""A run as JSON, for other programs."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import orjson

from service.bench.loops import Run
from service.bench.measure import Summary, per_second
from service.errors import ConfigError


def record(settings: dict[str, Any], started: str, summary: Summary, run: Run) -> dict[str, Any]:
    """What was asked for, on which machine, and what came of it. Latencies are in milliseconds."""
    return {
        "started": started,
        "machine": {"platform": platform.platform(), "processor": processor(), "python": platform.python_version()},
        "settings": settings,
        "summary": dataclasses.asdict(summary),
        "texts_each_second": per_second(run),
    }


def write(file: Path, content: bytes, flag: str) -> None:
    """Write a report. Raises ConfigError where that cannot be done."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from error


def as_json(recorded: dict[str, Any]) -> bytes:
    """Indented, with a newline at the end."""
    return orjson.dumps(recorded, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def processor() -> str:
    """The processor's name as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
