"""A stream's normal behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.nab_scorer import Floats
from benchmarks.streams.faults import Fault, Random
from benchmarks.streams.sensors import Sensor

__all__ = ["Normal", "Random"]


@dataclass(frozen=True, slots=True)
class Normal:
    """A stream's normal behaviour: its expectation [n], what a sensor reads of it, and the size of a fault.

    Faults change the expectation, so that a burst of counts is noisy as counts are. `faults` are those that the family
    can have.
    """

    expected: Floats
    observe: Sensor
    unit: float
    faults: tuple[Fault, ...]
