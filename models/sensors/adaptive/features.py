"""What a live stream is asked about each reading: did it jump, swing, shift, leave its daily or weekly rhythm, or
change its liveliness?

All answers come from readings up to the one asked about, by recursions that give the same numbers however a stream
is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Doubles = NDArray[np.float64]
Memory = dict[str, Doubles]

FEATURES = ("jump", "swing", "shift", "rhythm", "liveliness")
_DEVIATION_ROWS, _SHIFT_ROWS, _LONG_ROWS = 30, 10, 1000
_VOLATILITY_ROWS, _USUAL_ROWS = 20, 2000
# How much of a new reading enters its place in a profile: three or four days, or weeks, make one.
_LEARNT = 0.3
# An answer below a hundredth of the usual one is as good as none.
_LEAST = 0.01
_QUIET = 1e-3


@dataclass(frozen=True, slots=True)
class StreamFeatures:
    """Asks of `columns` columns; `seasons` are lengths of rhythms in rows, longest first, `unit` [columns] a
    column's ordinary size.
    """

    columns: int
    seasons: tuple[int, ...]
    unit: Doubles

    def new_memory(self) -> Memory:
        """What is known before the first reading."""
        memory = {name: np.zeros(self.columns) for name in ("last", "swing", "short", "long", "lively", "usual")}
        memory |= {f"season_{length}": np.zeros((length, self.columns)) for length in self.seasons}
        return memory | {"errors": np.zeros((len(FEATURES) - 1) * self.columns), "rows": np.zeros(1)}

    def ask(self, x: Doubles, memory: Memory) -> Doubles:
        """Log of each answer in its usual size, float64 [n, questions, columns], of readings [n, columns]; `memory`
        moves on.
        """
        seen = int(memory["rows"][0])
        before = np.concatenate([(x[:1] if not seen else memory["last"][None]), x[:-1]])
        jump = np.abs(x - before)
        short = _level(x, _SHIFT_ROWS, memory, "short", seen)
        longer = _level(x, _LONG_ROWS, memory, "long", seen)
        start = x[0] if not seen else _corrected(memory["swing"], _DEVIATION_ROWS, seen)
        deviation = np.abs(x - _shifted(start, _level(x, _DEVIATION_ROWS, memory, "swing", seen)))
        answers = [jump, deviation, np.abs(short - longer), np.abs(x - self._profile(x, memory, seen))]
        in_size = self._in_usual_size(np.stack(answers, axis=1), memory, seen)
        volatility = self._volatility(jump, memory, seen)
        memory["last"], memory["rows"] = x[-1].copy(), np.array([float(seen + len(x))])
        return np.concatenate([np.log(np.maximum(in_size, _LEAST)), volatility[:, None]], axis=1)

    def _in_usual_size(self, answers: Doubles, memory: Memory, seen: int) -> Doubles:
        """Answers [n, q, columns] divided by their own mean up to the reading before."""
        flat = answers.reshape(len(answers), -1)
        start = np.zeros(flat.shape[1]) if not seen else _corrected(memory["errors"], _USUAL_ROWS, seen)
        usual = _shifted(start, _level(flat, _USUAL_ROWS, memory, "errors", seen)).reshape(answers.shape)
        return answers / (usual + _QUIET * self.unit)

    def _volatility(self, jump: Doubles, memory: Memory, seen: int) -> Doubles:
        """How many times more, or less, a stream moves than it used to: the absolute logarithm."""
        now, usual = (
            _level(jump, _VOLATILITY_ROWS, memory, "lively", seen),
            _level(jump, _USUAL_ROWS, memory, "usual", seen),
        )
        floor = _QUIET * (usual + self.unit)
        return np.abs(np.log((now + floor) / (usual + floor)))

    def _profile(self, x: Doubles, memory: Memory, seen: int) -> Doubles:
        """What the same places of earlier days or weeks lead to expect [n, columns]: of the longest rhythm that was
        seen whole.
        """
        expected = x.copy()
        for length in reversed(self.seasons):
            profile = memory[f"season_{length}"] = memory[f"season_{length}"].copy()
            at = 0
            while at < len(x):
                place = (seen + at) % length
                end = min(at + length - place, len(x))
                here = profile[place : place + end - at]
                if seen + at >= length:
                    expected[at:end] = here
                    here += _LEARNT * (x[at:end] - here)
                else:
                    here[:] = x[at:end]
                at = end
        return expected


def _level(x: Doubles, rows: int, memory: Memory, name: str, seen: int) -> Doubles:
    """The mean of about the last `rows` rows with exponentially falling weights [n, columns], from the first row on
    unbiased.
    """
    share = 1 / rows
    sums, _ = lfilter([share], [1.0, share - 1.0], x, axis=0, zi=((1 - share) * memory[name])[None])
    memory[name] = sums[-1].copy()
    weight = 1 - (1 - share) ** (seen + 1 + np.arange(len(x)))
    return np.asarray(sums / weight[:, None])


def _corrected(sums: Doubles, rows: int, seen: int) -> Doubles:
    return np.asarray(sums / (1 - (1 - 1 / rows) ** seen))


def _shifted(first: Doubles, rest: Doubles) -> Doubles:
    return np.concatenate([first[None], rest[:-1]])
