"""Families of machines: readings of normal operation, different for every state of the random generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Doubles = NDArray[np.float64]
Random = np.random.Generator


def _noise(random: Random, rows: int, columns: int, correlation_rows: float) -> Doubles:
    """First-order autoregressive noise [rows, columns] of variance 1; its memory fades over `correlation_rows`."""
    keep = float(np.exp(-1 / correlation_rows))
    first = random.standard_normal((1, columns))
    steps = np.sqrt(1 - keep**2) * random.standard_normal((rows - 1, columns))
    return _fading_sum(np.concatenate([first, steps]), keep)


def _follow(x: Doubles, rows: float) -> Doubles:
    """A first-order lag of x [n, …]: heat that follows power, within about `rows` readings."""
    keep = float(np.exp(-1 / rows))
    return (1 - keep) * _fading_sum(x - x[:1], keep) + x[:1]


def _fading_sum(x: Doubles, keep: float) -> Doubles:
    """y(t) = x(t) + keep · y(t - 1), for x [n, …]."""
    summed: Doubles = lfilter([1.0], [1.0, -keep], x, axis=0)
    return summed


def _wave(random: Random, phase: Doubles, harmonics: int = 3) -> Doubles:
    """A periodic curve of a phase [n] in turns, with random harmonics."""
    parts = [
        random.normal() / order * np.cos(2 * np.pi * (order * phase + random.random()))
        for order in range(1, harmonics + 1)
    ]
    curve: Doubles = np.sum(parts, axis=0)
    return curve / max(float(curve.std()), 1e-3)


def _rotating(random: Random, rows: int) -> Doubles:
    """A motor: vibrations that grow with speed, a current that follows the load, heat that follows the current."""
    speed = 1 + 0.05 * _noise(random, rows, 1, random.uniform(1, 60))[:, 0]
    load = 1 + 0.1 * _noise(random, rows, 1, random.uniform(1, 40))[:, 0]
    rough = 1 + random.uniform(0.02, 0.2) * random.standard_normal((rows, 3))
    vibrations = random.uniform(0.5, 2, 3) * speed[:, None] ** 2 * rough
    current = load * speed + 0.03 * random.standard_normal(rows)
    heat = 40 + 20 * _follow(current, random.uniform(50, 400)) + 0.1 * random.standard_normal(rows)
    pressure = speed**2 + 0.05 * _noise(random, rows, 1, 3)[:, 0]
    voltage = 230 + 2 * random.standard_normal(rows)
    return np.column_stack([vibrations, current, heat, pressure, voltage])


def _thermal(random: Random, rows: int) -> Doubles:
    """An oven with a two-point controller: a saw tooth of temperature, slower walls, weather outside."""
    outside = 15 + 4 * _noise(random, rows, 1, random.uniform(200, 1500))[:, 0]
    target, band = random.uniform(60, 120), random.uniform(1, 4)
    loss, power = random.uniform(0.01, 0.03), random.uniform(3, 6)
    temperature, heating = np.empty(rows), np.empty(rows)
    now, on = target, 1.0
    for row in range(rows):
        on = 1.0 if now < target - band else 0.0 if now > target + band else on
        now += power * on - loss * (now - outside[row]) + 0.1 * random.standard_normal()
        temperature[row], heating[row] = now, on
    walls = _follow(temperature, random.uniform(30, 200))
    measured = np.column_stack([temperature, walls, outside, 10 * heating])
    return measured + np.array([0.2, 0.1, 0.2, 0.05]) * random.standard_normal((rows, 4))


def _flow(random: Random, rows: int) -> Doubles:
    """A pump, a valve and a tank: what flows in flows out later, and pressures follow the squares of the flows."""
    valve = 0.5 + 0.1 * _noise(random, rows, 1, random.uniform(5, 80))[:, 0]
    inflow = 2 * valve + 0.05 * _noise(random, rows, 1, 4)[:, 0]
    level = 5 * _follow(inflow, random.uniform(20, 100))
    outflow = np.sqrt(np.maximum(level, 0.01)) + 0.03 * random.standard_normal(rows)
    drop = inflow**2 / np.maximum(valve, 0.1) + 0.05 * random.standard_normal(rows)
    power = inflow * (1 + drop) + 0.1 * random.standard_normal(rows)
    return np.column_stack([valve, inflow, level, outflow, drop, power])


def _batch(random: Random, rows: int) -> Doubles:
    """Batches of heating, holding and cooling, whose lengths differ a little from one to the next."""
    period, columns = random.uniform(40, 200), int(random.integers(2, 7))
    lengths = period * (1 + 0.08 * random.standard_normal(int(3 * rows / period) + 5)).clip(0.5, 1.5)
    ends = np.cumsum(lengths)
    times = np.arange(rows)
    batch = np.searchsorted(ends, times, side="right")
    phase = 1 - (ends[batch] - times) / lengths[batch]
    steps = np.sort(random.random((columns, 4)), axis=1)
    levels = random.uniform(-1, 1, (columns, 5))
    curves = [levels[column][np.searchsorted(steps[column], phase)] for column in range(columns)]
    smooth = _follow(np.column_stack(curves), random.uniform(2, 10))
    return smooth * (1 + 0.03 * random.standard_normal(len(ends)))[batch][:, None] + 0.05 * _noise(
        random, rows, columns, 3
    )


def _daily(random: Random, rows: int) -> Doubles:
    """Consumption by the time of day and the day of the week."""
    day, columns = int(random.choice([24, 48, 96])), int(random.integers(1, 6))
    times = np.arange(rows) / day
    weekend = (np.floor(times) % 7 >= 5).astype(float)
    spread = random.uniform(0.1, 0.5)
    made = [
        _wave(random, times % 1) * (1 - random.uniform(0.1, 0.6) * weekend)
        + spread * _noise(random, rows, 1, random.uniform(1, day / 4))[:, 0]
        for _ in range(columns)
    ]
    return np.column_stack(made)


def _regimes(random: Random, rows: int) -> Doubles:
    """A machine that changes between a few ways of running, each with means and couplings of its own."""
    columns, states = int(random.integers(3, 9)), int(random.integers(2, 5))
    stay, state = random.uniform(30, 150), 0
    path = np.empty(rows, np.int64)
    for row in range(rows):
        state = int(random.integers(states)) if random.random() < 1 / stay else state
        path[row] = state
    means = 3 * random.standard_normal((states, columns))
    mixing = random.standard_normal((states, columns, columns)) / np.sqrt(columns)
    inner = _noise(random, rows, columns, random.uniform(1, 10))
    coupled: Doubles = np.einsum("nij,nj->ni", mixing[path], inner)
    return _follow(means[path], 3) + 0.5 * coupled


def _drift(random: Random, rows: int) -> Doubles:
    """Fast columns beside columns that wander, and go on wandering after training."""
    fast, slow = int(random.integers(2, 6)), int(random.integers(1, 4))
    wander = _noise(random, rows, slow, random.uniform(500, 3000)) + 0.1 * random.standard_normal((rows, slow))
    quick = _noise(random, rows, fast, random.uniform(1, 8)) + 0.3 * wander[:, :1]
    return np.column_stack([quick, wander])


def _heavy_tails(random: Random, rows: int) -> Doubles:
    """Readings with outliers as a part of normal operation."""
    columns = int(random.integers(1, 8))
    shocks: Doubles = random.standard_t(random.uniform(2.5, 5), (rows, columns))
    tailed: Doubles = _fading_sum(shocks, random.uniform(0, 0.9)) + shocks.mean(axis=1, keepdims=True)
    return tailed


def _coarse(random: Random, rows: int) -> Doubles:
    """Gauges of few digits, and some that send a new value only now and then."""
    columns = int(random.integers(2, 7))
    readings = _noise(random, rows, columns, random.uniform(3, 40))
    readings[:, 1:] += 0.7 * readings[:, :1]
    for column in range(columns):
        step = random.uniform(0.2, 1.2)
        readings[:, column] = np.round(readings[:, column] / step) * step
        if random.random() < 0.4:
            held = int(random.integers(2, 8))
            readings[:, column] = readings[np.arange(rows) // held * held, column]
    return readings


def _network(random: Random, rows: int) -> Doubles:
    """Many columns that a few hidden causes move, some of them some readings later."""
    columns, causes = int(random.integers(8, 20)), int(random.integers(2, 5))
    reach = 6
    hidden = _noise(random, rows + reach, causes, random.uniform(2, 60))
    late = [hidden[reach - delay : reach - delay + rows] for delay in random.integers(0, reach, columns).tolist()]
    weights = random.standard_normal((columns, causes))
    shared = np.column_stack([part @ weight for part, weight in zip(late, weights, strict=True)])
    return shared + random.uniform(0.2, 0.6) * _noise(random, rows, columns, random.uniform(1, 5))


def _pulses(random: Random, rows: int) -> Doubles:
    """A press or a heart: a short pattern that repeats with a small jitter."""
    period, columns = random.uniform(12, 60), int(random.integers(1, 5))
    turns = np.cumsum(1 / period * (1 + 0.1 * _noise(random, rows, 1, 5)[:, 0]))
    place = [_pulse(turns + random.random(), random.uniform(0.05, 0.2)) for _ in range(columns)]
    return np.column_stack(place) + random.uniform(0.03, 0.15) * random.standard_normal((rows, columns))


def _pulse(turns: Doubles, width: float) -> Doubles:
    """One peak a turn."""
    return np.exp(-(((turns % 1 - 0.5) / width) ** 2))


def _counts(random: Random, rows: int) -> Doubles:
    """Events in an interval: clicks, cars, messages, with a rate by the time of day and bursts."""
    day, columns = int(random.choice([48, 96, 288])), int(random.integers(1, 4))
    times = np.arange(rows) / day
    made = []
    for _ in range(columns):
        rate = np.exp(random.uniform(0.5, 4) + 0.6 * _wave(random, times % 1) + 0.2 * _noise(random, rows, 1, 10)[:, 0])
        made.append(random.poisson(np.minimum(rate, 1e6)).astype(np.float64))
    return np.column_stack(made)


def _telemetry(random: Random, rows: int) -> Doubles:
    """A spacecraft's channel: one measured value, and many binary columns that say which commands were sent.

    Most commands are rare and change nothing, some move the value, some columns are constant, and some switch for the
    first time after training.
    """
    commands = int(random.choice([24, 54]))
    rates = np.exp(random.uniform(np.log(3e-4), np.log(0.05), commands)) * (random.random(commands) < 0.7)
    sent = (random.random((rows, commands)) < rates).astype(np.float64)
    switches = np.flatnonzero(random.random(commands) < 0.1)
    sent[:, switches] = np.arange(rows)[:, None] > random.integers(0, rows, len(switches))
    answers = sent * (random.random(commands) < 0.2) * random.normal(0, 0.7, commands)
    value = _measured(random, rows) + _fading_sum(answers.sum(axis=1), random.uniform(0, 0.9))
    return np.column_stack([value, sent])


def _measured(random: Random, rows: int) -> Doubles:
    """A value that repeats itself, wanders, moves between levels, or is coarse, with a little noise."""
    phase, noise = np.arange(rows) / random.uniform(30, 300), random.uniform(0.02, 0.3)
    kinds = (
        lambda: _wave(random, phase),
        lambda: np.sign(_wave(random, phase)),
        lambda: _noise(random, rows, 1, random.uniform(3, 100))[:, 0],
        lambda: np.round(2 * _noise(random, rows, 1, random.uniform(20, 200))[:, 0]) / 2,
    )
    shape: Doubles = kinds[random.integers(len(kinds))]()
    return shape + noise * random.standard_normal(rows)


def _days(random: Random, rows: int) -> Doubles:
    """A machine that is started anew each day: it warms up, and a day has a level, a load and a noise of its own."""
    readings = _machine(random, rows)
    columns, between = readings.shape[1], random.uniform(0.05, 0.5)
    length = random.uniform(150, 1500)
    ends = np.cumsum(length * random.uniform(0.6, 1.4, int(2 * rows / length) + 2))
    day = np.searchsorted(ends, np.arange(rows), side="right")
    since = np.arange(rows) - np.concatenate([[0.0], ends])[day]
    days = len(ends) + 1
    moves = random.random(columns) < 0.6
    level = between * random.standard_normal((days, columns)) * moves
    load = 1 + 0.1 * random.standard_normal((days, 1))
    noise = 0.2 * random.random((days, 1)) * random.random(columns)
    cold = random.uniform(0.3, 1.5) * (random.random(columns) < 0.3)
    warming = np.exp(-since / random.uniform(5, 40))[:, None] * cold
    disturbed: Doubles = level[day] - warming + noise[day] * random.standard_normal((rows, columns))
    return readings * load[day] + disturbed


def _ageing(random: Random, rows: int) -> Doubles:
    """A machine that fouls and loosens slowly, with sensors that are calibrated anew now and then."""
    readings = _machine(random, rows)
    columns, time = readings.shape[1], np.linspace(0, 1, rows)[:, None]
    fouled = np.cumsum(random.exponential(1.0, rows) * (random.random(rows) < random.uniform(0.002, 0.05)))
    fouling = (
        random.uniform(-1.5, 1.5, columns) * (random.random(columns) < 0.5) * (fouled / max(fouled[-1], 1))[:, None]
    )
    loosening = 1 + random.uniform(0, 0.4) * time * (random.random(columns) < 0.5)
    calibrated = time >= random.random(columns)
    offsets = random.uniform(0.1, 0.6) * random.standard_normal(columns) * (random.random(columns) < 0.4)
    centre = readings.mean(axis=0)
    aged: Doubles = centre + (readings - centre) * loosening + fouling + offsets * calibrated
    return aged


def _machine(random: Random, rows: int) -> Doubles:
    """Readings of a machine that does not change by itself, each column of variance 1."""
    makes = (_rotating, _flow, _network, _thermal, _coarse)
    readings = makes[random.integers(len(makes))](random, rows)
    scaled: Doubles = (readings - readings.mean(axis=0)) / np.maximum(readings.std(axis=0), 1e-9)
    return scaled


FAMILIES: dict[str, Callable[[Random, int], Doubles]] = {
    "rotating": _rotating,
    "thermal": _thermal,
    "flow": _flow,
    "batch": _batch,
    "daily": _daily,
    "regimes": _regimes,
    "drift": _drift,
    "heavy tails": _heavy_tails,
    "coarse": _coarse,
    "network": _network,
    "pulses": _pulses,
    "counts": _counts,
    "telemetry": _telemetry,
    "days": _days,
    "ageing": _ageing,
}
# The first columns, which can have faults, of families whose other columns are commands.
MEASURED = {"telemetry": 1}
