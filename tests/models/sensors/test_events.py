"""Flagged readings become events: joined over gaps, carried over calls, with what is to blame."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.sensors.events import Event, EventRules, EventTracker
from models.sensors.model import Scored

RULES = EventRules(alpha=0.05, gap=3)


def scored(flagged: dict[int, float], count: int = 40, *, column: int = 0) -> Scored:
    """`count` readings of two columns, of which those at `flagged` have p = 0.01 and the given score."""
    p_values, scores = np.full(count, 0.5), np.zeros(count, dtype=np.float32)
    shares = np.zeros((count, 2), dtype=np.float32)
    for row, score in flagged.items():
        p_values[row], scores[row], shares[row, column] = 0.01, score, 1.0
    return Scored(scores, p_values, shares, None, {})


def spans(events: list[Event]) -> list[tuple[int, int, bool]]:
    return [(event.start.row, event.end.row, event.open) for event in events]


def test_readings_without_a_flag_are_no_event() -> None:
    assert EventTracker().update(scored({}), RULES) == []


def test_flags_close_together_are_one_event() -> None:
    events = EventTracker().update(scored({5: 1, 8: 3, 12: 2, 20: 1}), RULES)
    assert spans(events) == [(5, 8, False), (12, 12, False), (20, 20, False)]
    assert (events[0].peak.row, events[0].peak_score, events[0].flagged) == (8, 3, 2)


def test_the_p_value_is_of_the_whole_stretch() -> None:
    event = EventTracker().update(scored({5: 1, 8: 3}), RULES)[0]
    assert event.readings == 4
    assert event.p_value == pytest.approx(2 * (0.01 + 0.5 + 0.5 + 0.01) / 4)


def test_an_event_at_the_end_is_open_and_goes_on_in_the_next_call() -> None:
    tracker = EventTracker()
    assert spans(tracker.update(scored({38: 1}), RULES)) == [(38, 38, True)]
    tracker = EventTracker.from_json(json.loads(json.dumps(tracker.to_json())))
    assert spans(tracker.update(scored({1: 4}, 3), RULES)) == [(38, 41, True)]
    ended = tracker.update(scored({}, 3), RULES)
    assert spans(ended) == [(38, 41, False)]
    assert ended[0].p_value == pytest.approx(2 * (0.01 + 0.5 + 0.5 + 0.01) / 4)
    assert tracker.update(scored({}), RULES) == []


@pytest.mark.parametrize("piece", [1, 3, 7, 40])
def test_pieces_find_what_the_whole_finds(piece: int) -> None:
    generator = np.random.default_rng(piece)
    p_values = generator.uniform(size=400) ** 2
    scores, shares = generator.random(400).astype(np.float32), generator.random((400, 2)).astype(np.float32)
    seconds = np.arange(400, dtype=np.float64)

    def part(rows: slice) -> Scored:
        return Scored(scores[rows], p_values[rows], shares[rows], None, {})

    rules = EventRules(0.05, gap=4, min_duration=2, cooldown=10)
    whole = EventTracker().update(part(slice(None)), rules, seconds)
    tracker, found = EventTracker(), list[Event]()
    for at in range(0, 400, piece):
        rows = slice(at, at + piece)
        found += [event for event in tracker.update(part(rows), rules, seconds[rows]) if not event.open]
    assert len(found) > 5
    for ours, theirs in zip(found, whole, strict=False):
        assert (ours.start, ours.end, ours.peak, ours.alert) == (theirs.start, theirs.end, theirs.peak, theirs.alert)
        assert ours.p_value == pytest.approx(theirs.p_value)
        assert ours.shares == pytest.approx(theirs.shares)


def test_short_events_are_left_out() -> None:
    rules = EventRules(0.05, gap=3, min_duration=3)
    assert spans(EventTracker().update(scored({5: 1, 20: 1, 22: 1}), rules)) == [(20, 22, False)]
    assert EventTracker().update(scored({39: 1}), rules) == [], "not long enough yet"


def test_an_event_soon_after_an_alert_is_none_itself() -> None:
    rules = EventRules(0.05, gap=1, cooldown=10)
    events = EventTracker().update(scored({5: 1, 10: 1, 19: 1, 31: 1}), rules)
    assert [event.alert for event in events] == [True, False, True, True]


def test_columns_are_blamed_in_order() -> None:
    one, other = scored({5: 1}), scored({6: 1}, column=1)
    shares = np.concatenate([one.contributions[:6], other.contributions[6:]])  # type: ignore[index]
    both = Scored(one.scores, np.minimum(one.p_values, other.p_values), shares * [1, 3], None, {})
    event = EventTracker().update(both, RULES)[0]
    assert event.blamed(("flow", "heat")) == [("heat", 0.75), ("flow", 0.25)]


def test_severity_follows_the_peak() -> None:
    event = EventTracker().update(scored({5: 1}), RULES)[0]
    assert event.severity(0.05, calibrated_on=99) == "high"
    assert event.severity(0.05, calibrated_on=1000) == "medium"
    assert event.severity(0.02, calibrated_on=1000) == "low"
