"""An adaptive anomaly detector for live streams, with one alarm an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sensors.adaptive.design import NEWEST, Design, design_of
from models.sensors.adaptive.features import StreamFeatures
from models.sensors.adaptive.seasons import StreamClock
from models.sensors.adaptive.state import INDEPENDENT_ROWS, WINDOW_ROWS, copy_state, new_state, plan_that_fits, running
from models.sensors.adaptive.tails import BlockTails
from models.sensors.missing import continue_from
from models.sensors.model import Readings, Scored, State, require_columns
from models.sensors.scaling import ROUNDING
from models.sensors.seasonality import calendar, repeating

Doubles = NDArray[np.float64]

DETECTOR_ID = "adaptive"

# From this score on a reading is an event.
EVENT_SCORE = NEWEST.event_score
_AGREEING_FEATURES = 3
_ROWS_AT_ONCE = 8192
# The unit of a constant column. Its later readings are nothing beside so large a number.
_NO_UNIT = 1e300
_START = "start."


@dataclass(frozen=True, slots=True)
class AdaptiveDetector:
    """Implements `AnomalyModel` for series of few columns whose normal behaviour changes.

    Each reading has the features of its `design`, whose rarity is measured against the stream's own recent blocks
    (`tails`). A column's score is the mean of the three rarest features of the last 5 readings, as powers of ten,
    because a single feature is often wrong. A reading beyond all before it scores up to one more. The score is the
    highest column's, less an allowance for the length of the stream. The 100 to 300 readings after an event score at
    most half of one, so that an event raises one alarm. P-values compare scores without the allowance with the stream's
    own past ones (`running_p_values`).

    Everything is causal and adapts with each reading, so there is no drift to warn of. `start` is the state at the end
    of training.
    """

    columns: tuple[str, ...]
    features: StreamFeatures
    start: State

    kind: Literal["series"] = "series"
    learns: Literal[True] = True

    @property
    def design(self) -> Design:
        """The generation."""
        return self.features.design

    @property
    def seasons(self) -> tuple[int, ...]:
        """The slots of each season, longest first."""
        return self.features.seasons

    @property
    def period_s(self) -> float | None:
        """The usual seconds between readings, where training had timestamps."""
        return self.features.clock.period_s

    @property
    def window(self) -> int:
        """1: the state holds the training readings, so that the first reading has a score."""
        return 1

    @property
    def calibrated_on(self) -> int:
        """The number of scores of training readings behind the first p-values."""
        return running(self.design).calibrated_on(self.start)

    @property
    def stride(self) -> int:
        return INDEPENDENT_ROWS

    def threshold(self, alpha: float) -> float | None:
        """The score of an anomaly at `alpha` at the end of training; it moves on with the stream."""
        rarity = running(self.design).threshold(alpha, self.start)
        if rarity is None:
            return None
        return max(rarity - float(self.design.allowances(int(self.start["rows"][0]), 1)[0]), 0.0)

    def memory_bytes(self) -> int:
        """Bytes of unit and state."""
        return self.features.unit.nbytes + sum(part.nbytes for part in self.start.values())

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `sensor.safetensors`."""
        start = {f"{_START}{name}": torch.from_numpy(part) for name, part in self.start.items()}
        return start | {"unit": torch.from_numpy(self.features.unit)}

    def describe(self) -> dict[str, Any]:
        """The content of `sensor.json`."""
        return {
            "kind": self.kind,
            "columns": list(self.columns),
            "period_s": self.period_s,
            "detector": DETECTOR_ID,
            "settings": {"version": self.design.version, "seasons": list(self.seasons)} | self._clock_settings(),
            "window": self.window,
            "blocks": self.calibrated_on,
            "stride": self.stride,
        }

    def _clock_settings(self) -> dict[str, Any]:
        clock = self.features.clock
        return {"origin_s": clock.origin_s, "zone": clock.zone} if self.design.by_time else {}

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AdaptiveDetector:
        """From the results of `describe` and `tensors`. Raises ValueError for anything else.

        Artifacts that name no version are of the first.
        """
        columns, settings = tuple(map(str, described["columns"])), described["settings"]
        seasons, design = tuple(map(int, settings["seasons"])), design_of(int(settings.get("version", 1)))
        unit, period = tensors["unit"].numpy(), described["period_s"]
        if unit.shape != (len(columns),) or not (unit > 0).all() or not all(length >= 2 for length in seasons):
            raise ValueError(f"expected a unit above 0 of each of {len(columns)} columns and seasons of 2 or more rows")
        start = {name.removeprefix(_START): part.numpy() for name, part in tensors.items() if name != "unit"}
        period_s, zone = None if period is None else float(period), settings.get("zone")
        clock = StreamClock(period_s, float(settings.get("origin_s", 0)), None if zone is None else str(zone))
        features = StreamFeatures(len(columns), seasons, unit, design, clock)
        return cls(columns, features, copy_state(start, like=new_state(features)))

    def score(
        self,
        readings: Readings,
        state: State | None = None,
        *,
        times: Doubles | None = None,
        contributions: bool = False,
    ) -> Scored:
        """Score readings float64 [n, d] and adapt to them; NaN is the column's last value. Raises ValueError.

        Without times [n], in seconds since 1970, they follow the last reading at the usual period.
        """
        require_columns(readings, self.columns)
        state = dict(self.start) if state is None else copy_state(state, like=self.start)
        readings = continue_from(state["last"], readings)
        starts = range(0, len(readings), _ROWS_AT_ONCE)
        parts = [
            self._score_part(
                readings[start : start + _ROWS_AT_ONCE],
                None if times is None else times[start : start + _ROWS_AT_ONCE],
                state,
            )
            for start in starts
        ]
        if not parts:
            parts = [(np.zeros(0), np.zeros(0), np.zeros((0, len(self.columns))))]
        scores, p_values, by_column = (np.concatenate(list(part)) for part in zip(*parts, strict=True))
        shares = _shares(by_column).astype(np.float32) if contributions else None
        return Scored(scores.astype(np.float32), p_values, shares, None, state)

    def _score_part(self, x: Readings, times: Doubles | None, state: State) -> tuple[Doubles, Doubles, Doubles]:
        """Scores [n], p-values [n], and each column's own score [n, d]; updates `state`."""
        seen = int(state["rows"][0])
        allowances = self.design.allowances(seen, len(x))
        extremes = self.features.extremes(x, state)
        highest = _highest_of_last(self._rarity(x, times, state), state)
        by_column = np.sort(highest, axis=1)[:, -_AGREEING_FEATURES:].mean(axis=1) + extremes
        rarest = by_column.max(axis=1)
        scores = np.maximum(rarest - allowances, 0.0)
        quiet, most = self._quiet_rows(scores, seen, state), self.design.event_score
        scores, rarest = (np.where(quiet, np.minimum(one, most) / 2, one) for one in (scores, rarest))
        return scores, running(self.design).p_values(rarest, state), by_column

    def _rarity(self, x: Readings, times: Doubles | None, state: State) -> Doubles:
        """How rare each feature is, [n, features, d], as powers of ten; updates `state`."""
        features = len(self.design.features)
        values = self.features.compute(x, state, times).reshape(len(x), -1)
        return BlockTails(features * len(self.columns)).rarity(values, state).reshape(len(x), features, -1)

    def _quiet_rows(self, scores: Doubles, seen: int, state: State) -> NDArray[np.bool_]:
        """Which rows [n] after `seen` ones follow an event so closely that they belong to it; updates `state`."""
        until = int(state["rest"][0])
        quiet = np.arange(len(scores)) < until
        for row in np.flatnonzero(scores >= self.design.event_score).tolist():
            if row >= until:
                until = row + 1 + self.design.quiet_rows(seen + row)
                quiet[row + 1 : until] = True
        state["rest"] = np.array([float(max(until - len(scores), 0))])
        return quiet


