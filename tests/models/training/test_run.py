"""Jobs from job.json to result/, on a tiny random encoder: what is written, what is said, and how failures end."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from models.loader import load
from models.registry.artifact import Golden
from models.runtime.placement import place
from models.source import locate
from models.text.detectors.serialization import load_detector
from models.text.golden_texts import reproduce
from models.text.heads import LinearHead
from models.text.lexical_head import LexicalHead, load_head
from models.training import metrics as measures
from models.training.context import TextContext
from models.training.embeddings import Embedder, EmbeddingCache
from models.training.errors import TrainingError
from models.training.hyperparameters import ClassificationHyperparameters, Metric
from models.training.recipes import classification, encoder_comparison
from models.training.recipes.candidate import Candidate, held_out_metrics
from models.training.recipes.encoder_comparison import EncoderComparison
from models.training.recipes.frozen_candidate import fit_frozen
from models.training.recipes.text_dataset import TextDataset
from models.training.run import FAILED, FULL, run
from models.training.tuning.encoder_tuning import EncoderTuning
from tests.support import tiny_models
from tests.support.artifacts import MANIFEST

pytestmark = pytest.mark.slow

# Every class has letters of its own, so that even a random encoder tells them apart.
ALPHABETS = {"fruit": "abcde", "steel": "vwxyz", "river": "56789"}
Row = dict[str, str]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.encoder(tmp_path_factory.mktemp("models") / "tiny", normalize=True)


@pytest.fixture(scope="module", autouse=True)
def two_further_folds() -> Iterator[None]:
    """Of four: every fold of few rows is another tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_comparison, "_MORE_FOLDS", 2)
        yield


def words(letters: str, chance: random.Random) -> str:
    return " ".join("".join(chance.choice(letters) for _ in range(3)) for _ in range(4))


def labelled(per_class: int, seed: int = 0) -> list[Row]:
    chance = random.Random(seed)
    rows = [
        {"text": words(letters, chance), "label": label}
        for label, letters in ALPHABETS.items()
        for _ in range(per_class)
    ]
    chance.shuffle(rows)
    return rows


def job(directory: Path, encoder: Path, rows: list[Row], validation: list[Row] | None = None, **more: Any) -> Path:
    """Write a job and its files; its directory."""
    directory.mkdir(exist_ok=True)
    files: dict[str, str | None] = {}
    for name, part in (("training_file", rows), ("validation_file", validation)):
        path = directory / f"{name}.jsonl"
        files[name] = str(path) if part is not None else None
        if part is not None:
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    wanted = {
        "job": "ftjob-1",
        "base_spec": f"tiny={encoder}",
        "base": "tiny",
        "task": "classification",
        "seed": 7,
        "dtype": "float32",
    }
    settings = {"hyperparameters": {"mode": "frozen"}, "cache": str(directory / "cache"), **wanted, **files, **more}
    (directory / "job.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def failure(directory: Path) -> dict[str, Any]:
    """Run a job that must fail; its error."""
    said: list[Mapping[str, Any]] = []
    assert run(directory, said.append) == FAILED
    assert "error" not in [event.get("level") for event in said], "the worker says it once"
    assert not (directory / "result.json").exists()
    error: dict[str, Any] = read(directory / "error.json")
    return error


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Mapping[str, Any]]]:
    """A classification job that went well, and what it said."""
    directory = job(tmp_path_factory.mktemp("trained"), encoder, labelled(40))
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == 0
    return directory, events


