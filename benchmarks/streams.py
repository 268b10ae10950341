"""Generated streams in the form of the Numenta Anomaly Benchmark: families of normal behaviour with labelled faults.

python -m benchmarks.streams [--seed 0] [--files 10] [--families servers …]

No detector can be tuned to one machine here: each family has many streams, and each stream has parameters of its own.
A stream begins with normal readings (the probation of 15 %), has one to three faults, and a window of rows around
each: together a tenth of the stream, as in the benchmark. Prints, family by family, the benchmark's standard profile
at one threshold for all families, at the best threshold of the other families, and at the product's own (an event),
and the share of readings outside the windows with p <= alpha.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from benchmarks.nab import Stream
from benchmarks.nab_scorer import Floats, Labels, best_threshold, score_at
from models.sensors.adaptive.detector import EVENT_SCORE, fit_adaptive

Random = np.random.Generator
Fault = Callable[[Floats, int, float, Random], None]
Sensor = Callable[[Floats, Random], Floats]
File = tuple[Floats, Labels]
ALPHAS = (0.05, 0.01)
_DAY_S = 86_400.0
_LABELLED = 0.1
# The first fault comes after the probation and some rows more.
_FIRST = 0.2


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


@dataclass(frozen=True, slots=True)
class Family:
    """Streams of one kind: rows between two limits, some usual periods, and their normal behaviour.

    After a share `gaps` of the readings some are missing.
    """

    rows: tuple[int, int]
    periods_s: tuple[float, ...]
    normal: Callable[[Random, Floats], Normal]
    gaps: float = 0.0


def generate(name: str, count: int, seed: int = 0) -> list[Stream]:
    """Make `count` streams of a family, the same for the same seed."""
    family = list(FAMILIES).index(name)
    return [_stream(name, index, np.random.default_rng([seed, family, index])) for index in range(count)]


def _stream(name: str, index: int, chance: Random) -> Stream:
    family = FAMILIES[name]
    rows, period_s = int(chance.integers(*family.rows)), float(chance.choice(family.periods_s))
    steps = 1 + (chance.random(rows) < family.gaps) * chance.integers(1, 20, rows)
    day = np.asarray(7 * chance.random() + np.cumsum(steps) * (period_s / _DAY_S))
    normal = family.normal(chance, day)
    starts = _starts(rows, int(chance.integers(1, 4)), chance)
    for at in starts:
        fault = normal.faults[chance.integers(len(normal.faults))]
        fault(normal.expected, at, normal.unit * float(np.exp(chance.uniform(np.log(3), np.log(10)))), chance)
    half = int(_LABELLED * rows / len(starts) / 2)
    labels = Labels(rows, tuple((max(at - half, 0), min(at + half, rows - 1)) for at in starts))
    return Stream(f"{name}/{index}", normal.observe(normal.expected, chance), period_s, labels)


def _starts(rows: int, count: int, chance: Random) -> list[int]:
    """First rows of `count` faults, each in its own part of the rows after the first fifth."""
    edges = np.linspace(_FIRST * rows, 0.95 * rows, count + 1)
    apart = _LABELLED * rows / count / 2
    return [int(chance.uniform(first + apart, last - apart)) for first, last in itertools.pairwise(edges)]


# Faults: each changes the expectation in place from row `at` on, by `size`.


def _spike(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at : at + int(chance.integers(1, 4))] += 1.5 * size


def _dip(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at : at + int(chance.integers(1, 4))] -= 1.5 * size


def _burst(x: Floats, at: int, size: float, chance: Random) -> None:
    rows = min(int(chance.integers(10, 80)), len(x) - at)
    x[at : at + rows] += size * np.exp(-np.arange(rows) / (rows / 2))


def _shift(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at:] += 0.7 * size * chance.choice([-1, 1])


def _drop(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at : at + int(chance.integers(5, 100))] = x.min() - 0.2 * size


def _outage(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at : at + int(chance.integers(5, 100))] = 0.0


def _ramp(x: Floats, at: int, size: float, chance: Random) -> None:
    rows = min(int(chance.integers(30, 150)), len(x) - at)
    x[at : at + rows] += size * np.linspace(0, 1, rows)


def _shake(x: Floats, at: int, size: float, chance: Random) -> None:
    part = x[at : at + int(chance.integers(30, 150))]
    part += chance.normal(0, 0.6 * size, len(part))


def _stand(x: Floats, at: int, size: float, chance: Random) -> None:
    x[at : at + int(chance.integers(60, 250))] = x[at]


def _off_rhythm(x: Floats, at: int, size: float, chance: Random) -> None:
    rows = int(chance.integers(40, 200))
    x[at : at + rows] = x[at - rows : at][::-1][: len(x) - at].copy()


def _higher(x: Floats, at: int, size: float, chance: Random) -> None:
    rows = int(chance.integers(20, 200))
    x[at : at + rows] = x[at : at + rows] * chance.uniform(1.5, 4)


def _lower(x: Floats, at: int, size: float, chance: Random) -> None:
    rows = int(chance.integers(20, 200))
    x[at : at + rows] = x[at : at + rows] * chance.uniform(0.0, 0.5)


# What a sensor reads.


def _noisy(
    sigma: float, memory: float = 0.0, quantum: float = 0.0, least: float = -np.inf, tail: float = 0.0
) -> Sensor:
    """Noise of `sigma` with a lag-one correlation, Student's where `tail` degrees are given, rounded and clipped."""

    def observe(x: Floats, chance: Random) -> Floats:
        shock = chance.standard_t(tail, len(x)) if tail else chance.normal(size=len(x))
        noise = _autoregressive(shock * np.sqrt(1 - memory**2), memory)
        return _rounded(np.maximum(x + sigma * noise, least), quantum)

    return observe


