"""Seasons of a stream: the slot of each reading by its time, and what that slot usually reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from models.sensors.seasonality import season_s

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Memory = dict[str, Doubles]

# The value of a slot that no reading has met. States hold finite numbers only, and no reading is as large.
UNSEEN = 1e300
# The weight of a new reading in its slot, which is then a mean of three or four days or weeks.
_WEIGHT = 0.3
# Zones move their clocks at multiples of this.
_CLOCK_CHANGE_S = 1800.0
# Times of a clock within the years 2 to 9998, whose local times Python can say in all zones.
_FIRST_S, _LAST_S = -62_100_000_000.0, 253_300_000_000.0


@dataclass(frozen=True, slots=True)
class StreamClock:
    """The times of a stream's readings, and their slots in days and weeks of `zone` (UTC without one).

    `period_s` is the usual time between readings. Without it, seasons count readings, and times mean nothing. Slots are
    centred on `origin_s` and whole periods after it, so that a clock that trembles stays in its slot.
    """

    period_s: float | None
    origin_s: float = 0.0
    zone: str | None = None

    def new_memory(self) -> Memory:
        """The memory before the first reading: the time before it, in seconds (readings without a period)."""
        return {"time": np.array([self.origin_s - (self.period_s or 1.0)])}

    def read(self, times: Doubles | None, rows: int, memory: Memory) -> Doubles:
        """The times [rows] of readings; those that have none follow the one before by one period. Updates `memory`."""
        if times is None or self.period_s is None:
            times = memory["time"][0] + (self.period_s or 1.0) * np.arange(1, rows + 1)
        memory["time"] = np.array(times[-1:])
        return times

    def slots(self, times: Doubles, length: int) -> Rows:
        """The slot, from 0 to `length` - 1, of each time [n] in a season of `length` slots."""
        since = self._local(times) - self._local(np.array([self.origin_s]))
        turns = since / season_s(length, self.period_s)
        return np.floor(turns % 1.0 * length + 0.5).astype(np.int64) % length

    def _local(self, times: Doubles) -> Doubles:
        if self.zone is None or self.period_s is None:
            return times
        moments, place = np.unique(np.clip(times, _FIRST_S, _LAST_S) // _CLOCK_CHANGE_S, return_inverse=True)
        zone = ZoneInfo(self.zone)
        offsets = [_offset_s(moment * _CLOCK_CHANGE_S, zone) for moment in moments.tolist()]
        return np.asarray(times + np.array(offsets)[place])


def _offset_s(seconds: float, zone: ZoneInfo) -> float:
    offset = datetime.fromtimestamp(seconds, UTC).astimezone(zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


def expect(x: Doubles, slots: Rows, memory: Memory, name: str, known: NDArray[np.bool_] | None = None) -> Doubles:
    """What the profile `name` expects of x [n, columns] by the slots [n]; NaN where a slot has met no reading yet.

    Updates the profile [length, columns], which keeps its value where x is NaN. `known` [n] says which slots have met
    one, where the profile itself does not.
    """
    profile, expected = memory[name].copy(), np.full(x.shape, np.nan)
    for rows in _visits(slots):
        slot, read = slots[rows], x[rows]
        before = profile[slot]
        met = before < UNSEEN if known is None else known[rows, None]
        expected[rows] = np.where(met, before, np.nan)
        after = np.where(met, before + _WEIGHT * (read - before), read)
        profile[slot] = np.where(np.isnan(read), before, after)
    memory[name] = profile
    return expected


def _visits(slots: Rows) -> Iterator[Rows]:
    """Rows in groups that meet each slot once: first all first visits, then all second ones, and so on."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    visit = np.arange(len(slots)) - np.repeat(begins, np.diff(np.append(begins, len(slots))))
    by_visit = order[np.argsort(visit, kind="stable")]
    yield from np.split(by_visit, np.cumsum(np.bincount(visit))[:-1])
