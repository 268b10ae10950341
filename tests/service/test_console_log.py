"""Log lines for a person: short, coloured on a terminal, and without a control character of a caller's."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service import logs
from service.console_log import ConsoleFormatter

REQUEST: dict[str, Any] = {
    "request_id": "r1",
    "key": "anonymous",
    "method": "POST",
    "route": "/v1/embeddings",
    "status": 200,
    "outcome": "ok",
    "seconds": 0.01234,
}


def line(message: str = "it happened", level: int = logging.INFO, *, colours: bool = False, **extra: object) -> str:
    """What a record looks like, without its time."""
    record = logging.getLogger("x").makeRecord("x", level, "x.py", 1, message, (), None, extra=extra)
    said = ConsoleFormatter(colours=colours).format(record)
    return said if colours else re.sub(r"^\d\d:\d\d:\d\d ", "", said)


def test_a_line_has_time_level_and_message() -> None:
    record = logging.makeLogRecord({"msg": "it happened", "levelname": "INFO", "levelno": logging.INFO})
    assert re.fullmatch(r"\d\d:\d\d:\d\d info     it happened", ConsoleFormatter(colours=False).format(record))


def test_a_request_says_method_path_status_time_model_and_tokens() -> None:
    said = line("request", **REQUEST, model="m:1", tokens=7, inputs=1, queue_ms=0.1)
    assert said == "info     POST /v1/embeddings  200  12.3 ms  m:1  7 tokens"


def test_a_failed_request_says_why_and_an_unknown_one_where() -> None:
    facts = REQUEST | {"route": "unmatched", "path": "/v1/nowhere", "status": 404, "outcome": "not_found"}
    assert line("request", **facts) == "info     POST /v1/nowhere  404 not_found  12.3 ms"


@pytest.mark.parametrize(
    ("status", "outcome", "colour"), [(200, "ok", "32"), (422, "text_too_long", "33"), (503, "unavailable", "31")]
)
def test_the_status_has_a_colour(status: int, outcome: str, colour: str) -> None:
    assert f"\x1b[{colour}m{status}" in line(colours=True, **REQUEST | {"status": status, "outcome": outcome})


def test_facts_follow_the_message_short_ones_only_unless_something_is_wrong() -> None:
    assert line("model in service", model="m:1", settings={"port": 9}) == "info     model in service  model=m:1 port=9"
    assert line(reason="x" * 100) == f"info     it happened  reason={'x' * 60}…"
    assert line(level=logging.ERROR, reason="x" * 100) == f"error    it happened  reason={'x' * 100}"


HOSTILE = "a\x1b[2Jb\nc\r\u202ed\x9b"


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize(
    "facts",
    [{"detail": HOSTILE}, {"detail": {"x": HOSTILE}}, {HOSTILE: 1}, REQUEST | {"route": "unmatched", "path": HOSTILE}],
)
def test_no_control_character_reaches_the_terminal(*, colours: bool, facts: dict[str, Any]) -> None:
    said = line(HOSTILE, colours=colours, **facts)
    ours = re.sub(r"\x1b\[\d*m", "", said).removeprefix("\r\x1b[K")
    assert ours.isprintable()
    assert r"\u001b[2J" in ours


def test_a_traceback_follows_without_control_characters() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        about = (type(error), error, error.__traceback__)
    record = logging.getLogger("x").makeRecord("x", logging.ERROR, "x.py", 1, "failed", (), about)
    first, *trace = ConsoleFormatter(colours=False).format(record).split("\n")
    assert first.endswith("error    failed")
    assert trace[0] == "  Traceback (most recent call last):"
    assert all(part.isprintable() for part in trace)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, and that of requests; both are put back in the end."""
    loggers = logging.getLogger(), logging.getLogger("sonde.requests")
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield loggers[0]
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


class Stream(io.StringIO):
    """Standard error, which is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("form", "terminal", "starts"),
    [
        ("auto", True, "\r\x1b[K\x1b[2m"),
        ("auto", False, '{"time"'),
        ("json", True, '{"time"'),
        ("console", True, "\r\x1b[K\x1b[2m"),
    ],
)
def test_the_format_is_chosen_by_the_terminal_unless_it_is_given(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat, starts: str, *, terminal: bool
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal=terminal))
    logs.configure("info", form=form)
    root.info("said")
    assert stream.getvalue().startswith(starts)


def test_a_console_that_is_no_terminal_has_no_colours(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal=False))
    logs.configure("info", form="console")
    root.info("said")
    assert stream.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("form", "terminal", "bars"),
    [("auto", True, None), ("auto", False, "1"), ("json", True, "1"), ("console", False, "1")],
)
@pytest.mark.usefixtures("root")
def test_progress_bars_of_libraries_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat, bars: str | None, *, terminal: bool
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")  # so that it is put back in the end
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    monkeypatch.setattr(sys, "stderr", Stream(terminal=terminal))
    logs.configure("info", form=form)
    assert os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") == bars


@pytest.mark.usefixtures("root")
def test_without_an_access_log_requests_have_no_line_but_their_faults_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal=False))
    requests = logging.getLogger("sonde.requests")
    for access, lines in ((False, 1), (True, 3)):
        logs.configure("info", access=access)
        requests.info("request")
        requests.error("unexpected error")
        assert len(stream.getvalue().splitlines()) == lines
