"""A plant: readings to train a detector on, and later ones to judge it by."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.faults import put_faults
from benchmarks.families.generators import FAMILIES, MEASURED, Doubles

_LEAST_ROWS, _MOST_ROWS = 400, 2500
LATER_ROWS = 1200
_FAULTS = 4


@dataclass(frozen=True, slots=True)
class Plant:
    """Readings [n, d] of one machine in the order of time; `labels` are those of `test`.

    `train` and `later` are normal; given data have no `later`.
    """

    family: str
    name: str
    train: Doubles
    later: Doubles
    test: Doubles
    labels: NDArray[np.bool_]

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each column."""
        return tuple(f"c{column}" for column in range(self.train.shape[1]))


def simulate(family: str, number: int) -> Plant:
    """The plant of this number in a family: 400 to 2,500 rows to train on, then normal ones, then some with faults."""
    random = np.random.default_rng([zlib.crc32(family.encode()), number])
    rows = int(np.exp(random.uniform(np.log(_LEAST_ROWS), np.log(_MOST_ROWS))))
    train, later, last = np.split(FAMILIES[family](random, rows + 2 * LATER_ROWS), [rows, rows + LATER_ROWS])
    test, labels = put_faults(random, last, _FAULTS, MEASURED.get(family))
    return Plant(family, f"{family} {number}", train, later, test, labels)
