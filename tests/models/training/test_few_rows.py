"""Jobs with hardly a row: they succeed, or say what they lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.text.detectors.serialization import load_detector
from models.training.run import run
from tests.models.training.test_run import Row, failure, findings, job
from tests.support import tiny_models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.encoder(tmp_path_factory.mktemp("models") / "tiny", normalize=True)


def few(*labels: str, rows: int) -> list[Row]:
    return [{"text": f"{label} {label[-1]} {index}", "label": label} for label in labels for index in range(rows)]


@pytest.mark.parametrize(("detector", "rows", "least"), [("auto", 2, 2), ("knn", 2, 2), ("mahalanobis", 4, 4)])
def test_too_few_texts_for_any_detector_end_the_job(
    encoder: Path, tmp_path: Path, detector: str, rows: int, least: int
) -> None:
    texts = [{"text": f"a {index}"} for index in range(rows)]
    error = failure(job(tmp_path / "job", encoder, texts, task="anomaly", hyperparameters={"detector": detector}))
    assert (error["code"], error["param"]) == ("too_few_rows", "training_file")
    kind = "knn" if detector == "auto" else detector
    told = (
        f"training_file: expected at least {least} normal rows for detector '{kind}' besides the held-out ones, "
        f"got {rows - 1}"
    )
    assert error["message"] == told


def test_detectors_that_take_more_texts_are_left_out(encoder: Path, tmp_path: Path) -> None:
    directory = job(
        tmp_path / "job", encoder, [{"text": f"a {index}"} for index in range(3)], task="anomaly", hyperparameters={}
    )
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == 0
    assert load_detector(directory / "result").kind == "knn"
    warned = [event["message"] for event in events if event.get("level") == "warn"]
    assert "too few rows for some detectors, which are left out: mahalanobis (takes 4), got 2" in warned
    assert "detector_choice" not in [found["check"] for found in findings(directory)]


def test_a_detector_chosen_on_out_of_scope_texts_is_reported(encoder: Path, tmp_path: Path) -> None:
    rows = [*few("card", "weather", rows=2), {"text": "zz !?", "label": "none"}]
    settings = {"mode": "frozen", "out_of_scope_label": "none"}
    directory = job(tmp_path / "job", encoder, rows, hyperparameters=settings)
    assert run(directory, lambda event: None) == 0
    told = {found["check"]: found for found in findings(directory)}["detector_choice"]
    assert told["message"] == (
        "The detector is the best of 3 kinds on the very rows that its figures are measured on, which may flatter it."
    )


@pytest.mark.parametrize("mode", ["contrastive", "full"])
def test_two_rows_a_label_are_enough_to_tune_on(encoder: Path, tmp_path: Path, mode: str) -> None:
    """Fewer rows than there are rounds: as many rounds as rows."""
    rows = few("card", "weather", rows=2)
    directory = job(tmp_path / "job", encoder, rows, hyperparameters={"mode": mode, "max_steps": 2})
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == 0
    said = [event["message"] for event in events if event["type"] == "message"]
    assert "few rows: tuning without part 2 of 2 to compare on it" in said
    assert any("macro-F1 on 4 rows that it was not tuned on" in message for message in said)
