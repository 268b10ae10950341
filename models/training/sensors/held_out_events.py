"""The events of the held-out part: flagged readings, joined within each segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.sensors.calibrated_detector import FittedDetector
from models.sensors.events import Event, EventRules, EventTracker
from models.sensors.model import Scored
from models.training.data.segments import Segments
from models.training.reported_events import ReportedEvent, ReportedEvents
from models.training.sensors.detector_selection import ALPHAS

_MAX_EVENTS = 50


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """A segment's rows of the held-out part, and their scores with contributions."""

    rows: slice
    scored: Scored


@dataclass(frozen=True, slots=True)
class HeldOutEvent:
    """An event, and its rows of the held-out part from start to end."""

    event: Event
    rows: slice

    @classmethod
    def of(cls, event: Event, segment: slice) -> HeldOutEvent:
        """An event of a segment."""
        return cls(event, slice(segment.start + event.start.row, segment.start + event.end.row + 1))


def explain(sensor: FittedDetector, held_out: Segments) -> list[ExplainedRun]:
    """Score each segment, with contributions."""
    return [
        ExplainedRun(run, sensor.score(held_out.readings[run], times=held_out.times_of(run), contributions=True))
        for run in held_out.each()
    ]


def find_events(sensor: FittedDetector, runs: Sequence[ExplainedRun]) -> list[HeldOutEvent]:
    """The events at alpha 0.05, in order. Records have none: their order means nothing."""
    if sensor.kind == "records":
        return []
    rules = EventRules(ALPHAS[0], gap=sensor.window)
    return [HeldOutEvent.of(event, run.rows) for run in runs for event in EventTracker().update(run.scored, rules)]


def report_events(sensor: FittedDetector, events: Sequence[HeldOutEvent], held_out: Segments) -> ReportedEvents:
    """At most 50 of the events: the strangest, in the order of time."""
    strangest = sorted(events, key=lambda one: (one.event.peak_p_value, -one.event.peak_score))[:_MAX_EVENTS]
    strangest.sort(key=lambda one: one.rows.start)
    return ReportedEvents(len(events), ALPHAS[0], tuple(_reported(sensor, strangest, held_out)))


def _reported(sensor: FittedDetector, events: Sequence[HeldOutEvent], held_out: Segments) -> Iterator[ReportedEvent]:
    for one in events:
        event, peak = one.event, one.rows.start + one.event.peak.row - one.event.start.row
        start, end, peak_place = held_out.places(np.array([one.rows.start, one.rows.stop - 1, peak]))
        yield ReportedEvent(
            start,
            end,
            peak_place,
            event.readings,
            event.severity(ALPHAS[0], sensor.calibrated_on),
            event.peak_p_value,
            event.main_columns(held_out.columns),
            None if held_out.labels is None else bool(held_out.labels[one.rows].any()),
        )
