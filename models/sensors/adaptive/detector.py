"""A detector of live streams that goes on learning: what is unlike the stream's own recent ways, said once for each
event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sensors.adaptive.features import FEATURES, StreamFeatures
from models.sensors.adaptive.running_p_values import RunningPValues
from models.sensors.adaptive.tails import BLOCK, BLOCKS, MOST, BlockTails
from models.sensors.base import Readings, Scored, State
from models.sensors.seasonality import calendar, repeating

Doubles = NDArray[np.float64]

NAME = "adaptive"

# A reading is an event from here on: so rare, in powers of ten, on the mean of the questions that agree.
EVENT = 1.1
REST_ROWS = 150
_AGREEING, _TOGETHER_ROWS = 3, 5
# Scores so many readings apart share no answer.
_INDEPENDENT_ROWS = 8
_START = "start."
_MOST_STATE_BYTES = 60_000
_ROWS_AT_ONCE = 8192
_LEAST_UNIT = 1e-6
# Parts of the state that are shorter at times, and their greatest lengths.
_GROWING = {"maxima": BLOCKS, "open": BLOCK - 1, "uncounted": _INDEPENDENT_ROWS - 1, "recent": _TOGETHER_ROWS - 1}


@dataclass(frozen=True, slots=True)
class AdaptiveSensor:
    """Implements `seam.Sensor` for series of few columns whose normal ways change.

    Five questions are put to every reading (`questions`), each answer's rarity is told from the stream's own recent
    blocks (`tails`), and a column's score is the mean of the three rarest answers of the last 5 readings, as powers
    of ten: one question alone is often wrong. The score is the highest column's. After an event the next 150
    readings score less than half of one, so that it is told once. P-values compare scores with the stream's own
    before (`running`).

    Everything is causal and goes on learning with each reading, so that there is no drift to be warned of; `start`
    is what it knew at the end of its training.
    """

    columns: tuple[str, ...]
    seasons: tuple[int, ...]
    unit: Doubles
    start: State
    period_s: float | None = None

    kind: Literal["series"] = "series"
    learns: Literal[True] = True

    @property
    def window(self) -> int:
        """The first reading is scored: the training part came before it."""
        return 1

    @property
    def calibrated_on(self) -> int:
        """Blocks of readings of the training part that the first p-values rest on."""
        return self._share.blocks(self.start)

    @property
    def stride(self) -> int:
        """How many readings lie between independent ones."""
        return _INDEPENDENT_ROWS

    def threshold(self, alpha: float) -> float | None:
        """The score from which a reading was an anomaly at `alpha` at the end of training; it moves on with the
        stream.
        """
        return self._share.threshold(alpha, self.start)

    def memory_bytes(self) -> int:
        """Bytes of what it knows."""
        return self.unit.nbytes + sum(part.nbytes for part in self.start.values())

    def tensors(self) -> dict[str, Tensor]:
        """What `sensor.safetensors` keeps."""
        known = {f"{_START}{name}": torch.from_numpy(part) for name, part in self.start.items()}
        return known | {"unit": torch.from_numpy(self.unit)}

    def describe(self) -> dict[str, Any]:
        """What `sensor.json` keeps."""
        return {
            "kind": self.kind,
            "columns": list(self.columns),
            "period_s": self.period_s,
            "detector": NAME,
            "settings": {"seasons": list(self.seasons)},
            "window": self.window,
            "blocks": self.calibrated_on,
            "stride": self.stride,
        }

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdaptiveSensor:
        """From what `describe` and `tensors` gave. Raises ValueError for anything else."""
        columns, seasons = tuple(map(str, described["columns"])), tuple(map(int, described["settings"]["seasons"]))
        unit, period = tensors["unit"].numpy(), described["period_s"]
        if unit.shape != (len(columns),) or not (unit > 0).all() or not all(length >= 2 for length in seasons):
            raise ValueError(f"expected a unit above 0 of each of {len(columns)} columns and seasons of 2 or more rows")
        fresh = cls(
            columns,
            seasons,
            unit,
            _nothing_known(len(columns), seasons, unit),
            None if period is None else float(period),
        )
        start = {name.removeprefix(_START): part.numpy() for name, part in tensors.items() if name != "unit"}
        return replace(fresh, start=fresh.opened(start))

    def score(self, readings: Readings, state: State | None = None, *, contributions: bool = False) -> Scored:
        """Score readings float64 [n, d], finite, and learn from them. Raises ValueError for another shape or state."""
        if readings.ndim != 2 or readings.shape[1] != len(self.columns):
            raise ValueError(f"readings: expected shape [n, {len(self.columns)}], got {list(readings.shape)}")
        memory = self.opened(state)
        parts = [
            self._scored(readings[at : at + _ROWS_AT_ONCE], memory) for at in range(0, len(readings), _ROWS_AT_ONCE)
        ]
        scores = np.concatenate([np.zeros(0), *(scores for scores, _, _ in parts)])
        p_values = np.concatenate([np.zeros(0), *(p_values for _, p_values, _ in parts)])
        shares = (
            np.concatenate([np.zeros((0, len(self.columns))), *(_shares(one) for _, _, one in parts)])
            if contributions
            else None
        )
        told = None if shares is None else shares.astype(np.float32)
        return Scored(scores.astype(np.float32), p_values, told, None, memory)

    @property
    def _share(self) -> RunningPValues:
        return RunningPValues(MOST, _INDEPENDENT_ROWS)

    @property
    def _questions(self) -> StreamFeatures:
        return StreamFeatures(len(self.columns), self.seasons, self.unit)

    @property
    def _tails(self) -> BlockTails:
        return BlockTails(len(FEATURES) * len(self.columns))

    def _scored(self, x: Readings, memory: State) -> tuple[Doubles, Doubles, Doubles]:
        """Scores [n], p-values [n], and each column's own score [n, d]."""
        answers = self._questions.ask(x, memory).reshape(len(x), -1)
        rarity = self._tails.rarity(answers, memory).reshape(len(x), len(FEATURES), -1)
        whole = np.concatenate([memory["recent"], rarity])
        memory["recent"] = whole[-(_TOGETHER_ROWS - 1) :].copy()
        padded = np.concatenate([np.zeros((max(_TOGETHER_ROWS - 1 - len(whole) + len(x), 0), *whole.shape[1:])), whole])
        together = np.maximum.reduce([padded[at : at + len(x)] for at in range(_TOGETHER_ROWS)])
        by_column = np.sort(together, axis=1)[:, -_AGREEING:].mean(axis=1)
        scores = _told_once(by_column.max(axis=1), memory)
        return scores, self._share.p_values(scores, memory), by_column

    def opened(self, state: State | None) -> State:
        """A copy to learn in: of a client's, or of what was known at the end of training. ValueError for one of
        another sensor.
        """
        if state is None:
            return dict(self.start)
        if set(state) != set(self.start):
            raise ValueError(f"state: expected {', '.join(sorted(self.start))}, got {', '.join(sorted(state))}")
        for name, part in state.items():
            known = self.start[name]
            if (
                part.shape[1:] != known.shape[1:]
                or (name not in _GROWING and part.shape != known.shape)
                or not np.isfinite(part).all()
            ):
                raise ValueError(
                    f"state: {name}: expected finite numbers of the shape {list(known.shape)}, got {list(part.shape)}"
                )
            if len(part) > _GROWING.get(name, len(part)):
                raise ValueError(f"state: {name}: expected at most {_GROWING[name]} rows, got {len(part)}")
        return dict(state)


