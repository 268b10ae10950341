"""Features of a live stream: jump, deviation, shift, season, rhythm, busyness and volatility.

All are causal, and recursive: they are the same however a stream is cut into calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.adaptive.design import Design

Doubles = NDArray[np.float64]
# Keys of stored states and artifacts stay as they were first written: "swing" is the deviation's mean, "lively" and
# "usual" are the short and the long volatility, "errors" the features' usual sizes.
Memory = dict[str, Doubles]

_DEVIATION_ROWS, _SHIFT_ROWS, _LONG_ROWS, _RHYTHM_ROWS = 30, 10, 1000, 20
_VOLATILITY_ROWS, _USUAL_ROWS = 20, 2000
# After a shift the season's errors are large until it is learnt again; their usual size must not stay large for long.
_USUAL_RHYTHM_ROWS = 500
# The weight of a new reading in its slot of a seasonal profile, which is then a mean of three or four days or weeks.
_PROFILE_WEIGHT = 0.3
# Jump, deviation, shift and season are measured in their own usual size.
_SIZES = 4
# A feature below a hundredth of its usual size counts as that.
_MIN_RATIO = 0.01
# Usual sizes have a floor, as a share of the column's unit.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class StreamFeatures:
    """Computes the features of `columns` columns that a design has.

    `seasons` are season lengths in rows, longest first; `unit` [columns] is a column's ordinary size.
    """

    columns: int
    seasons: tuple[int, ...]
    unit: Doubles
    design: Design

    def new_memory(self) -> Memory:
        """The memory before the first reading."""
        names = ["last", "swing", "short", "long", "lively", "usual"]
        lengths = {f"season_{length}": length for length in self.seasons}
        if self.design.rhythm:
            names += ["rhythm", "rhythm_errors", "day", "day_errors", "busy"]
            lengths |= dict(zip(["busyness"], self.seasons[-1:], strict=False))
        memory = {name: np.zeros(self.columns) for name in names}
        memory |= {name: np.zeros((length, self.columns)) for name, length in lengths.items()}
        return memory | {"errors": np.zeros(_SIZES * self.columns), "rows": np.zeros(1)}

    def compute(self, x: Doubles, memory: Memory) -> Doubles:
        """Features float64 [n, features, columns] of readings [n, columns]; updates `memory`.

        All but the volatility are logarithms of the ratio to the feature's usual size.
        """
        seen = int(memory["rows"][0])
        jump = np.abs(x - _delayed(memory["last"] if seen else x[0], x))
        short = _running_mean(x, _SHIFT_ROWS, memory, "short", seen)
        longer = _running_mean(x, _LONG_ROWS, memory, "long", seen)
        before = _debiased(memory["swing"], _DEVIATION_ROWS, seen) if seen else x[0]
        deviation = np.abs(x - _delayed(before, _running_mean(x, _DEVIATION_ROWS, memory, "swing", seen)))
        by_day, by_longest = self._expected(x, memory, seen)
        sizes = [jump, deviation, np.abs(short - longer), np.abs(x - by_longest)]
        ratios = [self._to_usual_size(np.stack(sizes, axis=1), memory, seen)]
        if self.design.rhythm:
            ratios.append(self._rhythm(x - by_longest, memory, seen)[:, None])
            ratios.append(self._busyness(x - by_day, memory, seen)[:, None])
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

    def _busyness(self, errors: Doubles, memory: Memory, seen: int) -> Doubles:
        """Divide the recent mean of a day's errors [n, columns] by what they usually are at this time of day.

        Half of that is the mean of all times, so that a quiet hour's trifles stay trifles.
        """
        always = _mean_before(np.abs(errors), _USUAL_RHYTHM_ROWS, memory, "day_errors", seen)
        by_hour = always
        for length in self.seasons[-1:]:
            known = seen + np.arange(len(errors)) >= 2 * length
            by_hour = np.where(known[:, None], _by_profile(np.abs(errors), length, memory, "busyness", seen), always)
        usual = (_running_mean(by_hour, _RHYTHM_ROWS, memory, "busy", seen) + always) / 2
        return np.abs(_running_mean(errors, _RHYTHM_ROWS, memory, "day", seen)) / (usual + _FLOOR * self.unit)

    def _volatility(self, jump: Doubles, memory: Memory, seen: int) -> Doubles:
        """The absolute logarithm of the recent mean jump to the usual one [n, columns]."""
        now = _running_mean(jump, _VOLATILITY_ROWS, memory, "lively", seen)
        usual = _running_mean(jump, _USUAL_ROWS, memory, "usual", seen)
        floor = _FLOOR * (usual + self.unit)
        return np.abs(np.log((now + floor) / (usual + floor)))

    def _expected(self, x: Doubles, memory: Memory, seen: int) -> tuple[Doubles, Doubles]:
        """Readings [n, columns] expected by the shortest season, and by the longest that was seen whole.

        Updates the profiles. Without a whole season, a reading is as expected.
        """
        by_shortest = by_longest = x
        for length in reversed(self.seasons):
            by_this = _by_profile(x, length, memory, f"season_{length}", seen)
            whole = seen + np.arange(len(x)) >= length
            by_longest = np.where(whole[:, None], by_this, by_longest)
            by_shortest = by_this if length == self.seasons[-1] else by_shortest
        return by_shortest, by_longest


def _by_profile(x: Doubles, length: int, memory: Memory, name: str, seen: int) -> Doubles:
    """What the seasonal profile `name` expects of x [n, columns]: x itself in the first season.

    Updates the profile [length, columns].
    """
    profile, expected = memory[name].copy(), x.copy()
    start = 0
    while start < len(x):
        slot = (seen + start) % length
        end = min(start + length - slot, len(x))
        slots = profile[slot : slot + end - start]
        if seen + start >= length:
            expected[start:end] = slots
            slots += _PROFILE_WEIGHT * (x[start:end] - slots)
        else:
            slots[:] = x[start:end]
        start = end
    memory[name] = profile
    return expected


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
