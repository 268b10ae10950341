"""Streams of prices and counts: adverts, clicks, mentions, tweets."""

from __future__ import annotations

import numpy as np

from benchmarks.nab_scorer import Floats
from benchmarks.streams import faults
from benchmarks.streams.normal import Normal, Random
from benchmarks.streams.patterns import clusters, pulses, regimes, rhythm, smoothed
from benchmarks.streams.sensors import autoregressive, counted, skewed


def adverts(chance: Random, day: Floats) -> Normal:
    """Prices of adverts, hourly: skewed, with levels that move and zeros."""
    level, sigma = 10 ** chance.uniform(-1, 1), chance.uniform(0.1, 0.7)
    x = level * (1 + chance.uniform(0, 0.6) * rhythm(chance, day)) * np.exp(0.2 * regimes(chance, len(day), 0.003))
    x = x + 2 * level * pulses(chance, len(day), chance.choice([0.001, 0.006]), 2, 2.5)
    observe = skewed(sigma, chance.choice([0.0, 0.0, 0.02, 0.2]))
    return Normal(
        x, observe, level * sigma, (faults.spike, faults.burst, faults.shift, faults.higher, faults.lower, faults.shake)
    )


def mentions(chance: Random, day: Floats) -> Normal:
    """Counts of mentions: days and bursts."""
    level = 10 ** chance.uniform(0, 2.2)
    x = level * (0.2 + 1.5 * rhythm(chance, day))
    x = x + level * pulses(chance, len(day), 0.002, 12, 2.0) * 1.5
    return Normal(
        x, counted(chance.uniform(2, 12)), level, (faults.burst, faults.burst, faults.spike, faults.higher, faults.ramp)
    )


def clicks(chance: Random, day: Floats) -> Normal:
    """Costs of a click, hourly: few readings, with a slow drift and rare jumps."""
    rows, level, sigma = len(day), 10 ** chance.uniform(-1.2, 0.8), chance.uniform(0.1, 0.6)
    slow = autoregressive(0.14 * chance.normal(size=rows), 0.99)
    x = level * np.exp(0.15 * slow + chance.uniform(0, 0.4) * regimes(chance, rows, 0.002))
    x = x * (1 + chance.choice([0.0, 0.3, 0.6]) * rhythm(chance, day, 2))
    x = x * (1 + chance.choice([0.5, 1.0, 2.0]) * pulses(chance, rows, chance.choice([0.002, 0.01]), 2, 2.0))
    observe = skewed(sigma, chance.choice([0.0, 0.0, 0.03]), chance.uniform(0, 0.8))
    return Normal(
        x,
        observe,
        level * (0.3 + sigma),
        (faults.spike, faults.spike, faults.burst, faults.shift, faults.higher, faults.lower, faults.shake),
    )


def tweets(chance: Random, day: Floats) -> Normal:
    """Mentions in five minutes: days, and heavy bursts that are normal."""
    rows, level = len(day), 10 ** chance.uniform(0.3, 2)
    x = level * (0.25 + 1.5 * rhythm(chance, day, 2)) * np.exp(0.2 * smoothed(regimes(chance, rows, 8 / rows), 100))
    rate, decay, heavy = chance.choice([0.001, 0.004]), chance.uniform(2, 20), chance.choice([1.5, 2.0, 2.5])
    x = x + level * chance.uniform(0.5, 2) * clusters(chance, rows, rate, decay, heavy)
    return Normal(
        x,
        counted(chance.uniform(2, 15)),
        2 * level,
        (faults.burst, faults.burst, faults.spike, faults.higher, faults.ramp),
    )
