"""Arrival times of open load: seconds from the start, ascending."""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from service.errors import ConfigError


def poisson(rate: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """Poisson arrivals (independent callers) at a mean of `rate` a second for `seconds`."""
    chance = random.Random(seed)
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def recorded(file: Path) -> list[float]:
    """Read arrivals from a CSV's first column: seconds or ISO 8601, with or without heading.

    Returns seconds from the first one. Raises ConfigError for an unreadable file or fewer than two ascending times.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            cells = [row[0] for row in csv.reader(lines) if row]
    except OSError as error:
        raise ConfigError(f"--arrivals {file}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--arrivals {file}: expected a CSV in UTF-8: {error}") from error
    parsed = [_parse_seconds(cell) for cell in cells]
    heading = 1 if parsed and parsed[0] is None else 0
    for cell, seconds in zip(cells[heading:], parsed[heading:], strict=True):
        if seconds is None:
            raise ConfigError(f"--arrivals {file}: expected seconds or a timestamp in the first column, got {cell!r}")
    times = [seconds for seconds in parsed if seconds is not None]
    if len(times) < 2 or times[-1] <= times[0] or any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise ConfigError(
            f"--arrivals {file}: expected two or more ascending times in the first column, got {len(times)} rows"
        )
    return [time - times[0] for time in times]


def scaled(arrivals: Sequence[float], rate: float | None, seconds: float) -> Iterator[float]:
    """Scale arrivals to a mean of `rate` a second (None: keep it), for `seconds`."""
    factor = 1.0 if rate is None else (len(arrivals) - 1) / arrivals[-1] / rate
    return (at * factor for at in arrivals if at * factor < seconds)


def _parse_seconds(cell: str) -> float | None:
    """Seconds of a number or an ISO 8601 timestamp; None for any other text."""
    with contextlib.suppress(ValueError):
        seconds = float(cell)
        return seconds if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(cell).timestamp()
    return None
