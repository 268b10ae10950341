"""Logs: one JSON object a line, whatever is logged by whomever."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service import logs
from tests.support.server import wait_until

NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "sentence_transformers")


def formatted(
    message: str = "it happened", *values: object, error: BaseException | None = None, **extra: object
) -> dict[str, Any]:
    """What the line of a record says."""
    about = (type(error), error, error.__traceback__) if error else None
    record = logging.getLogger("service.x").makeRecord(
        "service.x", logging.WARNING, "x.py", 1, message, values, about, extra=extra
    )
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_line_has_time_level_logger_and_message_and_nothing_else() -> None:
    before = datetime.now(UTC)
    line = formatted("%d of %s", 3, "four")
    assert abs((datetime.fromisoformat(line.pop("time")) - before).total_seconds()) < 5
    assert line == {"level": "warning", "logger": "service.x", "message": "3 of four"}


def test_what_is_to_be_in_every_line_is() -> None:
    record = logging.makeLogRecord({"msg": "it happened", "model": "m"})
    line = json.loads(logs.JsonFormatter({"process": 3}).format(record))
    assert (line["message"], line["process"], line["model"]) == ("it happened", 3, "m")


def test_the_time_is_in_utc_with_milliseconds() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.25})
    assert json.loads(logs.JsonFormatter().format(record))["time"] == "2023-11-14T22:13:20.250+00:00"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3, 3),
        (0.5, 0.5),
        (None, None),
        ("zwölf\n漢字", "zwölf\n漢字"),
        (["a", {"b": 1}], ["a", {"b": 1}]),
        (Path("/x"), "/x"),
        (ValueError("broken"), "broken"),
        (float("nan"), None),
    ],
)
def test_extras_are_part_of_the_line(value: object, written: object) -> None:
    assert formatted(model="m", detail=value)["detail"] == written


@pytest.mark.parametrize("name", ["asctime", "message", "taskName", "color_message"])
def test_what_other_formatters_leave_on_a_record_is_no_extra(name: str) -> None:
    line = json.loads(logs.JsonFormatter().format(logging.makeLogRecord({"msg": "ours", name: "theirs"})))
    assert "theirs" not in line.values()
    assert line["message"] == "ours"


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        text = formatted(error=error)["exception"]
    assert text.startswith("Traceback")
    assert text.endswith("ValueError: broken")


def test_a_line_without_an_exception_has_none() -> None:
    assert "exception" not in formatted()


@pytest.fixture
def loggers() -> Iterator[None]:
    """The loggers are put back in the end."""
    touched = [logging.getLogger(), *(logging.getLogger(name) for name in NAMES)]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in touched]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate


def written(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Logger and message of each line on standard error; nothing is on standard output."""
    said = capsys.readouterr()
    assert said.out == ""
    lines = [json.loads(line) for line in said.err.splitlines()]
    return [(line["logger"], line["message"]) for line in lines]


@pytest.mark.usefixtures("loggers")
def test_everything_goes_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
    logs.configure("info")
    logs.configure("info")
    logging.getLogger("service.engine").info("ours")
    logging.getLogger("uvicorn").error("theirs")
    logging.getLogger("uvicorn.error").warning("theirs, too")
    assert written(capsys) == [("service.engine", "ours"), ("uvicorn", "theirs"), ("uvicorn.error", "theirs, too")]


@pytest.mark.parametrize(("level", "said"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
@pytest.mark.usefixtures("loggers")
def test_less_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str], level: str, said: int) -> None:
    logs.configure(level)
    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("service.engine"), each)(each)
    assert len(written(capsys)) == said


@pytest.mark.parametrize("odd", ["half a \ud800 pair", 2**70])
@pytest.mark.usefixtures("loggers")
def test_nothing_is_too_odd_to_be_logged(capsys: pytest.CaptureFixture[str], odd: object) -> None:
    logs.configure("info")
    logging.getLogger("service.engine").info("said", extra={"odd": odd})
    assert written(capsys) == [("service.engine", "said")]


@pytest.mark.usefixtures("loggers")
def test_libraries_say_only_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    for name in NAMES[1:]:
        logging.getLogger(name).info("chatter")
    logging.getLogger("uvicorn.access").warning("a line a request")
    assert written(capsys) == []


def access_line(number: int) -> logging.LogRecord:
    return logging.makeLogRecord({"name": logs.REQUESTS, "levelno": logging.INFO, "msg": f"request {number}"})


class SlowStream(io.StringIO):
    """Counts writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += bool(text)
        return super().write(text)


def test_lines_of_requests_are_written_together_soon() -> None:
    handler = logs.BatchingHandler(stream := SlowStream())
    for number in range(100):
        handler.handle(access_line(number))
    assert stream.getvalue() == ""
    wait_until(lambda: stream.getvalue().count("\n") == 100)
    assert stream.writes == 1
    handler.close()


def test_another_line_is_written_at_once_after_those_before_it() -> None:
    handler = logs.BatchingHandler(stream := io.StringIO())
    handler.handle(access_line(1))
    handler.handle(logging.makeLogRecord({"name": "service", "msg": "ours"}))
    assert stream.getvalue() == "request 1\nours\n"
    handler.close()


def test_the_end_of_the_process_loses_no_line() -> None:
    handler = logs.BatchingHandler(stream := io.StringIO())
    handler.handle(access_line(1))
    handler.acquire()  # as logging.shutdown does
    handler.close()
    handler.release()
    handler.handle(access_line(2))
    assert stream.getvalue() == "request 1\nrequest 2\n"


def test_a_line_that_cannot_be_written_is_told_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.BatchingHandler(stream := io.StringIO())
    handler.handle(logging.makeLogRecord({"name": "service", "msg": "%d", "args": ("no number",)}))
    handler.handle(logging.makeLogRecord({"name": "service", "msg": "ours"}))
    assert stream.getvalue() == "ours\n"
    assert "no number" in capsys.readouterr().err
    handler.close()
