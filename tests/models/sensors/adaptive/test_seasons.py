"""Seasons by time: slots of days and weeks in a zone, and what they usually read, whatever is missing."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models.sensors.adaptive.detector import AdaptiveDetector, fit_adaptive
from models.sensors.adaptive.seasons import UNSEEN, StreamClock, expect
from models.sensors.model import Readings, Times
from models.sensors.serialization import load_sensor, save_sensor

HOUR_S = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")
FIRST = datetime(2026, 3, 2, tzinfo=UTC).timestamp()


def shifts(times: Times, zone: ZoneInfo = UTC) -> Readings:
    """A plant that works from 6 to 14 by its own clock, on weekdays, with noise [n, 1]."""
    local = [datetime.fromtimestamp(at, zone) for at in times.tolist()]
    works = np.array([6 <= one.hour < 14 and one.weekday() < 5 for one in local])
    noise = np.random.default_rng(0).normal(size=len(times))
    return np.array(20.0 * works + noise, dtype=np.float64)[:, None]


def irregular(hours: int) -> Times:
    """Times of two hourly readings of three, with two gaps of days."""
    random = np.random.default_rng(7)
    at = np.arange(hours)
    kept = (random.random(hours) < 0.67) & ~((at > 700) & (at < 775)) & ~((at > 1500) & (at < 1600))
    return np.array(FIRST + HOUR_S * at[kept], dtype=np.float64)


def of_times(times: Times, readings: Readings, learnt: int, zone: str | None = None) -> AdaptiveDetector:
    return fit_adaptive([readings[:learnt]], ("power",), HOUR_S, times=[times[:learnt]], zone=zone)


def test_irregular_readings_keep_their_time_of_day() -> None:
    """Counted by rows, every third hour that is missing moves the day; by time it stays."""
    times = irregular(3000)
    readings = shifts(times)
    sensor = of_times(times, readings, 800)
    errors = {}
    for name, at in {"times": times[800:], "rows": None}.items():
        state = sensor.score(readings[800:], times=at).state
        errors[name] = float(state["day_errors"][0])
    assert errors["times"] < 0.6 * errors["rows"]


def test_days_follow_the_clock_of_the_zone() -> None:
    """Summer time began on 29 March: in UTC the shifts begin an hour earlier from then on."""
    times = np.arange(FIRST, FIRST + 56 * 24 * HOUR_S, HOUR_S)
    readings = shifts(times, BERLIN)
    weeks = 24 * 26
    fair, plain = (of_times(times, readings, weeks, zone) for zone in ("Europe/Berlin", None))
    rare = [sensor.score(readings[weeks:], times=times[weeks:]).scores[30:120].max() for sensor in (fair, plain)]
    assert rare[0] < 0.5 * rare[1]


def test_a_slot_is_the_local_time_of_day_and_week() -> None:
    clock = StreamClock(HOUR_S, FIRST, "Europe/Berlin")
    days = [datetime(2026, 3, 28, 12, tzinfo=BERLIN) + timedelta(days=one) for one in range(8)]
    times = np.array([day.astimezone(UTC).timestamp() for day in days])
    assert len(set(np.diff(times).tolist())) == 2  # one of the days has 23 hours
    assert len(set(clock.slots(times, 24).tolist())) == 1
    by_week = clock.slots(times, 168)
    assert by_week[0] == by_week[7]
    assert len(set(by_week[:7].tolist())) == 7


def test_a_trembling_clock_stays_in_its_slot() -> None:
    clock = StreamClock(300.0, FIRST + 17.3)
    at = FIRST + 17.3 + 300.0 * np.arange(1000)
    trembling = at + np.random.default_rng(0).uniform(-140, 140, 1000)
    np.testing.assert_array_equal(clock.slots(trembling, 288), np.arange(1000) % 288)


def test_readings_without_times_follow_the_last_one() -> None:
    clock = StreamClock(300.0, FIRST)
    memory = clock.new_memory()
    np.testing.assert_array_equal(clock.read(None, 2, memory), [FIRST, FIRST + 300])
    np.testing.assert_array_equal(clock.read(np.array([FIRST + 5000]), 1, memory), [FIRST + 5000])
    np.testing.assert_array_equal(clock.read(None, 1, memory), [FIRST + 5300])
    counting = StreamClock(None)
    assert counting.read(np.array([9e9, 9.1e9]), 2, counting.new_memory()).tolist() == [0, 1]


def test_a_profile_learns_each_visit_of_a_slot() -> None:
    memory = {"season_4": np.full((4, 1), UNSEEN)}
    slots = np.array([0, 2, 2, 0, 3, 2])
    found = expect(np.array([[1.0], [5.0], [7.0], [np.nan], [2.0], [9.0]]), slots, memory, "season_4")
    np.testing.assert_allclose(found[:, 0], [np.nan, np.nan, 5, 1, np.nan, 5.6])
    np.testing.assert_allclose(memory["season_4"][:, 0], [1, UNSEEN, 5.6 + 0.3 * 3.4, 2])


@pytest.mark.parametrize("cuts", [[1, 2, 50], [24, 168, 400]])
def test_pieces_with_times_score_as_the_whole(cuts: list[int]) -> None:
    times = irregular(1500)
    readings = shifts(times)
    sensor = of_times(times, readings, 400, "Europe/Berlin")
    whole = sensor.score(readings[400:], times=times[400:])
    state, scores = None, []
    for part, at in zip(np.split(readings[400:], cuts), np.split(times[400:], cuts), strict=True):
        scored = sensor.score(part, state, times=at)
        state = scored.state
        scores.append(scored.scores)
    np.testing.assert_array_equal(np.concatenate(scores), whole.scores)


def test_a_saved_sensor_keeps_its_clock(tmp_path: Path) -> None:
    times = irregular(1500)
    readings = shifts(times)
    sensor = of_times(times, readings, 400, "Europe/Berlin")
    save_sensor(sensor, tmp_path)
    again = load_sensor(tmp_path)
    assert isinstance(again, AdaptiveDetector)
    assert again.features.clock == sensor.features.clock == StreamClock(HOUR_S, float(times[0]), "Europe/Berlin")
    one, two = (each.score(readings[400:], times=times[400:]).scores for each in (sensor, again))
    np.testing.assert_array_equal(one, two)
