"""A generated table: rows to train on, later normal rows, and rows with faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks.records.generators import KINDS, Doubles, Random

TRAIN_ROWS, LATER_ROWS, FAULTY_ROWS = 1_500, 1_000, 30
# A column that is out is out by this many of its own standard deviations.
_LEAST, _MOST = 3.0, 6.0


def _column_out(random: Random, rows: Doubles, spread: Doubles) -> Doubles:
    """One column of each row is too high or too low."""
    at = random.integers(0, rows.shape[1], len(rows))
    size = random.uniform(_LEAST, _MOST, len(rows)) * random.choice((-1.0, 1.0), len(rows))
    rows[np.arange(len(rows)), at] += size * spread[at]
    return rows


def _correlation_broken(random: Random, rows: Doubles, spread: Doubles) -> Doubles:
    """Each column comes from a row of its own, so that all are usual and do not belong together."""
    return np.column_stack([random.permutation(column) for column in rows.T])


def _rare_combination(random: Random, rows: Doubles, spread: Doubles) -> Doubles:
    """The first half of the columns comes from another row."""
    half = rows.shape[1] // 2
    return np.hstack([random.permutation(rows[:, :half]), rows[:, half:]])


def _cluster(random: Random, rows: Doubles, spread: Doubles) -> Doubles:
    """The rows are near one place, a few standard deviations from the middle."""
    direction = random.standard_normal(rows.shape[1])
    place = np.nanmedian(rows, axis=0) + 4.0 * spread * direction / np.linalg.norm(direction)
    near: Doubles = place + 0.1 * spread * random.standard_normal(rows.shape)
    return near


FAULTS: dict[str, Callable[[Random, Doubles, Doubles], Doubles]] = {
    "column out": _column_out,
    "correlation broken": _correlation_broken,
    "rare combination": _rare_combination,
    "cluster": _cluster,
}


@dataclass(frozen=True, slots=True)
class GeneratedTable:
    """Rows [n, d], NaN where a value is missing; `faulty` has `FAULTY_ROWS` rows of each fault, in their order."""

    kind: str
    train: Doubles
    later: Doubles
    faulty: Doubles

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"c{number}" for number in range(self.train.shape[1]))

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Which of the later and the faulty rows are faulty."""
        return np.arange(len(self.later) + len(self.faulty)) >= len(self.later)


def generate(kind: str, number: int) -> GeneratedTable:
    """The table of a kind with this number, the same in every run."""
    random = np.random.default_rng([crc32(kind.encode()), number])
    draw = KINDS[kind](random)
    train, later = draw(random, TRAIN_ROWS), draw(random, LATER_ROWS)
    spread = np.nanstd(train, axis=0)
    faulty = [put(random, draw(random, FAULTY_ROWS), spread) for put in FAULTS.values()]
    return GeneratedTable(kind, train, later, np.concatenate(faulty))
