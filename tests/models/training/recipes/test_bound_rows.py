"""The rows bound to a name judge the new model and the one in service, whatever the job's own files say."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.filesystem import sha256_of
from models.training.data.bound_readings import leave_out
from models.training.data.segments import Segments
from models.training.errors import TrainingDataError
from models.training.run import run
from tests.models.training.recipes import test_forecast, test_sensor_anomaly
from tests.models.training.test_run import Row, failure, job, labelled, read, words
from tests.support import tiny_models

pytestmark = pytest.mark.slow

# As of swapped labels: every text has the label of another class.
_SWAPPED = {"fruit": "steel", "steel": "river", "river": "fruit"}


def swapped(rows: list[Row]) -> list[Row]:
    return [row | {"label": _SWAPPED[row["label"]]} for row in rows]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def bind(directory: Path, rows: Path, task: str, *, incumbent: Path | None = None, **hyperparameters: Any) -> Path:
    """Have the rows of a file judge the job in `directory`, and the version in service."""
    content = read(directory / "job.json")
    content["bound"] = {"path": str(rows), "sha256": sha256_of(rows), "task": task, "hyperparameters": hyperparameters}
    content["incumbent"] = None if incumbent is None else str(incumbent)
    (directory / "job.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def bound_result(directory: Path, events: list[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Run a job; what it measured on the bound rows."""
    said: list[Mapping[str, Any]] = [] if events is None else events
    assert run(directory, said.append) == 0, read(directory / "error.json")
    measured: dict[str, Any] = read(directory / "result.json")["bound"]
    return measured


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.encoder(tmp_path_factory.mktemp("models") / "tiny", normalize=True)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("bound") / "bound.jsonl", labelled(10, seed=9))


