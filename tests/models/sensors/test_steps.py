"""Steps of series: the calendar is recognised and goes on, or there is none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from numpy.typing import NDArray

from models.sensors.steps import recognise

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def seconds(dates: list[date], zone: str = "UTC", hour: int = 0) -> NDArray[np.float64]:
    place = ZoneInfo(zone)
    return np.array([datetime(each.year, each.month, each.day, hour, tzinfo=place).timestamp() for each in dates])


def months(first: int, count: int, each: int, day: int) -> list[date]:
    """Dates from a month (counted from the year 0) on, on a day or the last one before it."""
    made = []
    for month in range(first, first + count * each, each):
        year, number = divmod(month, 12)
        end = 31 if number == 11 else (date(year, number + 2, 1) - timedelta(days=1)).day
        made.append(date(year, number + 1, min(day, end)))
    return made


@pytest.mark.parametrize(
    ("each", "name"), [(1, "month"), (2, "2 months"), (3, "quarter"), (12, "year"), (24, "24 months")]
)
@pytest.mark.parametrize("day", [1, 15, 30, 31])
@pytest.mark.parametrize(("zone", "hour"), [("UTC", 0), ("UTC", 7), (BERLIN, 0), (NEW_YORK, 0)])
def test_months_go_on_as_months(each: int, name: str, day: int, zone: str, hour: int) -> None:
    made = seconds(months(12 * 2019 + 4, 40, each, day), zone, hour)
    found = recognise(made[:24])
    assert found is not None
    assert found.name == name
    assert found.after(made[23], 10) == made[24:34].tolist()


def test_months_with_a_missing_one_are_still_months() -> None:
    made = seconds(months(12 * 2020, 14, 1, 1))
    found = recognise(np.delete(made[:12], [3, 7]))
    assert found is not None
    assert (found.name, found.after(made[11], 2)) == ("month", made[12:].tolist())


def test_business_days_leave_out_weekends_and_need_not_know_holidays() -> None:
    days = [each for n in range(60) if (each := date(2024, 5, 1) + timedelta(days=n)).weekday() < 5]
    made = seconds(days)
    for start in range(10, 20):
        found = recognise(np.delete(made[:start], 4))
        assert found is not None
        assert (found.name, found.after(made[start - 1], 12)) == ("business day", made[start : start + 12].tolist())


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, "Australia/Sydney"])
@pytest.mark.parametrize(("days", "name"), [(1, "day"), (7, "week")])
def test_local_days_follow_summer_time(zone: str, days: int, name: str) -> None:
    made = seconds([date(2024, 1, 1) + timedelta(days=days * n) for n in range(400 // days + 40)], zone)
    seen = len(made) - 40
    found = recognise(made[:seen])
    assert found is not None
    assert found.name == name
    assert found.after(made[seen - 1], 30) == made[seen : seen + 30].tolist()


@pytest.mark.parametrize("step", [1, 60, 3600, 86_400, 7 * 86_400, 28 * 86_400 + 1])
def test_equal_steps_are_no_calendar(step: int) -> None:
    assert recognise(1.7e9 + step * np.arange(200.0)) is None


@pytest.mark.parametrize("count", [1, 2])
def test_two_timestamps_tell_no_calendar(count: int) -> None:
    assert recognise(seconds(months(12 * 2020, count, 1, 1))) is None


def test_steps_end_with_the_year_9999() -> None:
    made = seconds(months(12 * 9999, 12, 1, 1))
    found = recognise(made)
    assert found is not None
    with pytest.raises(OverflowError):
        found.after(made[-1], 1)
    assert recognise(np.array([datetime(9999, 12, day, tzinfo=UTC).timestamp() for day in (27, 28, 31)])) is not None
