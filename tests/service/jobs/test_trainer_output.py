"""The training process's output as the worker parses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.jobs.records import Checkpoint, JobEvent
from service.jobs.trainer_output import parse

HOME = Path("/home/of/sonde")


def parsed(**event: object) -> object:
    return parse(json.dumps(event).encode(), HOME)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"step": 3, "total_steps": 10, "loss": 0.25}, "Step 3/10: training loss=0.2500"),
        ({"step": 3, "total_steps": 10}, "Step 3/10"),  # a step without a loss: texts embedded, folds fitted
        ({"step": 3, "total_steps": 10, "loss": 1e999}, "Step 3/10"),
    ],
)
def test_a_step_is_summarized_with_its_loss_where_it_has_one(data: dict[str, object], message: str) -> None:
    event = parsed(type="metrics", data=data)
    assert isinstance(event, JobEvent)
    assert (event.message, event.type) == (message, "metrics")


def test_a_phase_is_a_phase_and_a_message_an_event() -> None:
    assert parsed(type="phase", phase="running") == "running"
    assert parsed(type="message", level="warn", message="a\0b") == JobEvent("warn", "a\ufffdb")


def test_a_checkpoint_is_kept_by_its_place_in_the_home() -> None:
    assert parsed(type="checkpoint", step=5, path=f"{HOME}/jobs/x", metrics={"loss": 1.0}) == Checkpoint(
        5, "jobs/x", {"loss": 1.0}
    )


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b"{}",
        b'{"type": "song"}',
        b'{"type": "phase", "phase": "sleeping"}',
        b'{"type": "message", "level": "loud", "message": "a"}',
        b'{"type": "checkpoint", "step": 1, "path": "/etc/passwd"}',
        b"\xff\xfe",
    ],
)
def test_anything_else_is_a_warning(line: bytes) -> None:
    event = parse(line, HOME)
    assert isinstance(event, JobEvent)
    assert event.level == "warn"
    assert event.message.startswith("the training process said")