def test_a_classification_job_writes_head_detector_and_result(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    directory, _ = trained
    result = read(directory / "result.json")
    assert result["task"] == "classification"
    assert (result["mode"], result["encoder"], result["incumbent_metrics"]) == ("frozen", "base", None)
    assert result["labels"] == ["fruit", "river", "steel"]
    assert result["metrics"]["macro_f1"] > 0.9
    assert 0 <= result["metrics"]["ece"] <= 0.2
    assert result["trained_tokens"] > 96 * 4
    assert sorted(path.name for path in (directory / "result").iterdir()) == [
        "detector.json",
        "detector.safetensors",
        "head.json",
        "head.safetensors",
        "judged",
    ]
    assert LinearHead.load(directory / "result").labels == tuple(result["labels"])
    assert len(load_detector(directory / "result").calibration) == 120, (
        "all rows: the held-out ones, too, after they have judged"
    )
    judged, published = LinearHead.load(directory / "result" / "judged"), LinearHead.load(directory / "result")
    assert judged.labels == published.labels
    assert not torch.equal(judged.weight, published.weight)


def test_golden_rows_are_probabilities_of_held_out_texts(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    golden = read(trained[0] / "result.json")["golden"]
    assert len(golden["texts"]) == len(golden["rows"]) == 3
    torch.testing.assert_close(torch.tensor(golden["rows"]).sum(dim=1), torch.ones(3))
    assert golden["tolerance"] > 0


def test_words_are_left_out_where_they_gain_nothing(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    directory, events = trained
    assert read(directory / "result.json")["metrics"]["lexical"] == 0.0
    assert any(
        "word pieces" in event["message"] and "left out" in event["message"]
        for event in events
        if event["type"] == "message"
    )


def test_a_head_with_words_gives_its_golden_rows_and_is_an_incumbent(encoder: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "words", encoder, labelled(10), hyperparameters={"mode": "frozen", "lexical": True})
    assert run(directory, lambda event: None) == 0
    head = load_head(directory / "result")
    assert isinstance(head, LexicalHead)
    assert isinstance(load_head(directory / "result" / "judged"), LexicalHead)
    golden = read(directory / "result.json")["golden"]
    manifest = replace(MANIFEST, files={"head.json": ""}, task="classification", encoder="base", labels=head.labels)
    manifest = replace(
        manifest, golden=Golden(tuple(golden["texts"]), tuple(map(tuple, golden["rows"])), golden["tolerance"])
    )
    reproduce(directory / "result", manifest, load(locate(f"tiny={encoder}"), place("cpu", "float32")))
    again = job(tmp_path / "again", encoder, labelled(10), incumbent=str(directory / "result"))
    assert run(again, lambda event: None) == 0
    result, before = read(again / "result.json"), read(directory / "result.json")["metrics"]
    assert result["incumbent_metrics"]["accuracy"] == before["accuracy"]


def test_events_tell_phases_progress_and_outcome_in_order(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    events = trained[1]
    assert [event["phase"] for event in events if event["type"] == "phase"] == ["validating_files", "running"]
    data = [event["data"] for event in events if event["type"] == "metrics"]
    assert data
    assert all(item["step"] <= item["total_steps"] and item["eta_s"] >= 0 for item in data)
    assert any("macro-F1" in event["message"] for event in events if event["type"] == "message")
    json.dumps(events, allow_nan=False)


def test_the_report_has_the_rungs_that_a_frozen_encoder_has(trained: tuple[Path, list[Mapping[str, Any]]]) -> None:
    report = read(trained[0] / "report.json")
    assert {rung["rung"]: rung["status"] != "not run" for rung in report["rungs"]} == {
        "data": True,
        "forward": True,
        "loss": True,
        "gradient": False,
        "outcome": True,
    }
    markdown = (trained[0] / "report.md").read_text(encoding="utf-8")
    assert "# Five checks" in markdown
    assert "## What is taken for what" in markdown
    confusion, curve = report["confusion"], report["plots"]["calibration"]
    held = read(trained[0] / "result.json")["metrics"]["held_out_rows"]
    assert sum(map(sum, confusion["counts"])) == sum(curve["rows"]) == held
    wrong = sum(sum(row) - row[at] for at, row in enumerate(confusion["counts"]))
    assert wrong == sum(pair["rows"] for pair in confusion["pairs"])


def test_the_same_job_gives_the_same_bytes(
    trained: tuple[Path, list[Mapping[str, Any]]], encoder: Path, tmp_path: Path
) -> None:
    again = job(tmp_path / "again", encoder, labelled(40))
    assert run(again, lambda event: None) == 0
    for file in ("head.safetensors", "head.json", "detector.safetensors", "detector.json"):
        assert (again / "result" / file).read_bytes() == (trained[0] / "result" / file).read_bytes(), file


def test_the_incumbent_is_judged_on_the_same_held_out_rows(
    trained: tuple[Path, list[Mapping[str, Any]]], encoder: Path, tmp_path: Path
) -> None:
    next_job = job(tmp_path / "next", encoder, labelled(40), incumbent=str(trained[0] / "result"))
    assert run(next_job, lambda event: None) == 0
    result = read(next_job / "result.json")
    assert result["incumbent_metrics"]["macro_f1"] == pytest.approx(result["metrics"]["macro_f1"])


@pytest.fixture(scope="module")
def stranger(encoder: Path) -> Path:
    """An encoder of other weights, as a tuned one beside its base."""
    return tiny_models.roughen(tiny_models.encoder(encoder.parent / "stranger", normalize=True))


@pytest.mark.parametrize("task", ["classification", "anomaly"])
@pytest.mark.parametrize("kept", [True, False], ids=["own encoder", "base"])
def test_the_incumbent_is_judged_with_its_own_encoder(
    encoder: Path, stranger: Path, tmp_path: Path, task: str, kept: bool
) -> None:
    more: dict[str, Any] = {"task": task, "hyperparameters": {"mode": "frozen"} if task == "classification" else {}}
    first = job(tmp_path / "first", stranger, labelled(20), keep_encoder=kept, **more)
    assert run(first, lambda event: None) == 0
    before = read(first / "result.json")
    base: dict[str, Any] = (
        {} if kept else {"incumbent_base": f"stranger={stranger}", "incumbent_base_version": before["base_version"]}
    )
    then = job(tmp_path / "then", encoder, labelled(20), incumbent=str(first / "result"), **base, **more)
    assert run(then, lambda event: None) == 0
    result = read(then / "result.json")
    deciding = "macro_f1" if task == "classification" else "false_alarm_rate_0.05"
    numbers = [of[deciding] for of in (before["metrics"], result["incumbent_metrics"])]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)
    if task == "classification":
        assert result["incumbent_metrics"]["ece"] == pytest.approx(before["metrics"]["ece"], abs=1e-4)


@pytest.mark.parametrize(("spec", "version"), [("gone=/nowhere/at/all", "0123456789ab"), ("stranger", "another")])
def test_an_incumbent_whose_base_cannot_be_opened_is_not_measured(
    trained: tuple[Path, list[Mapping[str, Any]]],
    encoder: Path,
    stranger: Path,
    tmp_path: Path,
    spec: str,
    version: str,
) -> None:
    base: dict[str, Any] = {
        "incumbent_base": f"stranger={stranger}" if spec == "stranger" else spec,
        "incumbent_base_version": version,
    }
    directory = job(tmp_path / "job", encoder, labelled(10), incumbent=str(trained[0] / "result"), **base)
    said: list[Mapping[str, Any]] = []
    assert run(directory, said.append) == 0
    assert read(directory / "result.json")["incumbent_metrics"] is None
    name = spec.partition("=")[0]
    why = f"the served model cannot be compared: its encoder ({name}, version {version}) cannot be opened here"
    assert why in [event.get("message") for event in said]


def test_an_incumbent_of_other_labels_is_wrong_about_those_it_does_not_know(
    trained: tuple[Path, list[Mapping[str, Any]]], encoder: Path, tmp_path: Path
) -> None:
    renamed = [row | {"label": "metal" if row["label"] == "steel" else row["label"]} for row in labelled(40)]
    next_job = job(tmp_path / "next", encoder, renamed, incumbent=str(trained[0] / "result"))
    assert run(next_job, lambda event: None) == 0
    result = read(next_job / "result.json")
    assert result["incumbent_metrics"]["accuracy"] == pytest.approx(2 / 3, abs=0.05)


def test_out_of_scope_rows_judge_the_detector_and_are_no_class(encoder: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    strange = [{"text": words("!?.,-", chance), "label": "oos"} for _ in range(20)]
    directory = job(
        tmp_path / "job",
        encoder,
        labelled(40) + strange,
        hyperparameters={"mode": "frozen", "out_of_scope_label": "oos"},
    )
    assert run(directory, lambda event: None) == 0
    result = read(directory / "result.json")
    assert "oos" not in result["labels"]
    assert result["metrics"]["oos_auroc"] > 0.9
    assert {"detector_auroc_knn", "detector_auroc_combined"} <= set(result["metrics"])


def test_a_validation_file_is_what_the_result_is_judged_on(encoder: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "job", encoder, labelled(12), labelled(15, seed=1))
    assert run(directory, lambda event: None) == 0
    metrics = read(directory / "result.json")["metrics"]
    assert metrics["held_out_rows"] == 45


@pytest.mark.parametrize("mode", ["contrastive", "full"])
def test_a_tuned_encoder_that_is_not_better_beyond_chance_does_not_win(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(encoder_comparison, "_FEW_ROWS", 0)
    settings = {"mode": mode, "max_steps": 6, "batch_size": 12, "augmentation": {"typos": 0.1}}
    directory = job(tmp_path / "job", encoder, labelled(20), hyperparameters=settings)
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == 0
    result = read(directory / "result.json")
    assert (result["mode"], result["encoder"]) == ("frozen", "base")
    assert any("does not win; the frozen encoder stays" in event.get("message", "") for event in events)
    assert not (directory / "result" / "encoder").exists()


@pytest.fixture(scope="module")
def won(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Mapping[str, Any]]]:
    """A job whose frozen head is made to guess, so that any tuned encoder is better, and what it said."""
    directory = job(tmp_path_factory.mktemp("won"), encoder, labelled(20), hyperparameters=TUNED)
    events: list[Mapping[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        guess(patch)
        assert run(directory, events.append) == 0
    return directory, events


TUNED = {"mode": "contrastive", "max_steps": 6, "batch_size": 12}


def guess(patch: pytest.MonkeyPatch) -> None:
    """Make the frozen head say the first label of every text, held out or in turn."""

    def guessing(context: TextContext, settings: ClassificationHyperparameters, data: TextDataset) -> Candidate:
        made = fit_frozen(context, settings, data)
        blind = np.zeros_like(made.probabilities)
        blind[:, 0] = 1.0
        return replace(made, probabilities=blind, metrics={**made.metrics, **held_out_metrics(data.held_y, blind)})

    patch.setattr(classification, "fit_frozen", guessing)
    patch.setattr(EncoderComparison, "_predict_frozen", lambda self, rows: np.zeros(len(rows), np.int64))


def test_a_tuned_encoder_that_is_better_beyond_chance_wins(won: tuple[Path, list[Mapping[str, Any]]]) -> None:
    result = read(won[0] / "result.json")
    assert (result["mode"], result["encoder"]) == ("contrastive", "own")
    assert result["metrics"]["macro_f1"] > result["metrics"]["frozen_macro_f1"]
    findings = [finding for rung in read(won[0] / "report.json")["rungs"] for finding in rung["findings"]]
    assert [finding["status"] for finding in findings if finding["check"] == "against_frozen"] == ["ok"]


def test_few_rows_judge_in_turn_and_then_all_teach(won: tuple[Path, list[Mapping[str, Any]]]) -> None:
    said = [event["message"] for event in won[1] if event["type"] == "message"]
    assert any("macro-F1 on 60 rows that it was not tuned on" in message for message in said)
    assert any("fitted to all 60 rows" in message for message in said)
    result = won[0] / "result"
    ours, judged = (
        load(locate(f"tiny={path}"), place("cpu", "float32"))
        for path in (result / "encoder", result / "judged" / "encoder")
    )
    assert ours.metadata.version != judged.metadata.version, "the one has learnt the held-out rows, the other has not"
    assert len(load_detector(result).calibration) == 60
    golden = read(won[0] / "result.json")["golden"]
    embedder = Embedder(ours)
    rows = load_head(result).probabilities(torch.from_numpy(embedder(golden["texts"])))
    torch.testing.assert_close(rows, torch.tensor(golden["rows"]), atol=1e-4, rtol=0)
    assert sorted(path.name for path in won[0].iterdir() if path.name.startswith("tuned-")) == [], (
        "encoders that only judge are not kept"
    )


def test_a_successor_is_compared_with_what_had_not_learnt_the_held_out_rows(
    won: tuple[Path, list[Mapping[str, Any]]], encoder: Path, tmp_path: Path
) -> None:
    again = job(tmp_path / "again", encoder, labelled(20), incumbent=str(won[0] / "result"))
    assert run(again, lambda event: None) == 0
    incumbent, before = read(again / "result.json")["incumbent_metrics"], read(won[0] / "result.json")["metrics"]
    assert incumbent["macro_f1"] == pytest.approx(before["macro_f1"], abs=1e-6)


def test_encoders_that_only_judge_are_not_tuned_twice_by_a_job_that_goes_on(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess(monkeypatch)
    tuned: list[str] = []
    run_stage = EncoderTuning.run

    def counted(self: EncoderTuning, stage: str, *lesson: Sequence[str], add_findings: bool = False) -> Path:
        tuned.append(stage)
        if stage == "tuned-2" and tuned.count(stage) == 1:
            raise SystemExit(143)
        return run_stage(self, stage, *lesson, add_findings=add_findings)

    monkeypatch.setattr(EncoderTuning, "run", counted)
    first, second = (
        job(tmp_path / name, encoder, labelled(8), hyperparameters=TUNED, cache=str(tmp_path / "cache"))
        for name in "ab"
    )
    with pytest.raises(SystemExit):
        run(first, lambda event: None)
    assert run(second, lambda event: None) == 0
    assert tuned == ["tuned", "tuned-1", "tuned-2", "tuned", "tuned-2", "refitted"]


@pytest.mark.parametrize(
    ("mode", "wrong", "tuned"), [("auto", 0, False), ("auto", 1, False), ("auto", 30, True), ("contrastive", 0, True)]
)
def test_auto_tunes_nothing_where_even_an_encoder_without_errors_would_not_be_seen_to_lead(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, wrong: int, tuned: bool
) -> None:
    def folds(self: EncoderComparison) -> list[encoder_comparison.Fold]:
        whole, rows = self._whole, np.arange(len(self._whole.texts))
        return [encoder_comparison.Fold(rows, np.where(rows < wrong, (whole.y + 1) % len(whole.labels), whole.y))]

    monkeypatch.setattr(EncoderComparison, "_folds", folds)
    tuning = Mock(side_effect=TrainingError("out_of_time", "enough"))
    monkeypatch.setattr(EncoderComparison, "_tune_and_compare", tuning)
    directory = job(tmp_path / "job", encoder, labelled(20), hyperparameters=TUNED | {"mode": mode})
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == (FAILED if mode == "contrastive" else 0)
    assert tuning.called == tuned
    said = [event.get("message", "") for event in events]
    explained = (
        f"no tuned encoder: the frozen one is wrong on {wrong} of 60 rows, so even an encoder without "
        f"errors would show no clear lead"
    )
    assert any(explained in message for message in said) == (not tuned)


@pytest.mark.parametrize(
    ("given", "told"), [({}, "macro-F1"), ({"metric": "accuracy", "confidence": 0.95}, "accuracy")]
)
def test_the_metric_and_confidence_asked_for_decide_whether_a_tuned_encoder_wins(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: str
) -> None:
    guess(monkeypatch)
    monkeypatch.setattr(encoder_comparison, "_FEW_ROWS", 0)
    lead = {"macro_f1": measures.Interval(0.3, 0.2, 0.4), "accuracy": measures.Interval(0.1, -0.1, 0.2)}
    asked: list[tuple[str, float]] = []

    def gain_in(metric: Metric, *rows: object, seed: int, level: float) -> measures.Interval:
        asked.append((metric, level))
        return lead[metric]

    monkeypatch.setattr(measures, "gain_in", gain_in)
    events: list[Mapping[str, Any]] = []
    assert run(job(tmp_path / "job", encoder, labelled(8), hyperparameters=TUNED | given), events.append) == 0
    said = next(event["message"] for event in events if "that it was not tuned on" in event.get("message", ""))
    assert said.startswith(f"contrastive: {told} on ")
    assert said.endswith(
        "wins" if not given else "95 % interval -0.1000 to +0.2000: does not win; the frozen encoder stays"
    )
    assert set(asked) == {("accuracy", 0.95) if given else ("macro_f1", 0.8)}
    assert read(tmp_path / "job" / "result.json")["encoder"] == ("base" if given else "own")


def test_the_report_compares_in_the_metric_that_decides(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess(monkeypatch)
    monkeypatch.setattr(encoder_comparison, "_FEW_ROWS", 0)
    directory = job(tmp_path / "job", encoder, labelled(20), hyperparameters=TUNED | {"metric": "accuracy"})
    assert run(directory, lambda event: None) == 0
    findings = [finding for rung in read(directory / "report.json")["rungs"] for finding in rung["findings"]]
    told = next(finding["message"] for finding in findings if finding["check"] == "against_frozen")
    held = int(read(directory / "result.json")["metrics"]["held_out_rows"])
    assert told.startswith(f"Accuracy on {held} rows")


def test_many_rows_are_judged_by_the_held_out_ones_alone(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess(monkeypatch)
    monkeypatch.setattr(encoder_comparison, "_FEW_ROWS", 59)
    directory = job(tmp_path / "job", encoder, labelled(20), hyperparameters=TUNED)
    events: list[Mapping[str, Any]] = []
    assert run(directory, events.append) == 0
    held = int(read(directory / "result.json")["metrics"]["held_out_rows"])
    assert any(f"macro-F1 on {held} rows that it was not tuned on" in event.get("message", "") for event in events)
    assert (directory / "result" / "encoder").is_dir()
    assert not (directory / "result" / "judged").exists()


@pytest.mark.parametrize("kind", ["plain", "labelled", "with anomalies"])
def test_an_anomaly_job_takes_plain_and_labelled_texts(encoder: Path, tmp_path: Path, kind: str) -> None:
    chance = random.Random(5)
    rows: list[Row] = labelled(40) if kind != "plain" else [{"text": words("abcde", chance)} for _ in range(120)]
    if kind == "with anomalies":
        rows = [row | {"label": "normal"} for row in rows] + [
            {"text": words("!?.,-", chance), "label": "anomaly"} for _ in range(10)
        ]
    directory = job(tmp_path / "job", encoder, rows, task="anomaly", hyperparameters={})
    assert run(directory, lambda event: None) == 0
    result = read(directory / "result.json")
    assert result["labels"] == []
    assert 0 <= result["metrics"]["false_alarm_rate_0.05"] <= 0.3
    assert ("auroc" in result["metrics"]) == (kind == "with anomalies")
    assert len(result["golden"]["rows"][0]) == 1
    assert sorted(path.name for path in (directory / "result").iterdir()) == ["detector.json", "detector.safetensors"]
    checks = [found["check"] for found in findings(directory)]
    assert {"false_alarm_rate_0.05", "detector_choice"} <= set(checks)


def findings(directory: Path) -> list[dict[str, Any]]:
    """Those of a report's last rung."""
    outcome = {rung["rung"]: rung for rung in read(directory / "report.json")["rungs"]}["outcome"]
    found: list[dict[str, Any]] = outcome["findings"]
    return found


def test_energy_without_labels_is_refused(encoder: Path, tmp_path: Path) -> None:
    rows = [{"text": words("abcde", random.Random(index))} for index in range(30)]
    error = failure(job(tmp_path / "job", encoder, rows, task="anomaly", hyperparameters={"detector": "energy"}))
    assert error["param"] == "method.supervised.hyperparameters.detector"
    assert "needs normal rows of two labels" in error["message"]
    rows = [row | {"label": "one"} for row in rows]
    error = failure(job(tmp_path / "one", encoder, rows, task="anomaly", hyperparameters={"detector": "energy"}))
    assert "the file has fewer" in error["message"]


@pytest.mark.parametrize(
    ("rows", "more", "code", "param"),
    [
        ([], {}, None, "training_file"),
        ([{"text": f"text {index}", "label": "one"} for index in range(9)], {}, "one_class", "training_file"),
        (
            labelled(5),
            {"hyperparameters": {"epochs": 3}},
            "unknown_hyperparameter",
            "method.supervised.hyperparameters.epochs",
        ),
        (labelled(5), {"task": "poetry"}, "unknown_task", "method.supervised.task"),
        ([{"text": f"text {index}"} for index in range(9)], {}, "wrong_row_kind", "training_file"),
        (labelled(5), {"base_spec": "/nowhere"}, "model_source", "model"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(
    encoder: Path, tmp_path: Path, rows: list[Row], more: dict[str, Any], code: str | None, param: str
) -> None:
    directory = job(tmp_path / "job", encoder, rows, **more)
    error = failure(directory)
    assert error["param"] == param
    assert code in (None, error["code"])
    assert error["message"]
    assert read(directory / "report.json")["object"] == "fine_tuning.report"


def test_a_job_file_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{")
    assert failure(tmp_path)["code"] == "invalid_job"


def test_a_full_disk_is_told_as_such(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LinearHead, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LinearHead, "save", full)
    assert run(job(tmp_path / "job", encoder, labelled(10)), lambda event: None) == FULL


def test_a_disk_that_the_cache_has_filled_is_one(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = EmbeddingCache._connect

    def cramped(self: EmbeddingCache) -> sqlite3.Connection:
        database = connect(self)
        database.execute("PRAGMA max_page_count = 4")
        return database

    monkeypatch.setattr(EmbeddingCache, "_connect", cramped)
    assert run(job(tmp_path / "job", encoder, labelled(10)), lambda event: None) == FULL


def allocate_with_numpy(*_: object) -> None:
    np.empty(10**15)


def allocate_with_torch(*_: object) -> None:
    torch.empty(10**15)


@pytest.mark.parametrize("allocate", [allocate_with_numpy, allocate_with_torch])
def test_memory_that_the_machine_has_not_ends_the_job_and_not_the_attempt(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocate: Callable[..., None]
) -> None:
    monkeypatch.setattr("models.training.run.read_split", allocate)
    error = failure(job(tmp_path / "job", encoder, labelled(5)))
    assert error["code"] == "out_of_memory"
    assert "train on fewer or shorter rows, set a smaller batch_size" in error["message"]


@pytest.mark.real
@pytest.mark.parametrize(("error", "code"), [("slip", FAILED), ("fault", 1)])
def test_a_slip_of_ours_ends_the_job_and_a_fault_of_the_machine_the_attempt(
    encoder: Path, tmp_path: Path, error: str, code: int
) -> None:
    directory = job(tmp_path / "job", encoder, labelled(5))
    command = [sys.executable, "-m", "tests.support.failing_trainer", error, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback (most recent call last)" in done.stderr
    assert (directory / "report.json").is_file()
    assert (directory / "error.json").exists() == (code == FAILED)
    if code == FAILED:
        told = read(directory / "error.json")
        assert (told["code"], told["param"]) == ("trainer_crashed", None)
        assert (
            "a fault of Sonde's own, which another attempt would meet again: IndexError: of ours xxx" in told["message"]
        )
        assert "…; the worker's log has the traceback" in told["message"]
        assert len(told["message"]) < 500


@pytest.mark.real
def test_the_process_speaks_json_lines_alone_on_standard_output(encoder: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "job", encoder, labelled(10))
    done = subprocess.run(
        [sys.executable, "-m", "models.training.run", str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["type"] for line in done.stdout.splitlines()} >= {"phase", "message"}
    assert (directory / "result.json").is_file()


def test_a_head_on_a_tuned_encoder_takes_it_along(encoder: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "job", encoder, labelled(10), keep_encoder=True)
    assert run(directory, lambda event: None) == 0
    assert read(directory / "result.json")["encoder"] == "own"
    kept, there = (path / "model.safetensors" for path in (directory / "result/encoder", encoder))
    assert kept.read_bytes() == there.read_bytes()
    assert LinearHead.load(directory / "result").labels == tuple(sorted(ALPHABETS))


def tuned_step(event: Mapping[str, Any]) -> int | None:
    """The step of the tuning loop that an event tells of."""
    return event["data"]["step"] if event["type"] == "metrics" and event["data"].get("loss") is not None else None


@pytest.mark.real
def test_a_job_that_was_paused_while_it_tuned_ends_as_one_that_was_not(encoder: Path, tmp_path: Path) -> None:
    """What the worker does: SIGTERM, and another attempt from the checkpoint. A validation file means one tuning."""
    tuning = {"mode": "contrastive", "n_epochs": 3, "batch_size": 8}
    rows = labelled(40), labelled(10, seed=1)
    one, paused, resumed = (
        job(tmp_path / name, encoder, *rows, hyperparameters=tuning) for name in ("one", "paused", "resumed")
    )
    unbroken: list[Mapping[str, Any]] = []
    assert run(one, unbroken.append) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "models.training.run", str(paused)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = map(json.loads, process.stdout)
    assert next(step for event in said if (step := tuned_step(event)))
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(30) == 143
    process.stdout.close()
    [checkpoint] = paused.rglob("checkpoints/step-*")
    job(resumed, encoder, *rows, hyperparameters=tuning, checkpoint=str(checkpoint))
    told: list[Mapping[str, Any]] = []
    assert run(resumed, told.append) == 0
    assert next(step for event in told if (step := tuned_step(event))) == int(checkpoint.name.removeprefix("step-")) + 1
    for file in ("head.safetensors", "detector.safetensors"):
        assert (resumed / "result" / file).read_bytes() == (one / "result" / file).read_bytes()
    assert read(resumed / "result.json")["metrics"] == read(one / "result.json")["metrics"]
    [measured] = (event["message"] for event in unbroken if event.get("message", "").startswith("contrastive: "))
    assert measured in [event.get("message") for event in told]


@pytest.mark.real
def test_sigterm_ends_the_process_with_143_and_no_result(encoder: Path, tmp_path: Path) -> None:
    directory = job(tmp_path / "job", encoder, labelled(2000))
    process = subprocess.Popen(
        [sys.executable, "-m", "models.training.run", str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "validating_files" in process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(30) == 143
    process.stdout.close()
    assert not (directory / "result.json").exists()
    assert not (directory / "error.json").exists()
    assert (directory / "report.json").is_file()
