"""Streams of servers: load, latencies, traffic of networks."""

from __future__ import annotations

import numpy as np

from benchmarks.nab_scorer import Floats
from benchmarks.streams import faults
from benchmarks.streams.normal import Normal, Random
from benchmarks.streams.patterns import pulses, regimes, rhythm
from benchmarks.streams.sensors import autoregressive, noisy, skewed


def servers(chance: Random, day: Floats) -> Normal:
    """Load: some with days, bursts or levels that move."""
    level, sigma = chance.uniform(5, 60), chance.uniform(0.3, 4)
    x = level + sigma * chance.choice([0.0, 0.0, 3.0]) * rhythm(chance, day)
    x = x + sigma * chance.choice([0.0, 3.0, 6.0]) * pulses(chance, len(day), chance.choice([0.002, 0.01]), 5)
    x = x + 2 * sigma * chance.choice([0.0, 1.0]) * regimes(chance, len(day), 3 / len(day))
    quantum = chance.choice([0.0, sigma / 3])
    observe = noisy(sigma, chance.uniform(0, 0.8), quantum, 0.0, chance.choice([0.0, 4.0]))
    return Normal(
        x,
        observe,
        sigma,
        (faults.spike, faults.burst, faults.shift, faults.outage, faults.ramp, faults.shake, faults.higher),
    )


def latencies(chance: Random, day: Floats) -> Normal:
    """Latencies: skewed, with rare peaks."""
    level, sigma = chance.uniform(20, 200), chance.uniform(0.1, 0.6)
    x = level * (1 + chance.choice([0.0, 0.3]) * rhythm(chance, day))
    x = x + level * pulses(chance, len(day), 0.003, 2, 2.0)
    return Normal(
        x,
        skewed(sigma, 0.0),
        level * sigma,
        (faults.spike, faults.burst, faults.shift, faults.shake, faults.higher, faults.ramp),
    )


def clouds(chance: Random, day: Floats) -> Normal:
    """The load of rented machines: nearly idle, busy, with daily jobs, or moving from level to level."""
    kinds = (_idle, _busy, _daily_jobs, _moving)
    return kinds[chance.integers(len(kinds))](chance, day)


def networks(chance: Random, day: Floats) -> Normal:
    """Bytes a reading, with heavy bursts."""
    level, sigma = 10 ** chance.uniform(4, 6.5), chance.uniform(0.05, 0.8)
    x = level * (1 + chance.choice([0.0, 0.5, 1.5]) * rhythm(chance, day))
    x = x + level * chance.choice([1.0, 4.0, 10.0]) * pulses(
        chance, len(day), chance.choice([0.001, 0.005, 0.03]), 4, 1.8
    )
    x = x * np.exp(chance.choice([0.0, 0.5]) * regimes(chance, len(day), 2 / len(day)))
    observe = skewed(sigma, chance.choice([0.0, 0.0, 0.05]))
    return Normal(
        x,
        observe,
        level * (0.3 + sigma),
        (
            faults.spike,
            faults.burst,
            faults.burst,
            faults.shift,
            faults.outage,
            faults.shake,
            faults.higher,
            faults.lower,
        ),
    )


_LOAD_FAULTS = (
    faults.spike,
    faults.burst,
    faults.shift,
    faults.outage,
    faults.ramp,
    faults.shake,
    faults.higher,
    faults.lower,
)


def _idle(chance: Random, day: Floats) -> Normal:
    sigma = chance.uniform(0.02, 0.5)
    rate, height = chance.choice([0.001, 0.004, 0.02]), chance.choice([2.0, 6.0, 15.0])
    x = sigma * (chance.uniform(2, 6) + height * pulses(chance, len(day), rate, 3, 2.5))
    observe = noisy(sigma, chance.uniform(0, 0.5), chance.choice([0.0, sigma / 2]), 0.0, chance.choice([0.0, 4.0]))
    return Normal(x, observe, sigma, _LOAD_FAULTS)


def _busy(chance: Random, day: Floats) -> Normal:
    level = chance.uniform(20, 80)
    sigma = level * chance.uniform(0.02, 0.1)
    slow = autoregressive(0.2 * chance.normal(size=len(day)), 0.98)
    x = level + sigma * (2 * slow + chance.choice([0.0, 4.0]) * rhythm(chance, day))
    x = x + sigma * chance.choice([0.0, 5.0]) * pulses(chance, len(day), 0.003, 6)
    observe = noisy(sigma, chance.uniform(0.2, 0.9), 0.0, 0.0, chance.choice([0.0, 5.0]))
    return Normal(x, observe, sigma, _LOAD_FAULTS)


def _daily_jobs(chance: Random, day: Floats) -> Normal:
    level = chance.uniform(2, 30)
    sigma, x = level * chance.uniform(0.02, 0.15), np.full(len(day), level)
    height = level * chance.uniform(0.5, 4)
    for _ in range(chance.integers(1, 3)):
        since, long = day - chance.random(), chance.uniform(0.01, 0.08)
        each = chance.uniform(0.7, 1.2, int(np.ptp(day)) + 3)
        x = x + height * (since % 1 < long) * each[(np.floor(since) - np.floor(since[0])).astype(int)]
    return Normal(x, noisy(sigma, chance.uniform(0, 0.6), 0.0, 0.0), sigma, _LOAD_FAULTS)


def _moving(chance: Random, day: Floats) -> Normal:
    level = chance.uniform(5, 50)
    sigma = level * chance.uniform(0.03, 0.15)
    x = level + 3 * sigma * regimes(chance, len(day), chance.choice([2, 6]) / len(day))
    x = x + sigma * chance.choice([0.0, 4.0]) * pulses(chance, len(day), 0.004, 3)
    observe = noisy(sigma, chance.uniform(0, 0.8), 0.0, 0.0, chance.choice([0.0, 4.0]))
    return Normal(x, observe, sigma, _LOAD_FAULTS)