def _counted(dispersion: float) -> Sensor:
    """Counts: a negative binomial of variance mean + mean^2 / dispersion."""

    def observe(x: Floats, chance: Random) -> Floats:
        mean = np.maximum(x, 1e-3)
        return chance.poisson(mean * chance.gamma(dispersion, 1 / dispersion, len(x))).astype(float)

    return observe


def _skewed(sigma: float, zeros: float) -> Sensor:
    """Lognormal readings about the expectation, a share of them 0."""

    def observe(x: Floats, chance: Random) -> Floats:
        read = np.maximum(x, 0) * np.exp(chance.normal(-(sigma**2) / 2, sigma, len(x)))
        return np.where(chance.random(len(x)) < zeros, 0.0, read)

    return observe


def _autoregressive(shock: Floats, memory: float) -> Floats:
    return np.asarray(lfilter([1.0], [1.0, -memory], shock))


def _rounded(x: Floats, quantum: float) -> Floats:
    return np.asarray(np.round(x / quantum) * quantum) if quantum else x


# Normal behaviour. `day` is the time in days.


def _rhythm(chance: Random, day: Floats, sharp: int = 3) -> Floats:
    """A day's profile between 0 and 1, of a few waves, lower at weekends in most streams."""
    orders = np.arange(1, sharp + 1)[:, None]
    phases, heights = chance.random((sharp, 1)), chance.normal(size=(sharp, 1)) / orders
    waves = (heights * np.sin(2 * np.pi * (orders * day + phases))).sum(axis=0)
    profile = (waves - waves.min()) / np.ptp(waves)
    return np.asarray(profile * np.where((day % 7) >= 5, chance.choice([1.0, 0.8, 0.5]), 1.0))


def _pulses(chance: Random, rows: int, rate: float, longest: int, heavy: float = 3.0) -> Floats:
    """Normal bursts at random: heights of a Pareto distribution, a few rows long."""
    x = np.zeros(rows)
    for at in np.flatnonzero(chance.random(rows) < rate):
        x[at : at + int(chance.integers(1, longest + 1))] += 1 + chance.pareto(heavy)
    return x


def _regimes(chance: Random, rows: int, rate: float) -> Floats:
    """A level that moves to another at random."""
    moves = np.where(chance.random(rows) < rate, 1, 0).cumsum()
    return np.asarray(chance.normal(size=moves[-1] + 1)[moves])


