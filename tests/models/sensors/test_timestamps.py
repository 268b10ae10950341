"""Times as texts, and what a hostile one costs."""

from __future__ import annotations

import time

import pytest

from models.sensors.timestamps import date_to_seconds, parser_of


def test_blanks_within_a_time_cost_no_search() -> None:
    began = time.thread_time()
    with pytest.raises(ValueError, match="Invalid isoformat"):
        date_to_seconds("1" + " " * 30_000 + "x")
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("text", ["2026-01-01 UTC", "2026-01-01T00:00:00Z", "2026/01/01   GMT\n", "2026-01 utc"])
def test_a_named_zone_may_follow_blanks(text: str) -> None:
    assert date_to_seconds(text) == 1_767_225_600


@pytest.mark.parametrize(
    "text", ["2025-12-31T24:00", "2025-12-31 24:00:00.000Z", "20251231T240000", "2025-12-31T24+00:00"]
)
def test_an_hour_of_24_ends_its_day(text: str) -> None:
    assert date_to_seconds(text) == 1_767_225_600
    assert parser_of(["2025123123", "2025123124"])("2025123124") == 1_767_225_600
    for wrong in ("2025-12-31T24:01", "2025-12-31T25:00", "2025-12-24T24:00:01"):
        with pytest.raises(ValueError, match="hour must be"):
            date_to_seconds(wrong)
