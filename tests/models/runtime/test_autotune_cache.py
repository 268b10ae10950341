"""Results of autotuning are kept by machine, and measured again where nothing usable is kept."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.runtime import autotune_cache
from models.runtime.autotune_cache import AutotuneCache, describe_machine
from models.runtime.product_autotune import ProductAutotune, ProductTimes

SLOW, FAST = ProductTimes(2.0, 3.0), ProductTimes(1.0, float("inf"))
RESULT = ProductAutotune(SLOW, FAST, SLOW)


@dataclass
class Measurement:
    """Counts how often it is run."""

    runs: int = 0

    def __call__(self) -> ProductAutotune:
        self.runs += 1
        return RESULT


def kept_in(path: Path) -> AutotuneCache:
    cache = AutotuneCache()
    cache.keep_in(path)
    return cache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the result of a measurement."""
    kept_in(tmp_path / "races.json").recall("products", ProductAutotune, Measurement())
    return tmp_path / "races.json"


def test_the_next_start_takes_the_kept_result(path: Path) -> None:
    again = Measurement()
    assert kept_in(path).recall("products", ProductAutotune, again) == RESULT
    assert again.runs == 0


def test_a_process_measures_once_without_a_file() -> None:
    cache, measurement = AutotuneCache(), Measurement()
    assert [cache.recall("products", ProductAutotune, measurement) for _ in range(2)] == [RESULT] * 2
    assert measurement.runs == 1


def test_results_are_kept_beside_each_other(path: Path) -> None:
    kept_in(path).recall("another", ProductTimes, lambda: SLOW)
    again = Measurement()
    kept_in(path).recall("products", ProductAutotune, again)
    assert kept_in(path).recall("another", ProductTimes, lambda: FAST) == SLOW
    assert again.runs == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:40], "is not JSON"),
        (lambda text: "[]", "expected a JSON dict"),
        (lambda text: text.replace('"format": 1', '"format": 0'), "expected format 1, got 0"),
        (lambda text: json.dumps({"format": 1, "machines": [1]}), "expected format 1"),
        (lambda text: json.dumps({"format": 1, "machines": {"a": 1}}), "expected an object for each machine"),
        (lambda text: text.replace("2.0", '"x"'), "has no valid result"),
        (lambda text: text.replace("2.0", "0.0"), "has no valid result"),
        (lambda text: text.replace("2.0", "NaN"), "has no valid result"),
        (lambda text: text.replace("processors", "cores"), "has results of other machines or versions alone"),
        (lambda text: "", "is not JSON"),
    ],
)
def test_what_is_torn_or_of_another_machine_is_measured_again(
    path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str], reason: str
) -> None:
    path.write_text(damage(path.read_text()))
    first, second = Measurement(), Measurement()
    with caplog.at_level(logging.INFO, "models.runtime.autotune_cache"):
        kept_in(path).recall("products", ProductAutotune, first)
    assert reason in caplog.text
    assert len(caplog.records) == 1
    kept_in(path).recall("products", ProductAutotune, second)
    assert (first.runs, second.runs) == (1, 0)


def test_other_machines_keep_theirs_up_to_a_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(autotune_cache._MAX_MACHINES - 1):
        monkeypatch.setattr(autotune_cache, "describe_machine", lambda number=number: f"machine {number}")
        kept_in(path).recall("products", ProductAutotune, Measurement())
    machines: dict[str, Any] = json.loads(path.read_text())["machines"]
    assert next(iter(machines)) == describe_machine()
    monkeypatch.setattr(autotune_cache, "describe_machine", lambda: "one more")
    kept_in(path).recall("products", ProductAutotune, Measurement())
    machines = json.loads(path.read_text())["machines"]
    assert next(iter(machines)) == "machine 0"
    assert len(machines) == autotune_cache._MAX_MACHINES


@pytest.mark.parametrize("variable", autotune_cache._INSTRUCTION_SETS)
def test_a_processor_that_is_told_to_compute_like_an_older_one_is_another(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    before = describe_machine()
    monkeypatch.setenv(variable, "AVX2")
    assert describe_machine() != before


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    measurement = Measurement()
    cache = kept_in(tmp_path / "missing" / "races.json")
    with caplog.at_level(logging.WARNING, "models.runtime.autotune_cache"):
        assert cache.recall("products", ProductAutotune, measurement) == RESULT
    assert "each start measures products again" in caplog.text
    assert measurement.runs == 1


def test_a_result_is_read_where_nothing_can_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError

    monkeypatch.setattr("os.open", refuse)
    measurement = Measurement()
    kept_in(path).recall("products", ProductAutotune, measurement)
    assert measurement.runs == 0


def test_a_frozen_process_holds_up_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune_cache, "_LOCK_TIMEOUT_S", 0.05)
    with (tmp_path / "races.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept_in(tmp_path / "races.json").recall("products", ProductAutotune, Measurement())
    measurement = Measurement()
    kept_in(tmp_path / "races.json").recall("products", ProductAutotune, measurement)
    assert measurement.runs == 0


def test_what_another_process_measured_meanwhile_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, cache, measurement = path.read_bytes(), kept_in(path), Measurement()
    path.unlink()
    locked = autotune_cache._is_locked
    monkeypatch.setattr(autotune_cache, "_is_locked", lambda lock: path.write_bytes(content) < 0 or locked(lock))
    cache.recall("products", ProductAutotune, measurement)
    assert measurement.runs == 0
