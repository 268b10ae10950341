"""Parts of normal behaviour: rhythms, bursts, and levels that move. `day` is the time in days."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from benchmarks.nab_scorer import Floats
from benchmarks.streams.sensors import autoregressive

Random = np.random.Generator


def rhythm(chance: Random, day: Floats, sharp: int = 3) -> Floats:
    """A day's profile between 0 and 1, of a few waves, lower at weekends in most streams."""
    orders = np.arange(1, sharp + 1)[:, None]
    phases, heights = chance.random((sharp, 1)), chance.normal(size=(sharp, 1)) / orders
    waves = (heights * np.sin(2 * np.pi * (orders * day + phases))).sum(axis=0)
    profile = (waves - waves.min()) / np.ptp(waves)
    return np.asarray(profile * np.where((day % 7) >= 5, chance.choice([1.0, 0.8, 0.5]), 1.0))


def pulses(chance: Random, rows: int, rate: float, longest: int, heavy: float = 3.0) -> Floats:
    """Normal bursts at random: heights of a Pareto distribution, a few rows long."""
    x = np.zeros(rows)
    for at in np.flatnonzero(chance.random(rows) < rate):
        x[at : at + int(chance.integers(1, longest + 1))] += 1 + chance.pareto(heavy)
    return x


def regimes(chance: Random, rows: int, rate: float) -> Floats:
    """A level that moves to another at random."""
    moves = np.where(chance.random(rows) < rate, 1, 0).cumsum()
    return np.asarray(chance.normal(size=moves[-1] + 1)[moves])


def smoothed(x: Floats, rows: int) -> Floats:
    """The exponential mean of about `rows` readings."""
    return np.asarray(autoregressive((x - x[0]) / rows, 1 - 1 / rows) + x[0])


def clusters(chance: Random, rows: int, rate: float, decay: float, heavy: float) -> Floats:
    """Normal bursts at random that decay over about `decay` rows: Pareto heights, at most 15."""
    x, starts = np.zeros(rows), chance.random(rows) < rate
    x[starts] = np.minimum(0.5 + chance.pareto(heavy, starts.sum()), 15.0)
    return np.asarray(lfilter([1.0], [1.0, -np.exp(-1 / decay)], x))
