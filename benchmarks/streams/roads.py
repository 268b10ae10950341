"""Streams of roads: hours of the day, commuters, jams."""

from __future__ import annotations

import numpy as np

from benchmarks.nab_scorer import Floats
from benchmarks.streams import faults
from benchmarks.streams.normal import Normal, Random
from benchmarks.streams.patterns import clusters, pulses, rhythm
from benchmarks.streams.sensors import noisy, skewed


def roads(chance: Random, day: Floats) -> Normal:
    """A road with rush hours and jams, some readings missing."""
    level = chance.uniform(10, 80)
    rush = rhythm(chance, day, 6) * chance.choice([-0.4, 0.8])
    x = level * (1 + rush) + level * chance.choice([-0.3, 0.6]) * pulses(chance, len(day), 0.004, 4)
    observe = noisy(0.1 * level, 0.3, chance.choice([0.0, 1.0]), 0.0, 5.0)
    return Normal(
        x,
        observe,
        0.15 * level,
        (faults.spike, faults.dip, faults.burst, faults.higher, faults.lower, faults.off_rhythm),
    )


def traffic(chance: Random, day: Floats) -> Normal:
    """Speed, occupancy or travel time of a road with commuters on weekdays, read at irregular times."""
    rush, jams = (
        _commuters(chance, day),
        clusters(chance, len(day), chance.choice([0.001, 0.004]), chance.uniform(1, 5), 2.5),
    )
    kinds = (_speed, _occupancy, _travel_time)
    return kinds[chance.integers(len(kinds))](chance, day, rush, jams)


_ROAD_FAULTS = (faults.spike, faults.dip, faults.burst, faults.higher, faults.lower, faults.off_rhythm, faults.stand)


def _commuters(chance: Random, day: Floats) -> Floats:
    """The rush of two commuting hours, as strong as the day is, and little of it at weekends."""
    hour = 24 * (day % 1)
    morning = np.exp(-(((hour - chance.uniform(7, 9)) / chance.uniform(0.7, 1.5)) ** 2))
    evening = np.exp(-(((hour - chance.uniform(16, 18)) / chance.uniform(0.8, 2)) ** 2))
    strength = chance.uniform(0.6, 1.2, int(np.ptp(day)) + 2)[(np.floor(day) - np.floor(day[0])).astype(int)]
    weekend = np.where(day % 7 < 5, 1.0, chance.choice([0.0, 0.15, 0.4]))
    return np.asarray((morning + chance.uniform(0.5, 1.3) * evening) * strength * weekend)


def _speed(chance: Random, day: Floats, rush: Floats, jams: Floats) -> Normal:
    level = chance.uniform(55, 75)
    x = level * (1 - chance.uniform(0.1, 0.5) * rush - 0.15 * jams)
    observe = noisy(level * chance.uniform(0.03, 0.08), chance.uniform(0, 0.5), 1.0, 0.0, 4.0)
    return Normal(x, observe, 0.08 * level, _ROAD_FAULTS)


def _occupancy(chance: Random, day: Floats, rush: Floats, jams: Floats) -> Normal:
    level, light = chance.uniform(4, 12), 0.3 + 0.7 * np.exp(-(((24 * (day % 1) - 14) / 5) ** 2))
    x = level * (light + chance.uniform(0.3, 2) * rush + 0.5 * jams)
    return Normal(x, skewed(chance.uniform(0.15, 0.4), 0.0), 0.3 * level, _ROAD_FAULTS)


def _travel_time(chance: Random, day: Floats, rush: Floats, jams: Floats) -> Normal:
    level = chance.uniform(100, 600)
    x = level * (1 + chance.uniform(0.2, 1) * rush + 0.4 * jams)
    return Normal(x, skewed(chance.uniform(0.05, 0.25), 0.0), 0.2 * level, _ROAD_FAULTS)