def _servers(chance: Random, day: Floats) -> Normal:
    level, sigma = chance.uniform(5, 60), chance.uniform(0.3, 4)
    x = level + sigma * chance.choice([0.0, 0.0, 3.0]) * _rhythm(chance, day)
    x = x + sigma * chance.choice([0.0, 3.0, 6.0]) * _pulses(chance, len(day), chance.choice([0.002, 0.01]), 5)
    x = x + 2 * sigma * chance.choice([0.0, 1.0]) * _regimes(chance, len(day), 3 / len(day))
    quantum = chance.choice([0.0, sigma / 3])
    observe = _noisy(sigma, chance.uniform(0, 0.8), quantum, 0.0, chance.choice([0.0, 4.0]))
    return Normal(x, observe, sigma, (_spike, _burst, _shift, _outage, _ramp, _shake, _higher))


def _latencies(chance: Random, day: Floats) -> Normal:
    level, sigma = chance.uniform(20, 200), chance.uniform(0.1, 0.6)
    x = level * (1 + chance.choice([0.0, 0.3]) * _rhythm(chance, day))
    x = x + level * _pulses(chance, len(day), 0.003, 2, 2.0)
    return Normal(x, _skewed(sigma, 0.0), level * sigma, (_spike, _burst, _shift, _shake, _higher, _ramp))


def _adverts(chance: Random, day: Floats) -> Normal:
    level, sigma = 10 ** chance.uniform(-1, 1), chance.uniform(0.1, 0.7)
    x = level * (1 + chance.uniform(0, 0.6) * _rhythm(chance, day)) * np.exp(0.2 * _regimes(chance, len(day), 0.003))
    x = x + 2 * level * _pulses(chance, len(day), chance.choice([0.001, 0.006]), 2, 2.5)
    observe = _skewed(sigma, chance.choice([0.0, 0.0, 0.02, 0.2]))
    return Normal(x, observe, level * sigma, (_spike, _burst, _shift, _higher, _lower, _shake))


def _mentions(chance: Random, day: Floats) -> Normal:
    level = 10 ** chance.uniform(0, 2.2)
    x = level * (0.2 + 1.5 * _rhythm(chance, day))
    x = x + level * _pulses(chance, len(day), 0.002, 12, 2.0) * 1.5
    return Normal(x, _counted(chance.uniform(2, 12)), level, (_burst, _burst, _spike, _higher, _ramp))


def _roads(chance: Random, day: Floats) -> Normal:
    level = chance.uniform(10, 80)
    rush = _rhythm(chance, day, 6) * chance.choice([-0.4, 0.8])
    x = level * (1 + rush) + level * chance.choice([-0.3, 0.6]) * _pulses(chance, len(day), 0.004, 4)
    observe = _noisy(0.1 * level, 0.3, chance.choice([0.0, 1.0]), 0.0, 5.0)
    return Normal(x, observe, 0.15 * level, (_spike, _dip, _burst, _higher, _lower, _off_rhythm))


def _temperatures(chance: Random, day: Floats) -> Normal:
    rows, sigma = len(day), chance.uniform(0.1, 0.6)
    drift = np.cumsum(chance.normal(0, 0.02, rows))
    x = 60 + drift + chance.uniform(0, 4) * _rhythm(chance, day, 1)
    x = x + 3 * _smoothed(_regimes(chance, rows, 4 / rows), 40)
    observe = _noisy(sigma, chance.uniform(0.5, 0.95), chance.choice([0.0, 0.1]))
    return Normal(x, observe, 2 * sigma, (_spike, _drop, _ramp, _shift, _stand, _shake))


def _gauges(chance: Random, day: Floats) -> Normal:
    level, step = chance.uniform(0, 20), chance.uniform(0.1, 2)
    x = level + step * np.round(2 * _regimes(chance, len(day), 4 / len(day))) * chance.choice([0.0, 0.5])
    x = x + step * _pulses(chance, len(day), chance.choice([0.0, 0.005, 0.02]), 3)
    return Normal(x, _noisy(0.3 * step, 0.0, step, 0.0), step, (_spike, _burst, _shift, _outage, _shake, _ramp))


