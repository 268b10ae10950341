"""Events: JSON lines, phases, and metrics that do not flood."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping

import pytest

from models.training.job_events import Heartbeat, ProgressEvents, emit, json_lines, set_phase
from tests.support.server import wait_until


def test_each_event_is_a_line_of_json() -> None:
    stream = io.StringIO()
    events = json_lines(stream)
    set_phase(events, "running")
    emit(events, "zwei\nZeilen", "warn")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {"type": "phase", "phase": "running"}
    assert second == {"type": "message", "level": "warn", "message": "zwei\nZeilen"}


def test_a_number_that_json_lacks_is_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_lines(io.StringIO())({"loss": float("nan")})


def test_progress_tells_at_most_once_a_second_and_always_at_the_end() -> None:
    seen: list[Mapping[str, object]] = []
    now = iter([0.0, 0.4, 0.8, 1.2, 1.3])
    progress = ProgressEvents(seen.append, 4, clock=lambda: next(now))
    for step in (1, 2, 3, 4):
        progress(step, 10)
    data = [event["data"] for event in seen]
    assert [item["step"] for item in data] == [3, 4]  # type: ignore[index]
    assert data[0] == {
        "step": 3,
        "total_steps": 4,
        "loss": None,
        "learning_rate": None,
        "examples_per_s": 25.0,
        "eta_s": 0.4,
    }


def test_a_long_silence_is_broken_and_says_what_came_before() -> None:
    said: list[Mapping[str, object]] = []
    now = [0.0]
    events = Heartbeat(said.append, silence_s=10, clock=lambda: now[0])
    emit(events, "fitting")
    for now[0] in (9.9, 10.0, 19.0, 20.0):
        events.beat()
    assert [line["message"] for line in said] == [
        "fitting",
        "still at work, 10 s after: fitting",
        "still at work, 20 s after: fitting",
    ]
    events({"type": "metrics", "data": {}})
    now[0] = 29.0
    events.beat()
    assert len(said) == 4


def test_the_heartbeat_beats_by_itself_and_ends() -> None:
    said: list[Mapping[str, object]] = []
    with Heartbeat(said.append, silence_s=0) as events:
        wait_until(lambda: len(said) > 0)
        emit(events, "done")
    assert said[-1]["message"] == "done"
    assert all(thread.name != "heartbeat" for thread in threading.enumerate())
