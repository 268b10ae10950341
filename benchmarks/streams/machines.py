"""Streams of machines: temperatures, gauges, batches, demand."""

from __future__ import annotations

import numpy as np

from benchmarks.nab_scorer import Floats
from benchmarks.streams import faults
from benchmarks.streams.normal import Normal, Random
from benchmarks.streams.patterns import pulses, regimes, rhythm, smoothed
from benchmarks.streams.sensors import noisy


def temperatures(chance: Random, day: Floats) -> Normal:
    """Temperatures that drift and move slowly."""
    rows, sigma = len(day), chance.uniform(0.1, 0.6)
    drift = np.cumsum(chance.normal(0, 0.02, rows))
    x = 60 + drift + chance.uniform(0, 4) * rhythm(chance, day, 1)
    x = x + 3 * smoothed(regimes(chance, rows, 4 / rows), 40)
    observe = noisy(sigma, chance.uniform(0.5, 0.95), chance.choice([0.0, 0.1]))
    return Normal(
        x, observe, 2 * sigma, (faults.spike, faults.drop, faults.ramp, faults.shift, faults.stand, faults.shake)
    )


def gauges(chance: Random, day: Floats) -> Normal:
    """Coarse steps with short bursts."""
    level, step = chance.uniform(0, 20), chance.uniform(0.1, 2)
    x = level + step * np.round(2 * regimes(chance, len(day), 4 / len(day))) * chance.choice([0.0, 0.5])
    x = x + step * pulses(chance, len(day), chance.choice([0.0, 0.005, 0.02]), 3)
    return Normal(
        x,
        noisy(0.3 * step, 0.0, step, 0.0),
        step,
        (faults.spike, faults.burst, faults.shift, faults.outage, faults.shake, faults.ramp),
    )


def batches(chance: Random, day: Floats) -> Normal:
    """A machine that runs in batches."""
    base, height, noise = chance.uniform(1, 20), chance.uniform(20, 80), chance.uniform(0.3, 2)
    every, long = 1 / chance.choice([1, 2, 4, 8]), chance.uniform(0.08, 0.4)
    inside = (day % every) / every < long
    x = base + height * inside

    def skip(x: Floats, at: int, size: float, chance: Random) -> None:
        x[at : at + int(every / (day[1] - day[0]))] = base

    def stay(x: Floats, at: int, size: float, chance: Random) -> None:
        x[at : at + int(1.5 * every / (day[1] - day[0]))] = base + height

    return Normal(
        x,
        noisy(noise, 0.3, 0.0, 0.0),
        2 * noise,
        (skip, stay, faults.outage, faults.shift, faults.spike, faults.off_rhythm),
    )


def demand(chance: Random, day: Floats) -> Normal:
    """Demand with a sharp day."""
    level = 10 ** chance.uniform(2, 4)
    x = level * (0.3 + rhythm(chance, day, 3)) * (1 + 0.1 * smoothed(regimes(chance, len(day), 0.01), 30))
    return Normal(
        x,
        noisy(0.05 * level, 0.6, 1.0, 0.0),
        0.1 * level,
        (faults.off_rhythm, faults.lower, faults.higher, faults.stand, faults.shift, faults.drop),
    )