def _batches(chance: Random, day: Floats) -> Normal:
    base, height, noise = chance.uniform(1, 20), chance.uniform(20, 80), chance.uniform(0.3, 2)
    every, long = 1 / chance.choice([1, 2, 4, 8]), chance.uniform(0.08, 0.4)
    inside = (day % every) / every < long
    x = base + height * inside

    def skip(x: Floats, at: int, size: float, chance: Random) -> None:
        x[at : at + int(every / (day[1] - day[0]))] = base

    def stay(x: Floats, at: int, size: float, chance: Random) -> None:
        x[at : at + int(1.5 * every / (day[1] - day[0]))] = base + height

    return Normal(x, _noisy(noise, 0.3, 0.0, 0.0), 2 * noise, (skip, stay, _outage, _shift, _spike, _off_rhythm))


def _demand(chance: Random, day: Floats) -> Normal:
    level = 10 ** chance.uniform(2, 4)
    x = level * (0.3 + _rhythm(chance, day, 3)) * (1 + 0.1 * _smoothed(_regimes(chance, len(day), 0.01), 30))
    return Normal(
        x, _noisy(0.05 * level, 0.6, 1.0, 0.0), 0.1 * level, (_off_rhythm, _lower, _higher, _stand, _shift, _drop)
    )


def _smoothed(x: Floats, rows: int) -> Floats:
    return np.asarray(_autoregressive((x - x[0]) / rows, 1 - 1 / rows) + x[0])


FAMILIES = {
    "servers": Family((3000, 5000), (300.0,), _servers),
    "latencies": Family((3000, 5000), (300.0,), _latencies),
    "adverts": Family((1500, 1700), (3600.0,), _adverts),
    "mentions": Family((8000, 12000), (300.0,), _mentions),
    "roads": Family((1200, 2600), (600.0,), _roads, gaps=0.05),
    "temperatures": Family((4000, 10000), (300.0, 3600.0), _temperatures),
    "gauges": Family((2000, 5000), (300.0,), _gauges),
    "batches": Family((3000, 5000), (300.0,), _batches),
    "demand": Family((5000, 10000), (1800.0,), _demand),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A family's scored streams, and the share of readings outside the windows with p <= each alpha."""

    files: list[File]
    false_alarms: tuple[float, ...]


def judge(streams: Sequence[Stream]) -> Judged:
    """Train on each probation and score what follows."""
    files, usual = [], []
    for stream in streams:
        rows, probation = stream.readings[:, None], stream.labels.probation
        scored = fit_adaptive([rows[:probation]], ("value",), stream.period_s).score(rows[probation:])
        files.append((np.concatenate([np.zeros(probation), scored.scores]), stream.labels))
        outside = np.ones(len(rows), dtype=bool)
        for first, last in stream.labels.windows:
            outside[first : last + 1] = False
        usual.append(scored.p_values[outside[probation:]])
    p_values = np.concatenate(usual)
    return Judged(files, tuple(float((p_values <= alpha).mean()) for alpha in ALPHAS))


def main() -> None:
    """Generate, detect, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=10, help="streams of each family")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    chosen = parser.parse_args()
    judged = {name: judge(generate(name, chosen.files, chosen.seed)) for name in chosen.families}
    everything = [file for family in judged.values() for file in family.files]
    threshold = best_threshold(everything)
    print(f"threshold of all: {threshold:.3f}, an event: {EVENT_SCORE}")
    print(f"{'':14} at one  by others  event  found  false a file  p <= {ALPHAS[0]} and {ALPHAS[1]}")
    for name, family in judged.items():
        others = [file for other in judged if other != name for file in judged[other].files]
        print(
            f"{name:14} {_scores(family.files, (threshold, best_threshold(others or family.files), EVENT_SCORE))}  "
            + "  ".join(f"{share:.3f}" for share in family.false_alarms)
        )
    print(f"{'all':14} {_scores(everything, (threshold, threshold, EVENT_SCORE))}")


def _scores(files: Sequence[File], thresholds: Sequence[float]) -> str:
    results = [score_at(files, threshold) for threshold in thresholds]
    windows = [worth > 0 for file in results[0].files for worth in file.windows]
    false = sum(file.false_detections for file in results[0].files) / len(files)
    return "  ".join(f"{result.normalised:6.1f}" for result in results) + f"  {np.mean(windows):.2f}  {false:5.1f}"


if __name__ == "__main__":
    main()
