"""Kinds of tables: normal rows as machines, tests and bookings write them, without time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Random = np.random.Generator
# A function that draws `n` normal rows [n, d] of one table.
Draw = Callable[[Random, int], Doubles]
_COLUMNS = 8


def _correlated(random: Random) -> Draw:
    """Three causes behind eight columns."""
    mixing = random.standard_normal((3, _COLUMNS))
    return lambda of, n: of.standard_normal((n, 3)) @ mixing + 0.3 * of.standard_normal((n, _COLUMNS))


def _mixture(random: Random) -> Draw:
    """Four ways of working, each with a level and a spread of its own."""
    levels, spreads = 4 * random.standard_normal((4, _COLUMNS)), random.uniform(0.3, 1.0, (4, _COLUMNS))

    def draw(of: Random, n: int) -> Doubles:
        way = of.choice(4, n, p=(0.45, 0.3, 0.15, 0.1))
        rows: Doubles = levels[way] + spreads[way] * of.standard_normal((n, _COLUMNS))
        return rows

    return draw


def _codes(random: Random) -> Draw:
    """Three codes of a product that go together, and five measurements that depend on it."""
    codes, levels = random.integers(0, 5, (6, 3)), random.standard_normal((6, 5))

    def draw(of: Random, n: int) -> Doubles:
        product = of.integers(0, 6, n)
        return np.hstack([codes[product].astype(np.float64), levels[product] + 0.4 * of.standard_normal((n, 5))])

    return draw


def _heavy_tails(random: Random) -> Draw:
    """Student's t with three degrees of freedom: single large values are normal."""
    mixing = random.standard_normal((4, _COLUMNS))
    return lambda of, n: of.standard_t(3, (n, 4)) @ mixing + 0.3 * of.standard_t(3, (n, _COLUMNS))


def _missing(random: Random) -> Draw:
    """Correlated columns, of which 8 % of the values are missing."""
    complete = _correlated(random)

    def draw(of: Random, n: int) -> Doubles:
        rows = complete(of, n)
        rows[of.random(rows.shape) < 0.08] = np.nan
        return rows

    return draw


def _irrelevant(random: Random) -> Draw:
    """Six correlated columns beside 30 of noise."""
    mixing = random.standard_normal((2, 6))

    def draw(of: Random, n: int) -> Doubles:
        related = of.standard_normal((n, 2)) @ mixing + 0.3 * of.standard_normal((n, 6))
        return np.hstack([related, of.standard_normal((n, 30))])

    return draw


def _counts(random: Random) -> Draw:
    """Counts of events, whose rates rise and fall together."""
    rates, weights = random.uniform(0.5, 30.0, _COLUMNS), random.uniform(0.3, 1.0, _COLUMNS)

    def draw(of: Random, n: int) -> Doubles:
        load = of.standard_normal((n, 1))
        return of.poisson(rates * np.exp(0.5 * weights * load)).astype(np.float64)

    return draw


def _two_scales(random: Random) -> Draw:
    """A dense cluster inside a wide one, in columns of units that differ by millions."""
    units = 10.0 ** random.uniform(-3, 3, _COLUMNS)
    mixing, middle = random.standard_normal((3, _COLUMNS)), 2 * random.standard_normal(_COLUMNS)

    def draw(of: Random, n: int) -> Doubles:
        wide = of.standard_normal((n, 3)) @ mixing + 0.3 * of.standard_normal((n, _COLUMNS))
        dense = middle + 0.05 * of.standard_normal((n, _COLUMNS))
        return np.where(of.random((n, 1)) < 0.6, dense, wide) * units

    return draw


KINDS: dict[str, Callable[[Random], Draw]] = {
    "correlated": _correlated,
    "mixture": _mixture,
    "codes": _codes,
    "heavy tails": _heavy_tails,
    "missing values": _missing,
    "irrelevant columns": _irrelevant,
    "counts": _counts,
    "two scales": _two_scales,
}
