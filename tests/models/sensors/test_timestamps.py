"""Times as texts, and what a hostile one costs."""

from __future__ import annotations

import time

import pytest

from models.sensors.timestamps import date_to_seconds


def test_blanks_within_a_time_cost_no_search() -> None:
    began = time.thread_time()
    with pytest.raises(ValueError, match="Invalid isoformat"):
        date_to_seconds("1" + " " * 30_000 + "x")
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("text", ["2026-01-01 UTC", "2026-01-01T00:00:00Z", "2026/01/01   GMT\n", "2026-01 utc"])
def test_a_named_zone_may_follow_blanks(text: str) -> None:
    assert date_to_seconds(text) == 1_767_225_600
