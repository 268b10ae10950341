"""Families of streams: what is normal in each, its rows, and the times at which it is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.nab import Stream
from benchmarks.nab_scorer import Floats, Labels
from benchmarks.streams import counts, machines, roads, servers
from benchmarks.streams.normal import Normal, Random

_DAY_S = 86_400.0
_LABELLED = 0.1
# The first fault comes after the probation and some rows more.
_FIRST = 0.2


@dataclass(frozen=True, slots=True)
class Family:
    """Streams of one kind: rows between two limits, some usual periods, and their normal behaviour.

    After a share `gaps` of the readings up to `longest_gap` periods are missing; a share `late` comes one to three
    periods late.
    """

    rows: tuple[int, int]
    periods_s: tuple[float, ...]
    normal: Callable[[Random, Floats], Normal]
    gaps: float = 0.0
    longest_gap: int = 20
    late: float = 0.0

    def steps(self, rows: int, chance: Random) -> Floats:
        """The periods [rows] from each reading to the next."""
        missing = (chance.random(rows) < self.gaps) * chance.integers(1, self.longest_gap, rows)
        late = (chance.random(rows) < self.late) * chance.integers(1, 4, rows) if self.late else 0
        return np.asarray(1.0 + missing + late)


def generate(name: str, count: int, seed: int = 0) -> list[Stream]:
    """Make `count` streams of a family, the same for the same seed."""
    family = list(FAMILIES).index(name)
    return [_stream(name, index, np.random.default_rng([seed, family, index])) for index in range(count)]


def _stream(name: str, index: int, chance: Random) -> Stream:
    family = FAMILIES[name]
    rows, period_s = int(chance.integers(*family.rows)), float(chance.choice(family.periods_s))
    day = np.asarray(7 * chance.random() + np.cumsum(family.steps(rows, chance)) * (period_s / _DAY_S))
    normal = family.normal(chance, day)
    starts = _starts(rows, int(chance.integers(1, 4)), chance)
    for at in starts:
        fault = normal.faults[chance.integers(len(normal.faults))]
        fault(normal.expected, at, normal.unit * float(np.exp(chance.uniform(np.log(3), np.log(10)))), chance)
    half = int(_LABELLED * rows / len(starts) / 2)
    labels = Labels(rows, tuple((max(at - half, 0), min(at + half, rows - 1)) for at in starts))
    return Stream(f"{name}/{index}", normal.observe(normal.expected, chance), period_s, labels, day * _DAY_S)


def _starts(rows: int, count: int, chance: Random) -> list[int]:
    """First rows of `count` faults, each in its own part of the rows after the first fifth."""
    edges = np.linspace(_FIRST * rows, 0.95 * rows, count + 1)
    apart = _LABELLED * rows / count / 2
    return [int(chance.uniform(first + apart, last - apart)) for first, last in itertools.pairwise(edges)]


FAMILIES = {
    "servers": Family((3000, 5000), (300.0,), servers.servers),
    "latencies": Family((3000, 5000), (300.0,), servers.latencies),
    "adverts": Family((1500, 1700), (3600.0,), counts.adverts),
    "mentions": Family((8000, 12000), (300.0,), counts.mentions),
    "roads": Family((1200, 2600), (600.0,), roads.roads, gaps=0.05),
    "temperatures": Family((4000, 10000), (300.0, 3600.0), machines.temperatures),
    "gauges": Family((2000, 5000), (300.0,), machines.gauges),
    "batches": Family((3000, 5000), (300.0,), machines.batches),
    "demand": Family((5000, 10000), (1800.0,), machines.demand),
    "clicks": Family((1500, 1700), (3600.0,), counts.clicks),
    "clouds": Family((4000, 4100), (300.0,), servers.clouds),
    "networks": Family((4000, 4800), (300.0,), servers.networks),
    "traffic": Family((1100, 2500), (300.0, 600.0), roads.traffic, gaps=0.004, longest_gap=300, late=0.35),
    "tweets": Family((15000, 16000), (300.0,), counts.tweets),
}
