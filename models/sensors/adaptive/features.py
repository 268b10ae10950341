"""Features of a live stream: jump, deviation, shift, season, rhythm, busyness, volatility and extremes.

All are causal, and recursive: they are the same however a stream is cut into calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.adaptive.design import Design
from models.sensors.adaptive.seasons import UNSEEN, Rows, StreamClock, expect

Doubles = NDArray[np.float64]
# Keys of stored states and artifacts stay as they were first written: "swing" is the deviation's mean, "lively" and
# "usual" are the short and the long volatility, "errors" the features' usual sizes.
Memory = dict[str, Doubles]

_DEVIATION_ROWS, _SHIFT_ROWS, _LONG_ROWS, _RHYTHM_ROWS = 30, 10, 1000, 20
_VOLATILITY_ROWS, _USUAL_ROWS = 20, 2000
# After a shift the season's errors are large until it is learnt again; their usual size must not stay large for long.
_USUAL_RHYTHM_ROWS = 500
# Jump, deviation, shift and season are measured in their own usual size.
_SIZES = 4
# A feature below a hundredth of its usual size counts as that.
_MIN_RATIO = 0.01
# A reading that lies beyond all before it by this share of their range is an extreme one, after the first readings.
_EXTREME = 0.1
_EARLY_ROWS = 100
# Usual sizes have a floor, as a share of the column's unit.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class StreamFeatures:
    """Computes the features of `columns` columns that a design has.

    `seasons` are season lengths in slots, longest first; `unit` [columns] is a column's ordinary size. `clock` says
    which slots readings have; designs without it count readings.
    """

    columns: int
    seasons: tuple[int, ...]
    unit: Doubles
    design: Design
    clock: StreamClock

    def new_memory(self) -> Memory:
        """The memory before the first reading."""
        names = ["last", "swing", "short", "long", "lively", "usual"]
        lengths = {f"season_{length}": length for length in self.seasons}
        if self.design.rhythm:
            names += ["rhythm", "rhythm_errors", "day", "day_errors", "busy"]
            lengths |= dict(zip(["busyness"], self.seasons[-1:], strict=False))
        memory = {name: np.zeros(self.columns) for name in names}
        empty = UNSEEN if self.design.by_time else 0.0
        memory |= {name: np.full((length, self.columns), empty) for name, length in lengths.items()}
        if self.design.by_time:
            memory |= self.clock.new_memory()
        if self.design.extremes:
            memory |= {"highest": np.full(self.columns, -UNSEEN), "lowest": np.full(self.columns, UNSEEN)}
        return memory | {"errors": np.zeros(_SIZES * self.columns), "rows": np.zeros(1)}

    def extremes(self, x: Doubles, memory: Memory) -> Doubles:
        """How far readings [n, columns] lie beyond all before them, as a score of at most `design.extremes`.

        Updates `memory`. 0 for the first 100 readings of a stream, which often are the first of their kind.
        """
        if not self.design.extremes:
            return np.zeros(x.shape)
        highest = np.maximum.accumulate(np.concatenate([memory["highest"][None], x]))
        lowest = np.minimum.accumulate(np.concatenate([memory["lowest"][None], x]))
        memory["highest"], memory["lowest"] = highest[-1], lowest[-1]
        beyond = np.maximum(x - highest[:-1], lowest[:-1] - x)
        far = _EXTREME * np.maximum(highest[:-1] - lowest[:-1], _FLOOR * self.unit)
        early = int(memory["rows"][0]) + np.arange(len(x)) < _EARLY_ROWS
        share = np.clip(beyond, 0.0, far) / far
        return np.asarray(self.design.extremes * np.where(early[:, None], 0.0, share))

    def compute(self, x: Doubles, memory: Memory, times: Doubles | None = None) -> Doubles:
        """Features float64 [n, features, columns] of readings [n, columns] at times [n]; updates `memory`.

        All but the volatility are logarithms of the ratio to the feature's usual size.
        """
        seen = int(memory["rows"][0])
        jump = np.abs(x - _delayed(memory["last"] if seen else x[0], x))
        short = _running_mean(x, _SHIFT_ROWS, memory, "short", seen)
        longer = _running_mean(x, _LONG_ROWS, memory, "long", seen)
        before = _debiased(memory["swing"], _DEVIATION_ROWS, seen) if seen else x[0]
        deviation = np.abs(x - _delayed(before, _running_mean(x, _DEVIATION_ROWS, memory, "swing", seen)))
        slots = self._slots(times, len(x), memory)
        by_day, by_best = self._expected(x, slots, memory)
        sizes = [jump, deviation, np.abs(short - longer), np.abs(x - by_best)]
        ratios = [self._to_usual_size(np.stack(sizes, axis=1), memory, seen)]
        if self.design.rhythm:
            ratios.append(self._rhythm(x - by_best, memory, seen)[:, None])
            ratios.append(self._busyness(x - by_day, slots, memory)[:, None])
        volatility = self._volatility(jump, memory, seen)
        memory["last"], memory["rows"] = x[-1].copy(), np.array([float(seen + len(x))])
        logarithms = np.log(np.maximum(np.concatenate(ratios, axis=1), _MIN_RATIO))
        return np.concatenate([logarithms, volatility[:, None]], axis=1)

    def _to_usual_size(self, sizes: Doubles, memory: Memory, seen: int) -> Doubles:
        """Divide sizes [n, features, columns] by their own running mean up to the reading before."""
        flat = sizes.reshape(len(sizes), -1)
        usual = _mean_before(flat, _USUAL_ROWS, memory, "errors", seen).reshape(sizes.shape)
        return sizes / (usual + _FLOOR * self.unit)

    def _rhythm(self, errors: Doubles, memory: Memory, seen: int) -> Doubles:
        """The recent mean of the seasonal errors [n, columns], to its usual size."""
        recent = np.abs(_running_mean(errors, _RHYTHM_ROWS, memory, "rhythm", seen))
        usual = _mean_before(recent, _USUAL_RHYTHM_ROWS, memory, "rhythm_errors", seen)
        return np.asarray(recent / (usual + _FLOOR * self.unit))

    def _busyness(self, errors: Doubles, slots: dict[int, Rows], memory: Memory) -> Doubles:
        """Divide the recent mean of a day's errors [n, columns] by what they usually are at this time of day.

        Half of that is the mean of all times, so that a quiet hour's trifles stay trifles.
        """
        seen = int(memory["rows"][0])
        sizes = np.abs(errors)
        always = _mean_before(np.nan_to_num(sizes), _USUAL_RHYTHM_ROWS, memory, "day_errors", seen)
        by_hour = always
        for length in self.seasons[-1:]:
            if self.design.by_time:
                usual = expect(sizes, slots[length], memory, "busyness")
            else:
                rows = seen + np.arange(len(errors))
                usual = expect(np.nan_to_num(sizes), slots[length], memory, "busyness", rows >= length)
                usual[rows < 2 * length] = np.nan
            by_hour = np.where(np.isnan(usual), always, usual)
        usual = (_running_mean(by_hour, _RHYTHM_ROWS, memory, "busy", seen) + always) / 2
        recent = _running_mean(np.nan_to_num(errors), _RHYTHM_ROWS, memory, "day", seen)
        return np.abs(recent) / (usual + _FLOOR * self.unit)

    def _volatility(self, jump: Doubles, memory: Memory, seen: int) -> Doubles:
        """The absolute logarithm of the recent mean jump to the usual one [n, columns]."""
        now = _running_mean(jump, _VOLATILITY_ROWS, memory, "lively", seen)
        usual = _running_mean(jump, _USUAL_ROWS, memory, "usual", seen)
        floor = _FLOOR * (usual + self.unit)
        return np.abs(np.log((now + floor) / (usual + floor)))

    def _slots(self, times: Doubles | None, rows: int, memory: Memory) -> dict[int, Rows]:
        """The slots [rows] of readings in each season, by its length."""
        if self.design.by_time:
            at = self.clock.read(times, rows, memory)
            return {length: self.clock.slots(at, length) for length in self.seasons}
        counted = int(memory["rows"][0]) + np.arange(rows)
        return {length: counted % length for length in self.seasons}

    def _expected(self, x: Doubles, slots: dict[int, Rows], memory: Memory) -> tuple[Doubles, Doubles]:
        """Readings [n, columns] expected by the shortest season, and by the one that is nearer to them.

        Designs that count readings take the longest one instead. NaN in the former where its slot is not known; the
        latter then has the readings themselves.
        """
        by_shortest = best = np.full(x.shape, np.nan)
        counted = int(memory["rows"][0]) + np.arange(len(x))
        for length in reversed(self.seasons):
            known = None if self.design.by_time else counted >= length
            by_this = expect(x, slots[length], memory, f"season_{length}", known)
            by_shortest = by_this if length == self.seasons[-1] else by_shortest
            farther = np.abs(x - by_this) >= np.abs(x - best) if self.design.by_time else False
            best = np.where(np.isnan(by_this) | farther, best, by_this)
        return by_shortest, np.where(np.isnan(best), x, best)


def _mean_before(sizes: Doubles, rows: int, memory: Memory, name: str, seen: int) -> Doubles:
    """The mean size [n, series] of about `rows` rows before each; 0 before the first."""
    before = _debiased(memory[name], rows, seen) if seen else np.zeros(sizes.shape[1])
    return _delayed(before, _running_mean(sizes, rows, memory, name, seen))


def _running_mean(x: Doubles, rows: int, memory: Memory, name: str, seen: int) -> Doubles:
    """The unbiased exponentially weighted mean of about the last `rows` rows [n, columns]."""
    from scipy.signal import lfilter  # takes a third of a second to import, and few detectors need it

    share = 1 / rows
    sums, _ = lfilter([share], [1.0, share - 1.0], x, axis=0, zi=((1 - share) * memory[name])[None])
    memory[name] = sums[-1].copy()
    weight = 1 - (1 - share) ** (seen + 1 + np.arange(len(x)))
    return np.asarray(sums / weight[:, None])


def _debiased(sums: Doubles, rows: int, seen: int) -> Doubles:
    return np.asarray(sums / (1 - (1 - 1 / rows) ** seen))


def _delayed(first: Doubles, x: Doubles) -> Doubles:
    """Each row's predecessor [n, columns]; `first` is that of the first row."""
    return np.concatenate([first[None], x[:-1]])
