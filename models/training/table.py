"""A file of numbers as columns: what was read, before anything is filled in, cut or left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which columns of a file are what; no `columns` takes all that have no other part."""

    columns: tuple[str, ...] = ()
    timestamp: str | None = None
    group: str | None = None
    label: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that are no readings."""
        return tuple(name for name in (self.timestamp, self.group, self.label) if name is not None)


@dataclass(frozen=True, slots=True)
class Table:
    """Readings float64 [n, d] in the order of the file, NaN where one is missing.

    `lines` [n] are lines of the file (rows of a Parquet file). `times` [n] (seconds since 1970), `groups` [n] and `labels` [n]
    (True: an anomaly) are None where the file has none.
    """

    columns: tuple[str, ...]
    readings: Doubles
    lines: NDArray[np.int64]
    times: Doubles | None = None
    groups: tuple[str, ...] | None = None
    labels: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.readings)
