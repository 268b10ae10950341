"""The events of a held-out part: of each segment, with the columns to blame, bounded, in every form of a report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import orjson
import pytest

from models.sensors.calibrated_detector import FittedDetector
from models.sensors.model import Scored
from models.training.data.segments import Segments
from models.training.report import Report
from models.training.report_markdown import to_markdown
from models.training.sensors.held_out_events import ExplainedRun, find_events, report_events

SENSOR = cast(FittedDetector, SimpleNamespace(kind="series", window=3, calibrated_on=999))


def held_out(rows: int, *, labels: list[int] | None = None) -> Segments:
    """Two segments of equal length, a reading a minute."""
    marked = None if labels is None else np.isin(np.arange(rows), labels)
    places = np.arange(rows)
    starts = np.array([0, rows // 2])
    return Segments(
        ("flow", "pres|sure"), np.zeros((rows, 2)), places + 2, starts, np.asarray(places, np.float64) * 60, marked
    )


def scored(rows: int, flagged: list[int], shares: tuple[float, float] = (0.1, 0.9)) -> Scored:
    p_values = np.where(np.isin(np.arange(rows), flagged), 1e-3, 0.5)
    return Scored(
        (1 - p_values).astype(np.float32), p_values, np.tile(np.array(shares, np.float32), (rows, 1)), None, {}
    )


def test_events_are_of_segments_and_name_their_columns() -> None:
    part = held_out(40, labels=[25, 26])
    runs = [ExplainedRun(slice(0, 20), scored(20, [18, 19])), ExplainedRun(slice(20, 40), scored(20, [0, 5, 7]))]
    events = find_events(SENSOR, runs)
    assert [(one.rows.start, one.rows.stop) for one in events] == [(18, 20), (20, 21), (25, 28)]
    found = report_events(SENSOR, events, part)
    assert (found.found, [one.labelled for one in found.shown]) == (3, [False, False, True])
    last = found.shown[-1]
    assert (last.start, last.end, last.readings) == ("1970-01-01T00:25:00+00:00", "1970-01-01T00:27:00+00:00", 3)
    assert (last.severity, last.columns) == ("high", ("pres|sure",))


def test_both_columns_are_to_blame_where_both_have_a_large_share() -> None:
    [event] = find_events(SENSOR, [ExplainedRun(slice(0, 20), scored(20, [4], (0.4, 0.6)))])
    assert event.event.main_columns(("flow", "pres|sure")) == ("pres|sure", "flow")


def test_records_have_no_events() -> None:
    records = cast(FittedDetector, SimpleNamespace(kind="records", window=1, calibrated_on=999))
    assert find_events(records, [ExplainedRun(slice(0, 20), scored(20, [4]))]) == []


def test_the_strangest_are_shown_in_the_order_of_time() -> None:
    run = scored(1000, list(range(0, 1000, 10)))
    run.p_values[500] = 1e-6
    found = report_events(SENSOR, find_events(SENSOR, [ExplainedRun(slice(0, 1000), run)]), held_out(1000))
    assert (found.found, len(found.shown)) == (100, 50)
    starts = [one.start for one in found.shown]
    assert starts == sorted(starts)
    assert min(found.shown, key=lambda one: one.p_value).start == "1970-01-01T08:20:00+00:00"
    assert found.title == "100 events in the held-out readings at alpha 0.05: the 50 strangest"


@pytest.mark.parametrize("flagged", [[], [3]])
def test_a_report_keeps_and_shows_them(flagged: list[int]) -> None:
    report = Report()
    events = find_events(SENSOR, [ExplainedRun(slice(0, 20), scored(20, flagged))])
    report.events = report_events(SENSOR, events, held_out(40))
    assert Report.from_json(orjson.loads(report.to_bytes())).events == report.events
    row = "| 1970-01-01T00:03:00+00:00 | 1970-01-01T00:03:00+00:00 | 1 | high | 0.001 | pres&#124;sure |"
    assert (row in to_markdown(report)) is bool(flagged)
    assert "in the held-out readings at alpha 0.05" in to_markdown(report)