def fit_adaptive(runs: Sequence[Readings], columns: tuple[str, ...], period_s: float | None = None) -> AdaptiveSensor:
    """Learn from runs [n, d] of normal operation, one after the other; the last is the one that live readings continue.

    Days and weeks are rhythms where the period between readings is known, else the lag at which the longest run
    repeats itself. ValueError for more columns than fit the state.
    """
    together = np.concatenate(list(runs))
    unit = np.maximum(together.std(axis=0), _LEAST_UNIT * np.abs(together).max(axis=0) + np.finfo(float).tiny)
    longest = max(runs, key=len)
    seasons = _fitting(len(columns), calendar(period_s) if period_s is not None else repeating(longest))
    fresh = AdaptiveSensor(columns, seasons, unit, _nothing_known(len(columns), seasons, unit), period_s)
    state = fresh.start
    for run in runs:
        state = fresh.score(run, state).state
    return replace(fresh, start=state)


def _nothing_known(columns: int, seasons: tuple[int, ...], unit: Doubles) -> State:
    memory = StreamFeatures(columns, seasons, unit).new_memory() | BlockTails(len(FEATURES) * columns).new_memory()
    memory |= RunningPValues(MOST, _INDEPENDENT_ROWS).new_memory()
    return memory | {"recent": np.zeros((0, len(FEATURES), columns)), "rest": np.zeros(1)}


def _fitting(columns: int, seasons: tuple[int, ...]) -> tuple[int, ...]:
    """The rhythms that the state has room for, the longest left out first."""
    shared, each = RunningPValues(MOST, _INDEPENDENT_ROWS).size, BlockTails(len(FEATURES)).size + 8 * len(FEATURES)
    room = (_MOST_STATE_BYTES // 8 - shared) // columns - each
    for left_out in range(len(seasons) + 1):
        if sum(seasons[left_out:]) <= room:
            return seasons[left_out:]
    most = (_MOST_STATE_BYTES // 8 - shared) // each
    raise ValueError(
        f"columns: the adaptive detector takes at most {most} columns, got {columns}; train one for each few, or "
        f"another detector"
    )


def _told_once(scores: Doubles, memory: State) -> Doubles:
    """Scores [n] with less than half an event's in the rows after each event."""
    told, resting = scores.copy(), int(memory["rest"][0])
    lowered = np.minimum(scores, EVENT) / 2
    told[:resting] = lowered[:resting]
    for row in np.flatnonzero(scores >= EVENT).tolist():
        if row >= resting:
            resting = row + 1 + REST_ROWS
            told[row + 1 : resting] = lowered[row + 1 : resting]
    memory["rest"] = np.array([float(max(resting - len(scores), 0))])
    return told


def _shares(by_column: Doubles) -> Doubles:
    """Rows that sum to 1, or are all zero where no column has anything."""
    total = by_column.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, by_column / np.where(total > 0, total, 1.0), 0.0))