@pytest.fixture(scope="module")
def served(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a classifier in service."""
    directory = job(tmp_path_factory.mktemp("served"), encoder, labelled(40))
    assert run(directory, lambda event: None) == 0
    assert read(directory / "result.json")["bound"] is None
    return directory / "result"


def test_swapped_labels_lose_on_the_bound_rows(encoder: Path, rows: Path, served: Path, tmp_path: Path) -> None:
    attack = job(tmp_path / "attack", encoder, swapped(labelled(40)), swapped(labelled(12, seed=1)))
    events: list[Mapping[str, Any]] = []
    measured = bound_result(bind(attack, rows, "classification", incumbent=served), events)
    result = read(attack / "result.json")
    assert result["metrics"]["macro_f1"] > 0.9
    assert result["incumbent_metrics"]["macro_f1"] < 0.1, "its own files say that it is better"
    assert measured["metrics"]["macro_f1"] < 0.1
    assert measured["incumbent_metrics"]["macro_f1"] > 0.9
    assert (measured["rows"], measured["left_out"], measured["objection"]) == (30, 0, None)
    assert any("30 rows are bound to the name; the new model: accuracy 0.0" in e.get("message", "") for e in events)
    assert "30 rows are bound to the name" in (attack / "report.md").read_text(encoding="utf-8")


def test_rows_of_the_training_file_that_are_bound_are_not_trained_on(encoder: Path, tmp_path: Path) -> None:
    known = labelled(6, seed=9)
    rows = write_rows(tmp_path / "bound.jsonl", known)
    disguised = [row | {"text": row["text"].upper() + "!"} for row in known]
    plain = bind(job(tmp_path / "plain", encoder, labelled(20)), rows, "classification")
    mixed = bind(job(tmp_path / "mixed", encoder, labelled(20) + disguised), rows, "classification")
    events: list[Mapping[str, Any]] = []
    assert bound_result(plain)["left_out"] == 0
    assert bound_result(mixed, events)["left_out"] == 18
    said = "18 rows of the training file are among them and were not trained on"
    assert any(said in event.get("message", "") for event in events)
    for name in ("head.safetensors", "detector.safetensors", "judged/head.safetensors"):
        assert (mixed / "result" / name).read_bytes() == (plain / "result" / name).read_bytes()


def test_a_job_of_nothing_but_bound_rows_is_refused(encoder: Path, rows: Path, tmp_path: Path) -> None:
    error = failure(bind(job(tmp_path / "job", encoder, labelled(10, seed=9)), rows, "classification"))
    assert (error["code"], error["param"]) == ("only_bound_rows", "training_file")


def test_bound_rows_may_be_the_validation_file_too(encoder: Path, rows: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "job", encoder, labelled(20), labelled(10, seed=9))
    measured = bound_result(bind(directory, rows, "classification"))
    assert measured["metrics"]["macro_f1"] == pytest.approx(read(directory / "result.json")["metrics"]["macro_f1"])


def test_what_serves_is_measured_by_the_files_that_answer(
    encoder: Path, rows: Path, served: Path, tmp_path: Path
) -> None:
    now = shutil.copytree(served, tmp_path / "now")
    shutil.rmtree(now / "judged")
    shutil.copytree(tmp_path / "now", now / "judged")
    weak = job(tmp_path / "weak", encoder, swapped(labelled(20)))
    assert run(weak, lambda event: None) == 0
    for name in ("head.json", "head.safetensors"):
        shutil.copyfile(weak / "result" / name, now / "judged" / name)
    directory = bind(job(tmp_path / "job", encoder, labelled(20)), rows, "classification", incumbent=now)
    assert bound_result(directory)["incumbent_metrics"]["macro_f1"] > 0.9


def test_a_version_in_service_that_cannot_be_measured_is_an_objection(
    encoder: Path, rows: Path, served: Path, tmp_path: Path
) -> None:
    directory = bind(job(tmp_path / "job", encoder, labelled(10)), rows, "classification", incumbent=served)
    content = read(directory / "job.json") | {"incumbent_base": "tiny", "incumbent_base_version": "gone"}
    (directory / "job.json").write_text(json.dumps(content), encoding="utf-8")
    measured = bound_result(directory)
    assert measured["incumbent_metrics"] is None
    assert measured["objection"] == (
        "the version in service cannot be measured on the rows bound to this name: "
        "its files or its encoder cannot be opened here"
    )
    assert str(tmp_path) not in measured["objection"]


def test_a_model_for_another_task_is_an_objection(encoder: Path, rows: Path, tmp_path: Path) -> None:
    texts = [{"text": row["text"]} for row in labelled(20)]
    directory = job(tmp_path / "job", encoder, texts, task="anomaly", hyperparameters={"detector": "knn"})
    assert bound_result(bind(directory, rows, "classification"))["objection"] == (
        "the rows bound to this name are for another task or kind of readings: give the job another suffix"
    )


def test_texts_and_readings_are_other_tasks_though_both_are_called_anomaly(encoder: Path, tmp_path: Path) -> None:
    table = tmp_path / "bound.csv"
    test_sensor_anomaly.job(tmp_path / "sensors", 100, kind="records")
    shutil.copyfile(tmp_path / "sensors" / "train.csv", table)
    texts = [{"text": row["text"]} for row in labelled(20)]
    directory = job(tmp_path / "job", encoder, texts, task="anomaly", hyperparameters={"detector": "knn"})
    measured = bound_result(bind(directory, table, "anomaly", kind="records", timestamp="time", label="bad"))
    assert measured["objection"].startswith("the rows bound to this name are for another task or kind of readings")


def test_detectors_of_texts_are_measured_with_the_anomalies_of_the_binding(encoder: Path, tmp_path: Path) -> None:
    chance = random.Random(4)
    normal = [{"text": words("abcde", chance), "label": "ok"} for _ in range(40)]
    strange = [{"text": words("!?.,-", chance), "label": "odd"} for _ in range(10)]
    rows = write_rows(tmp_path / "bound.jsonl", normal[:20] + strange)
    settings = {"detector": "knn"}
    now = job(tmp_path / "now", encoder, normal[20:], task="anomaly", hyperparameters=settings)
    assert run(now, lambda event: None) == 0
    # It calls the anomalies normal and the normal texts anomalies.
    attack = [row | {"label": "anomaly"} for row in normal[20:]] + [
        {"text": words("!?.,-", chance), "label": "ok"} for _ in range(40)
    ]
    directory = job(tmp_path / "attack", encoder, attack, task="anomaly", hyperparameters=settings)
    measured = bound_result(bind(directory, rows, "anomaly", incumbent=now / "result", anomaly_label="odd"))
    assert measured["rows"] == 30
    assert measured["metrics"]["auroc"] < 0.2 < 0.8 < measured["incumbent_metrics"]["auroc"]


@pytest.mark.parametrize(
    ("task", "columns", "metric"),
    [("embedding", ("anchor", "positive"), "mrr"), ("rerank", ("query", "document"), "ndcg_at_10")],
)
def test_tuned_models_are_measured_on_the_bound_rows(
    encoder: Path, tmp_path: Path, task: str, columns: tuple[str, str], metric: str
) -> None:
    def pairs(number: int, start: int) -> list[dict[str, Any]]:
        made = [{columns[0]: f"question {i}", columns[1]: f"answer {i}"} for i in range(start, start + number)]
        return [row | {"label": float(i % 2)} for i, row in enumerate(made)] if task == "rerank" else made

    rows = write_rows(tmp_path / "bound.jsonl", pairs(8, 100))
    settings = {"max_steps": 2, "batch_size": 4}
    # Two of the bound rows are in the training file.
    first = job(tmp_path / "first", encoder, pairs(24, 0) + pairs(2, 100), task=task, hyperparameters=settings)
    assert bound_result(bind(first, rows, task))["left_out"] == 2
    same = job(tmp_path / "same", encoder, pairs(24, 0), task=task, hyperparameters=settings)
    measured = bound_result(bind(same, rows, task, incumbent=first / "result"))
    assert measured["metrics"][metric] == pytest.approx(measured["incumbent_metrics"][metric])
    assert measured["objection"] is None


def test_detectors_of_readings_are_measured_on_the_bound_rows(tmp_path: Path) -> None:
    roles = {"kind": "series", "timestamp": "time", "label": "bad"}
    now = test_sensor_anomaly.job(tmp_path / "now", 600, kind="series", detector="level")
    assert run(now, lambda event: None) == 0
    test_sensor_anomaly.job(tmp_path / "bound", 200, strange=True, kind="series")
    rows = tmp_path / "bound" / "train.csv"
    # One column is scaled a hundredfold, as readings that make faults look normal.
    attack = test_sensor_anomaly.job(tmp_path / "attack", 600, kind="series", detector="level")
    lines = (attack / "train.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    scaled = [",".join([c[0], c[1], f"{100 * float(c[2]):.4f}", *c[3:]]) for c in cells]
    (attack / "train.csv").write_text("\n".join([lines[0], *scaled]) + "\n")
    measured = bound_result(bind(attack, rows, "anomaly", incumbent=now / "result", **roles))
    assert measured["metrics"]["auroc"] < measured["incumbent_metrics"]["auroc"]
    assert measured["rows"] == 200


def test_a_sensor_model_of_other_columns_is_an_objection(tmp_path: Path) -> None:
    directory = test_sensor_anomaly.job(
        tmp_path / "job", kind="records", detector="pca", columns=["a", "b"], timestamp=None
    )
    roles: dict[str, Any] = {"kind": "records", "columns": ["a", "b", "c"], "timestamp": "time", "label": "bad"}
    measured = bound_result(bind(directory, directory / "train.csv", "anomaly", **roles))
    assert measured["objection"] == (
        "it cannot be measured on the rows bound to this name: it reads a, b, the rows have a, b, c"
    )


def test_forecasters_of_several_contexts_are_measured_on_the_same_windows(tmp_path: Path) -> None:
    test_forecast.job(tmp_path / "now", test_forecast.daily(600), model="linear", context=24)
    rows = tmp_path / "bound.csv"
    test_forecast.write(rows, test_forecast.daily(200, seed=5))
    test_forecast.job(tmp_path / "job", test_forecast.daily(600), model="linear")
    directory = bind(tmp_path / "job", rows, "forecast", incumbent=tmp_path / "now" / "result")
    content = read(directory / "job.json")
    content["bound"]["hyperparameters"] = {"timestamp": "at", "horizon": 12}
    (directory / "job.json").write_text(json.dumps(content), encoding="utf-8")
    measured = bound_result(directory)
    assert measured["objection"] is None
    assert measured["metrics"]["primary"] > 0.5
    assert [measured[name]["held_out_windows"] for name in ("metrics", "incumbent_metrics")] == [141, 141]
    assert measured["incumbent_metrics"]["primary"] == pytest.approx(measured["metrics"]["primary"], abs=0.1)
    content["bound"]["hyperparameters"] = {"timestamp": "at", "horizon": 12, "columns": ["load", "heat"]}
    test_forecast.write(rows, test_forecast.daily(50, seed=5))
    (directory / "job.json").write_text(json.dumps(content), encoding="utf-8")
    assert "the longest has 50" in bound_result(directory)["objection"]


def segments(
    readings: np.ndarray[Any, Any], times: np.ndarray[Any, Any] | None = None, kind: Any = "series"
) -> Segments:
    lines = np.arange(len(readings))
    return Segments(("a",), readings[:, None].astype(float), lines, np.array([0]), times, None, kind)


def test_bound_readings_are_left_out_by_time_or_by_runs() -> None:
    whole = segments(np.arange(100.0), np.arange(100.0))
    kept, left = leave_out(whole, segments(np.arange(20.0, 40.0), np.arange(20.0, 40.0)))
    assert left == 20
    assert kept.starts.tolist() == [0, 20], "a segment ends where rows are left out"
    assert leave_out(whole, segments(np.arange(20.0, 40.0), np.arange(920.0, 940.0)))[1] == 0, "another time"
    untimed = segments(np.arange(100.0))
    assert leave_out(untimed, segments(np.arange(20.0, 40.0)))[1] == 20
    assert leave_out(untimed, segments(np.array([5.0, 50.0, 7.0] * 10)))[1] == 0, "single readings come again"
    assert leave_out(segments(np.arange(100.0), kind="records"), segments(np.array([5.0, 50.0, 7.0])))[1] == 3
    with pytest.raises(TrainingDataError, match="other than those bound"):
        leave_out(untimed, untimed)
