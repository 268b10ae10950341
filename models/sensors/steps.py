"""The step of a series in time: a calendar's (month, quarter, business day, local day), or fixed seconds."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from numpy.typing import NDArray

# Of a long series the last timestamps tell the step.
_LOOKED_AT = 400
# Two timestamps could be a step of many calendars.
_LEAST = 3
# A local day has 23 hours when summer time begins; shorter steps are no calendar's.
_SHORTEST_DAY_S = 82_800.0
_MONTH_NAMES = {1: "month", 3: "quarter", 12: "year"}
_DAY_NAMES = {1: "day", 7: "week"}
_MONTHS, _FRIDAY, _OVER_A_WEEKEND, _LAST_DAY = 12, 4, 3, 31


@dataclass(frozen=True, slots=True)
class CalendarStep:
    """A step of `months`, on the day `day` of a month or its last one, or of `days`; of business days without both.

    `zone` is where the timestamps have one time of day.
    """

    name: str
    zone: tzinfo
    months: int = 0
    day: int = 0
    days: int = 0

    def after(self, seconds: float, steps: int) -> list[float]:
        """The `steps` times after one, both in seconds since 1970. Raises OverflowError after the year 9999."""
        local = datetime.fromtimestamp(seconds, self.zone)
        dates = [self._date_after(local.date(), number) for number in range(1, steps + 1)]
        return [datetime.combine(day, local.time(), self.zone).timestamp() for day in dates]

    def _date_after(self, start: date, number: int) -> date:
        if self.months:
            return _in_month(_month(start) + self.months * number, self.day)
        if self.days:
            return start + timedelta(days=self.days * number)
        weeks, rest = divmod(start.weekday() + number, _FRIDAY + 1)
        return start + timedelta(days=7 * weeks + rest - start.weekday())


def recognise(seconds: NDArray[np.float64]) -> CalendarStep | None:
    """The calendar's step of increasing times [n] in seconds since 1970; None for steps of fixed seconds or of none.

    Steps may be missing. A day is a calendar's where it follows the summer time of some zone: in UTC it is fixed.
    """
    seconds = seconds[-_LOOKED_AT:]
    if len(seconds) < _LEAST or np.diff(seconds).min() < _SHORTEST_DAY_S:
        return None
    found = _step_in(seconds, UTC)
    if found is not None or np.ptp(np.diff(seconds)) == 0:  # a day or a week everywhere
        return found
    steps = [step for zone in _zones() if (step := _step_in(seconds, zone)) is not None]
    return max(steps, key=lambda step: _likelihood(step, float(seconds[0])), default=None)


def _step_in(seconds: NDArray[np.float64], zone: tzinfo) -> CalendarStep | None:
    dates = _dates_at_one_time(seconds.tolist(), zone)
    return None if dates is None else _step_of(dates, zone)


def _likelihood(step: CalendarStep, first: float) -> tuple[bool, bool, bool]:
    """Months are rarer by chance than business days, and these than days; most series change at midnight."""
    midnight = datetime.fromtimestamp(first, step.zone).time() == time()
    return step.months > 0, step.days == 0, midnight


def _step_of(dates: Sequence[date], zone: tzinfo) -> CalendarStep | None:
    months = np.diff([_month(each) for each in dates])
    last = [each.day == monthrange(each.year, each.month)[1] for each in dates]
    day = _LAST_DAY if all(last) else max(each.day for each in dates)
    if months.min() >= 1 and all(each == _in_month(_month(each), day) for each in dates):
        each = int(np.gcd.reduce(months))
        return CalendarStep(_MONTH_NAMES.get(each, f"{each} months"), zone, months=each, day=day)
    distances = np.diff([each.toordinal() for each in dates])
    each = int(np.gcd.reduce(distances))
    weekend = np.median(distances) == 1 and distances.max() >= _OVER_A_WEEKEND
    if weekend and all(each.weekday() <= _FRIDAY for each in dates):
        return CalendarStep("business day", zone)
    return None if zone is UTC else CalendarStep(_DAY_NAMES.get(each, f"{each} days"), zone, days=each)


def _dates_at_one_time(seconds: Sequence[float], zone: tzinfo) -> list[date] | None:
    """The local dates of times that have one time of day; None for others."""
    dates: list[date] = []
    first = None
    for each in seconds:
        try:
            local = datetime.fromtimestamp(each, zone)
        except (OverflowError, ValueError):
            return None  # beyond the year 9999 there
        first = local.time() if first is None else first
        if local.time() != first:
            return None
        dates.append(local.date())
    return dates


def _month(day: date) -> int:
    return _MONTHS * day.year + day.month - 1


def _in_month(month: int, day: int) -> date:
    """A day of a month counted from the year 0; its last one where it is shorter. Raises OverflowError."""
    year, number = divmod(month, _MONTHS)
    if year > date.max.year:
        raise OverflowError(f"the year {year}")
    return date(year, number + 1, min(day, monthrange(year, number + 1)[1]))


@cache
def _zones() -> tuple[tzinfo, ...]:
    """Every zone that the system knows."""
    return tuple(ZoneInfo(name) for name in sorted(available_timezones()) if "/" in name)
