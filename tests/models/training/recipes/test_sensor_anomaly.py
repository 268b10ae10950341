"""Sensor jobs from job.json to result/: files, events and report, and errors for bad files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.registry.artifact import Golden
from models.sensors.calibrated_detector import CalibratedDetector, most_columns
from models.sensors.detectors import network
from models.sensors.detectors.autoencoders import ConvAutoencoder, RecordAutoencoder
from models.sensors.detectors.factory import DETECTORS, build
from models.sensors.detectors.prediction_error import PredictionErrorDetector
from models.sensors.drift import DriftMonitor
from models.sensors.model import MOST_STATE_BYTES
from models.sensors.serialization import load_sensor
from models.training.checks.sensor_network import check_examples
from models.training.errors import HyperparameterError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import SensorAnomalyHyperparameters, TextAnomalyHyperparameters
from models.training.run import FAILED, run
from service.errors import BackendError
from service.serving.stream_state import MAX_CHARACTERS, StreamPosition, seal

pytestmark = pytest.mark.slow


def job(
    directory: Path, rows: int = 900, *, strange: bool = False, incumbent: Path | None = None, **settings: Any
) -> Path:
    """Three columns a second, the last tenth with a fault of which `strange` says whether it is labelled."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, 2)) @ random.standard_normal((2, 3)) + 0.2 * random.standard_normal((rows, 3))
    bad = np.arange(rows) >= (0.9 * rows if strange else rows)
    x[bad, 1] += 8
    lines = [
        f"2026-01-01T00:{i // 60:02d}:{i % 60:02d},{a:.4f},{b:.4f},{c:.4f},{int(y)}"
        for i, ((a, b, c), y) in enumerate(zip(x.tolist(), bad.tolist(), strict=True))
    ]
    (directory / "train.csv").write_text("time,a,b,c,bad\n" + "\n".join(lines) + "\n")
    named = {"timestamp": "time", "label": "bad"}
    wanted = {"job": "ftjob-1", "base_spec": "sensors", "base": "sensors", "task": "anomaly", "seed": 7}
    files = {"training_file": str(directory / "train.csv"), "incumbent": None if incumbent is None else str(incumbent)}
    (directory / "job.json").write_text(json.dumps({**wanted, **files, "hyperparameters": named | settings}))
    return directory


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def outcome(directory: Path) -> dict[str, dict[str, Any]]:
    """Findings of the outcome rung."""
    [rung] = [rung for rung in read(directory / "report.json")["rungs"] if rung["rung"] == "outcome"]
    return {finding["check"]: finding for finding in rung["findings"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Mapping[str, Any]]]:
    events: list[Mapping[str, Any]] = []
    directory = job(tmp_path_factory.mktemp("series"), kind="series", strange=True)
    assert run(directory, events.append) == 0
    return directory, events


def test_a_job_on_series_writes_a_sensor_that_gives_its_golden_scores(
    trained: tuple[Path, list[Mapping[str, Any]]],
) -> None:
    directory, _ = trained
    result = read(directory / "result.json")
    assert (result["task"], result["encoder"], result["base_version"], result["labels"]) == ("anomaly", "none", "1", [])
    assert (result["sensor"]["kind"], result["sensor"]["columns"], result["sensor"]["period_s"]) == (
        "series",
        ["a", "b", "c"],
        1.0,
    )
    names = sorted(path.name for path in (directory / "result").iterdir())
    assert names == ["judged", "sensor.json", "sensor.safetensors"]
    golden = Golden.from_json(result["golden"])
    sensor = load_sensor(directory / "result")
    assert isinstance(sensor, CalibratedDetector)
    scored = sensor.score(np.array(golden.readings)).scores
    np.testing.assert_allclose(scored, np.array(golden.rows)[:, 0], atol=golden.tolerance)
    assert scored[-1] > 0