def fit_adaptive(
    runs: Sequence[Readings],
    columns: tuple[str, ...],
    period_s: float | None = None,
    *,
    times: Sequence[Doubles] | None = None,
    zone: str | None = None,
) -> AdaptiveDetector:
    """Learn from runs [n, d] of normal operation at times [n] (seconds since 1970), one after the other.

    Live readings continue the last one. Days and weeks are those of `zone`, or of UTC.

    Seasons are days and weeks where the period between readings is known, else the lag at which the longest run
    repeats itself. ValueError for more columns than fit the state.
    """
    together = np.concatenate(list(runs))
    spread = together.std(axis=0)
    unit = np.where(spread > ROUNDING * np.abs(together).max(axis=0), spread, _NO_UNIT)
    longest = max(runs, key=len)
    found = calendar(period_s) if period_s is not None else repeating(longest)
    design, seasons = plan_that_fits(len(columns), found)
    clock = StreamClock(period_s, 0.0 if times is None else float(times[0][0]), zone)
    features = StreamFeatures(len(columns), seasons, unit, design, clock)
    untrained = AdaptiveDetector(columns, features, new_state(features))
    state = untrained.start
    for number, run in enumerate(runs):
        state = untrained.score(run, state, times=None if times is None else times[number]).state
    return replace(untrained, start=state)


def _highest_of_last(rarity: Doubles, state: State) -> Doubles:
    """The highest rarity [n, features, d] of each reading and the few before it; updates `state`."""
    before = state["recent"]
    missing = np.zeros((max(WINDOW_ROWS - 1 - len(before), 0), *rarity.shape[1:]))
    padded = np.concatenate([missing, before, rarity])
    state["recent"] = np.concatenate([before, rarity])[-(WINDOW_ROWS - 1) :].copy()
    highest: Doubles = np.maximum.reduce([padded[start : start + len(rarity)] for start in range(WINDOW_ROWS)])
    return highest


def _shares(by_column: Doubles) -> Doubles:
    """Rows that sum to 1, or are all zero where all columns score 0."""
    total = by_column.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, by_column / np.where(total > 0, total, 1.0), 0.0))
