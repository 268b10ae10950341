"""Events: flagged readings of a series, joined over short gaps and carried over from call to call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Scored

Severity = Literal["low", "medium", "high"]
Doubles = NDArray[np.float64]
# From this share of alpha on, an event is of medium severity.
_MEDIUM = 0.2
_MAIN_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class EventRules:
    """When flagged readings are an event, and when an event is an alert. All counts are in readings.

    Flagged readings at most `gap` readings apart are one event. An event spans at least `min_duration` readings. One
    that begins within `cooldown` readings after an alert is none.
    """

    alpha: float
    gap: int
    min_duration: int = 1
    cooldown: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """A reading of a stream, counted from its first, and its time in seconds since 1970, where it has one."""

    row: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Flagged readings from `start` to `end`, which is the last flagged one so far while the event is `open`.

    `p_sum` is the sum of the p-values from start to end; `shares` [d] that of the flagged readings' contributions.
    """

    start: Moment
    end: Moment
    peak: Moment
    peak_score: float
    peak_p_value: float
    flagged: int
    p_sum: float
    shares: tuple[float, ...]
    open: bool = True
    alert: bool = True

    @property
    def readings(self) -> int:
        """The readings from start to end."""
        return self.end.row - self.start.row + 1

    @property
    def p_value(self) -> float:
        """Twice the mean p-value of its readings, at most 1.

        It is a p-value of the whole stretch, however its readings depend on each other (Vovk and Wang, 2020).
        """
        return min(1.0, 2 * self.p_sum / self.readings)

    def severity(self, alpha: float, calibrated_on: int) -> Severity:
        """High where the peak is stranger than every normal reading that calibrates the p-values."""
        if self.peak_p_value <= 1 / (calibrated_on + 1):
            return "high"
        return "medium" if self.peak_p_value <= _MEDIUM * alpha else "low"

    def blamed(self, columns: tuple[str, ...]) -> list[tuple[str, float]]:
        """Columns and their share of the scores, the largest first; without those of no share."""
        total = sum(self.shares) or 1.0
        shares = [(name, share / total) for name, share in zip(columns, self.shares, strict=True) if share > 0]
        return sorted(shares, key=lambda one: -one[1])

    def main_columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The columns to blame: at most three, each with at least half of the largest share."""
        first = self.blamed(columns)[:_MAIN_COLUMNS]
        return tuple(name for name, share in first if share >= first[0][1] / 2)


@dataclass(slots=True)
class EventTracker:
    """Finds events in a stream, call by call.

    `row` counts the readings so far; `pending` is the sum of p-values since the open event's end; `alerted` the row
    where the last alert ended.
    """

    row: int = 0
    event: Event | None = None
    pending: float = 0.0
    alerted: int | None = None

    def update(self, scored: Scored, rules: EventRules, seconds: Doubles | None = None) -> list[Event]:
        """The events that ended with these readings, and last the open one, in the order of time.

        `scored` has contributions; `seconds` [n] are the times of its readings.
        """
        found: list[Event] = []
        sums = np.concatenate([[0.0], np.cumsum(scored.p_values)])
        done = 0
        for index in np.flatnonzero(scored.p_values <= rules.alpha).tolist():
            found += self._end_before(self.row + index, rules)
            self._flag(scored, index, self.pending + float(sums[index + 1] - sums[done]), rules, seconds)
            self.pending, done = 0.0, index + 1
        count = len(scored.p_values)
        self.pending += float(sums[count] - sums[done])
        self.row += count
        found += self._end_before(self.row, rules)
        return [*found, *([self.event] if self.event is not None and _lasts(self.event, rules) else [])]

    def _flag(self, scored: Scored, index: int, p_sum: float, rules: EventRules, seconds: Doubles | None) -> None:
        """Add a flagged reading; `p_sum` is that of the p-values since the open event's end."""
        now = Moment(self.row + index, None if seconds is None else float(seconds[index]))
        score, p_value = float(scored.scores[index]), float(scored.p_values[index])
        shares = () if scored.contributions is None else tuple(scored.contributions[index].tolist())
        before = self.event
        if before is None:
            quiet = self.alerted is not None and now.row - self.alerted <= rules.cooldown
            self.event = Event(now, now, now, score, p_value, 1, p_value, shares, alert=not quiet)
            return
        self.event = replace(
            before,
            end=now,
            flagged=before.flagged + 1,
            p_sum=before.p_sum + p_sum,
            shares=tuple(a + b for a, b in zip(before.shares, shares, strict=True)),
        )
        if score > before.peak_score:
            self.event = replace(self.event, peak=now, peak_score=score, peak_p_value=p_value)

    def _end_before(self, row: int, rules: EventRules) -> list[Event]:
        """End the open event where the reading `row` is too far from its last flagged one; give it where it lasted."""
        event = self.event
        if event is None or row - event.end.row <= rules.gap:
            return []
        self.event = None
        if not _lasts(event, rules):
            return []
        self.alerted = event.end.row if event.alert else self.alerted
        return [replace(event, open=False)]

    def to_json(self) -> dict[str, Any]:
        """What the next call needs."""
        event = None if self.event is None else asdict(self.event)
        return {"row": self.row, "event": event, "pending": self.pending, "alerted": self.alerted}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EventTracker:
        """From the result of `to_json`."""
        event = content["event"]
        if event is not None:
            moments = {name: Moment(**event[name]) for name in ("start", "end", "peak")}
            event = Event(**event | moments | {"shares": tuple(event["shares"])})
        return cls(content["row"], event, content["pending"], content["alerted"])


def _lasts(event: Event, rules: EventRules) -> bool:
    return event.readings >= rules.min_duration
