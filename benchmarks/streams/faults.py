"""Faults of streams: each changes the expectation in place from row `at` on, by `size`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.nab_scorer import Floats

Random = np.random.Generator
Fault = Callable[[Floats, int, float, Random], None]


def spike(x: Floats, at: int, size: float, chance: Random) -> None:
    """One to three readings too high."""
    x[at : at + int(chance.integers(1, 4))] += 1.5 * size


def dip(x: Floats, at: int, size: float, chance: Random) -> None:
    """One to three readings too low."""
    x[at : at + int(chance.integers(1, 4))] -= 1.5 * size


def burst(x: Floats, at: int, size: float, chance: Random) -> None:
    """A peak that decays."""
    rows = min(int(chance.integers(10, 80)), len(x) - at)
    x[at : at + rows] += size * np.exp(-np.arange(rows) / (rows / 2))


def shift(x: Floats, at: int, size: float, chance: Random) -> None:
    """A level that stays."""
    x[at:] += 0.7 * size * chance.choice([-1, 1])


def drop(x: Floats, at: int, size: float, chance: Random) -> None:
    """A fall below all readings."""
    x[at : at + int(chance.integers(5, 100))] = x.min() - 0.2 * size


def outage(x: Floats, at: int, size: float, chance: Random) -> None:
    """Zeros."""
    x[at : at + int(chance.integers(5, 100))] = 0.0


def ramp(x: Floats, at: int, size: float, chance: Random) -> None:
    """A rise that ends."""
    rows = min(int(chance.integers(30, 150)), len(x) - at)
    x[at : at + rows] += size * np.linspace(0, 1, rows)


def shake(x: Floats, at: int, size: float, chance: Random) -> None:
    """Noise."""
    part = x[at : at + int(chance.integers(30, 150))]
    part += chance.normal(0, 0.6 * size, len(part))


def stand(x: Floats, at: int, size: float, chance: Random) -> None:
    """A value that stands still."""
    x[at : at + int(chance.integers(60, 250))] = x[at]


def off_rhythm(x: Floats, at: int, size: float, chance: Random) -> None:
    """The readings before, backwards."""
    rows = int(chance.integers(40, 200))
    x[at : at + rows] = x[at - rows : at][::-1][: len(x) - at].copy()


def higher(x: Floats, at: int, size: float, chance: Random) -> None:
    """Readings times 1.5 to 4."""
    rows = int(chance.integers(20, 200))
    x[at : at + rows] = x[at : at + rows] * chance.uniform(1.5, 4)


def lower(x: Floats, at: int, size: float, chance: Random) -> None:
    """Readings times 0 to 0.5."""
    rows = int(chance.integers(20, 200))
    x[at : at + rows] = x[at : at + rows] * chance.uniform(0.0, 0.5)