def test_labels_judge_and_do_not_train(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    metrics = read(trained[0] / "result.json")["metrics"]
    assert metrics["auroc"] > 0.95
    assert metrics["f1"] > 0.8
    assert metrics["false_alarm_rate_0.05"] < 0.15


def test_the_report_compares_alarms_and_scores_with_limits_on_each_column(
    trained: tuple[Path, list[Mapping[str, Any]]],
) -> None:
    found, metrics = outcome(trained[0]), read(trained[0] / "result.json")["metrics"]
    assert f"AUROC is {metrics['auroc']:.3f}, that of the largest robust z-score" in found["against_trivial"]["message"]
    assert (
        f"F1 at alpha 0.05 is {metrics['f1']:.3f}, that of the largest robust z-score"
        in found["f1_against_trivial"]["message"]
    )
    assert not {"against_incumbent", "f1_against_incumbent"} & set(found), "nothing serves under the name"


def test_with_labels_what_serves_now_is_compared_by_them(
    trained: tuple[Path, list[Mapping[str, Any]]], tmp_path: Path
) -> None:
    directory = job(tmp_path, kind="series", strange=True, detector="residual", incumbent=trained[0] / "result")
    assert run(directory, lambda event: None) == 0
    found, result = outcome(directory), read(directory / "result.json")
    ours, theirs = result["metrics"], result["incumbent_metrics"]
    # They have windows of their own, and so a few rows more or less.
    assert found["against_incumbent"]["value"] == pytest.approx(ours["auroc"] - theirs["auroc"], abs=0.02)
    assert found["f1_against_incumbent"]["value"] == pytest.approx(ours["f1"] - theirs["f1"], abs=0.02)


@pytest.mark.parametrize("kind", ["records", "series"])
def test_a_label_that_is_none_ends_the_job_with_its_line_and_column(tmp_path: Path, kind: str) -> None:
    directory = job(tmp_path, 200, kind=kind)
    lines = (directory / "train.csv").read_text().splitlines()
    lines[99] = lines[99].rsplit(",", 1)[0] + ",broken"
    (directory / "train.csv").write_text("\n".join(lines) + "\n")
    assert run(directory, lambda event: None) == FAILED
    error = read(directory / "error.json")
    assert (error["code"], error["param"]) == ("wrong_type", "training_file")
    assert "line 100" in error["message"]
    assert "'bad'" in error["message"]
    assert "'broken'" in error["message"]
    assert not (directory / "result.json").exists()


def test_events_and_report_say_why_the_detector_was_chosen(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    directory, events = trained
    assert [event["phase"] for event in events if event["type"] == "phase"] == ["validating_files", "running"]
    said = " ".join(str(event.get("message", "")) for event in events)
    assert "since it ranks the labelled anomalies best" in said
    assert "no network is tried" in said
    report = read(directory / "report.json")
    plots, found = report["plots"], report["events"]
    assert found["found"] >= len(found["shown"]) > 0
    assert any(one["labelled"] and one["columns"][0] == "b" for one in found["shown"])
    series = plots["series"]
    assert series["marks"]["b"]
    assert set(series["marks"]["b"]) <= set(series["anomalies"])
    assert set(series["columns"]) == {"a", "b", "c"}
    assert (
        len(series["x"])
        == len(series["scores"])
        == len(series["p_values"])
        == len(series["labels"])
        == len(series["columns"]["a"])
    )
    assert series["x"][0].startswith("2026-01-01T00:12")
    assert series["anomalies"]
    assert max(plots["contributions"], key=plots["contributions"].get) == "b"
    assert [one["detector"] for one in plots["candidates"] if one["chosen"]] == [
        read(directory / "result.json")["mode"]
    ]


def test_records_are_judged_against_what_serves(tmp_path: Path) -> None:
    first = job(tmp_path / "one", kind="records", detector="pca")
    assert run(first, lambda event: None) == 0
    second = job(tmp_path / "two", kind="records", detector="mahalanobis", incumbent=first / "result", refit=False)
    assert run(second, lambda event: None) == 0
    result = read(second / "result.json")
    assert result["mode"] == "mahalanobis"
    rates = {"false_alarm_rate_0.05", "false_alarm_rate_0.01"}
    assert set(result["incumbent_metrics"]) == {"held_out_rows", "calibrated_on", "primary", *rates}
    found, theirs = outcome(second), result["incumbent_metrics"]["false_alarm_rate_0.05"]
    assert f"that of the served model {theirs:.2%}" in found["against_incumbent"]["message"]
    assert "f1_against_incumbent" not in found
    assert not (second / "result" / "judged").exists()
    other = job(tmp_path / "three", kind="records", detector="pca", columns=["a", "b"], incumbent=first / "result")
    events: list[Mapping[str, Any]] = []
    assert run(other, events.append) == 0
    assert read(other / "result.json")["incumbent_metrics"] is None
    assert "against_incumbent" not in outcome(other)
    assert any("cannot be compared: it reads a, b, c" in str(event.get("message")) for event in events)


def test_a_network_goes_through_all_rungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_MOST_EPOCHS", 20)
    directory = job(tmp_path, kind="records", detector="autoencoder", refit=False)
    assert run(directory, lambda event: None) == 0
    report = read(directory / "report.json")
    assert {rung["rung"]: rung["status"] for rung in report["rungs"]} | {"outcome": "-"} == {
        "data": "ok", "forward": "ok", "loss": "ok", "gradient": "ok", "outcome": "-",
    }  # fmt: skip
    assert report["plots"]["training"]["loss"][0] > report["plots"]["training"]["loss"][-1]


@pytest.mark.parametrize(
    ("settings", "code"), [({"timestamp": None}, "wrong_type"), ({"columns": ["z"]}, "missing_column")]
)
def test_a_file_that_cannot_be_used_ends_the_job_with_its_reason(
    tmp_path: Path, settings: dict[str, Any], code: str
) -> None:
    directory = job(tmp_path, kind="series", **settings)
    assert run(directory, lambda event: None) == FAILED
    assert read(directory / "error.json")["code"] == code


@pytest.mark.parametrize(("detector", "drawn"), [("level", True), ("adaptive", False)])
def test_a_threshold_is_drawn_unless_it_moves_with_the_readings(tmp_path: Path, detector: str, drawn: bool) -> None:
    directory = job(tmp_path, 900, kind="series", detector=detector)
    assert run(directory, lambda event: None) == 0
    thresholds = read(directory / "report.json")["plots"]["series"]["threshold"]
    assert (thresholds["0.05"] is not None) == drawn


def test_too_few_rows_end_the_job(tmp_path: Path) -> None:
    directory = job(tmp_path, 70, kind="series")
    assert run(directory, lambda event: None) == FAILED
    assert read(directory / "error.json")["code"] == "rows"


def test_auto_leaves_out_what_the_longest_run_is_too_short_for(tmp_path: Path) -> None:
    directory, said = job(tmp_path, 100, kind="series"), list[str]()
    assert run(directory, lambda event: said.append(str(event.get("message")))) == 0
    assert read(directory / "result.json")["mode"] == "level"
    assert [text.partition(": expected")[0] for text in said if text.startswith("left out")] == [
        f"left out: training_file: detector {name}" for name in ("residual", "combined", "ensemble")
    ]


def test_a_detector_asked_for_that_the_longest_run_is_too_short_for_ends_the_job(tmp_path: Path) -> None:
    directory = job(tmp_path, 100, kind="series", detector="residual")
    assert run(directory, lambda event: None) == FAILED
    assert read(directory / "error.json")["code"] == "too_few_rows"


def labelled(directory: Path, labels: Sequence[int], groups: int = 1, **settings: Any) -> Path:
    """A job on rows with these labels, in groups of equal size; normal rows lie around 0, the others around 4."""
    job(directory, timestamp=None, group="machine", **settings)
    x = np.random.default_rng(1).standard_normal((len(labels), 3)) + 4 * np.array(labels)[:, None]
    machines = [f"m{row * groups // len(labels):03d}" for row in range(len(labels))]
    rows = [
        f"{a:.4f},{b:.4f},{c:.4f},{machine},{y}"
        for (a, b, c), machine, y in zip(x.tolist(), machines, labels, strict=True)
    ]
    (directory / "train.csv").write_text("a,b,c,machine,bad\n" + "\n".join(rows) + "\n")
    return directory


@pytest.mark.parametrize("kind", ["records", "series"])
@pytest.mark.parametrize("normal", [0, 200], ids=["all", "all but the held-out ones"])
def test_a_file_without_normal_rows_to_train_on_ends_the_job_at_once(tmp_path: Path, kind: str, normal: int) -> None:
    directory = labelled(tmp_path, [1] * (1000 - normal) + [0] * normal, kind=kind)
    assert run(directory, lambda event: None) == FAILED
    error = read(directory / "error.json")
    assert (error["code"], error["param"]) == ("rows", "training_file")
    assert error["message"].startswith("0 normal rows")


@pytest.mark.parametrize("groups", [1, 300], ids=["one group", "groups of ten"])
@pytest.mark.parametrize("detector", ["auto", "autoencoder"])
def test_records_with_scattered_labels_are_trained_on_and_keep_their_promise(
    tmp_path: Path, groups: int, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_MOST_EPOCHS", 5)  # of 33, which find the same anomalies
    labels = (np.random.default_rng(2).random(3000) < 0.2).astype(int).tolist()
    directory = labelled(tmp_path, labels, groups, kind="records", detector=detector)
    assert run(directory, lambda event: None) == 0
    metrics = read(directory / "result.json")["metrics"]
    assert metrics["calibrated_on"] > 1500, "all normal rows calibrate"
    assert metrics["auroc"] > 0.95
    assert metrics["false_alarm_rate_0.05"] < 0.09


def wide(directory: Path, columns: int, **settings: Any) -> Path:
    """A job on a series with this number of columns."""
    job(directory, kind="series", timestamp=None, label=None, **settings)
    rows = np.random.default_rng(0).standard_normal((120, columns)).tolist()
    names = ",".join(f"c{number}" for number in range(columns))
    (directory / "train.csv").write_text(
        "\n".join([names, *(",".join(f"{value:.3f}" for value in row) for row in rows)]) + "\n"
    )
    return directory


@pytest.mark.parametrize(
    ("detector", "most"), [("residual", 356), ("ensemble", 356), ("foresight", 356), ("conv", 264)]
)
def test_a_series_whose_state_no_service_takes_is_refused(tmp_path: Path, detector: str, most: int) -> None:
    directory = wide(tmp_path, most + 1, detector=detector)
    assert run(directory, lambda event: None) == FAILED
    error = read(directory / "error.json")
    assert (error["code"], error["param"]) == ("too_many_columns", "training_file")
    assert (
        f"detector {detector}: expected at most {most} columns of a series, got {most + 1}; name fewer in `columns`"
        in error["message"]
    )


def test_auto_leaves_out_what_no_service_takes_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.sensors.calibrated_detector.MOST_STATE_BYTES", MOST_STATE_BYTES // 8)
    most = most_columns(build("series", "residual", 1).window)
    directory, said = wide(tmp_path, most + 1), list[str]()
    assert run(directory, lambda event: said.append(str(event.get("message")))) == 0
    assert read(directory / "result.json")["mode"] in {"level", "statistics"}
    assert (
        f"not tried, since its state would be too large to serve: residual (at most {most} columns of a series), "
        "combined" in " ".join(said)
    )


@pytest.mark.parametrize("detector", sorted(DETECTORS["series"]))
def test_the_most_columns_are_those_whose_state_is_sealed(detector: str) -> None:
    window = build("series", detector, 1).window
    most = most_columns(window)
    state = {"readings": np.zeros((window - 1, most)), "drift": DriftMonitor().to_array()}
    assert len(seal(state, "abc", StreamPosition(1.5))) <= MAX_CHARACTERS
    with pytest.raises(BackendError):
        seal({**state, "readings": np.zeros((window - 1, most + 1))}, "abc", StreamPosition(1.5))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "records", "detector": "level"}, "detector: expected one of auto, pca"),
        ({"kind": "series", "columns": ["a", "a"]}, "columns: each column once"),
        ({"kind": "series", "columns": ["a"], "label": "a"}, "has two roles"),
        ({"kind": "series", "anomaly_label": "x"}, "anomaly_label: unknown for task anomaly"),
        ({"kind": "text"}, "kind: expected 'records' or 'series'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(HyperparameterError, match=says):
        parse("anomaly", given)


def test_without_a_kind_the_task_is_about_texts() -> None:
    assert isinstance(parse("anomaly", {}), TextAnomalyHyperparameters)
    assert isinstance(parse("anomaly", {"kind": "series", "n_epochs": "auto"}), SensorAnomalyHyperparameters)


class Dead(nn.Module):
    """A network that always says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + self.bias


def test_a_dead_network_fails_the_ladder_and_a_sound_one_does_not() -> None:
    batch = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    detector = RecordAutoencoder(3)
    assert "fail" not in {finding.status for finding in check_examples(detector, batch)}
    detector.network = nn.Sequential(Dead())
    failed = {finding.check for finding in check_examples(detector, batch) if finding.status == "fail"}
    assert {"all_zero", "constant_output"} <= failed
    windows = torch.randn(64, 3, 32, generator=torch.Generator().manual_seed(0))
    assert "fail" not in {finding.status for finding in check_examples(ConvAutoencoder(3), windows)}
    steps = torch.randn(64, 3, 17, generator=torch.Generator().manual_seed(0))
    assert "fail" not in {finding.status for finding in check_examples(PredictionErrorDetector(3), steps)}


@pytest.mark.parametrize("detector", [*DETECTORS["series"], "adaptive", "auto"])
def test_a_signal_without_noise_ends_in_a_detector_that_finds_a_fault(
    tmp_path: Path, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_MOST_EPOCHS", 10)  # of 60
    directory = job(tmp_path, 900, kind="series", detector=detector)
    wave = np.sin(2 * np.pi * np.arange(900) / 24)
    rows = [
        f"2026-01-01T00:{i // 60:02d}:{i % 60:02d},{a!r},{b!r},{c!r},0"
        for i, (a, b, c) in enumerate(np.stack([wave, np.roll(wave, 6), 2 * wave], axis=1).tolist())
    ]
    (directory / "train.csv").write_text("time,a,b,c,bad\n" + "\n".join(rows) + "\n")
    assert run(directory, lambda event: None) == 0, read(directory / "error.json")
    sensor = load_sensor(directory / "result")
    readings = np.stack([wave, np.roll(wave, 6), 2 * wave], axis=1)[:240].copy()
    readings[200:, 1] += 3
    scores = sensor.score(readings).scores  # type: ignore[union-attr]
    assert scores[200:208].max() > scores[48:200].max()
