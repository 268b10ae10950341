"""Trained models: loaded only when every hash, the base and the golden inputs are right, and what they then answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import ArtifactError, NotRegistered
from models.probabilities import probabilities
from models.registry.artifact import Golden
from models.registry.golden_rows import compare
from models.registry.registry import Registry
from models.text.golden_texts import reproduce
from models.text.lexical_head import LexicalHead, WordPieces
from service.config import Settings
from service.metrics import Metrics
from service.serving.fine_tuned import FineTunedModel
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller
from tests.fakes.model import FakeModel
from tests.support.app import open_manager
from tests.support.artifacts import MANIFEST, NAME, staging
from tests.support.trained_models import NORMAL, TEXTS, golden, open_fake_encoders, own_encoder, train

BASE = FakeModel("fake")
CLASSIFIER = FakeModel("intents", task="classification", labels=("yes", "no"))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ModelManager]:
    manager = open_manager(Settings.read({"home": tmp_path, "device": "cpu"}), Metrics(), BASE, CLASSIFIER)
    yield manager
    manager.close()


@pytest.fixture
def registry(manager: ModelManager) -> Registry:
    return manager.registry


def load(manager: ModelManager, version: int, name: str = NAME) -> FineTunedModel:
    loaded = manager.watcher._load(name, version)
    assert isinstance(loaded, FineTunedModel)
    return loaded


def rows_of(trained: FineTunedModel, *texts: str) -> Any:
    return asyncio.run(trained.rows(list(texts), Caller(), "classification")).values


def test_a_head_shares_its_bases_engine(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE))
    base = manager.find("fake")
    assert trained.engine is base.engine
    assert not trained.owns_engine
    assert np.array_equal(rows_of(trained, *TEXTS), BASE.forward(BASE.text.encode(TEXTS)))
    assert trained.memory_bytes() == base.memory_bytes()


def test_its_metadata_is_its_own(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE))
    metadata = trained.metadata
    assert (trained.label, metadata.name, metadata.version, metadata.task) == (
        f"{NAME}:v1",
        NAME,
        "v1",
        "classification",
    )
    assert (metadata.labels, metadata.width, metadata.max_tokens) == (("v1", "other"), 2, 32)
    assert metadata.origin == "trained on fake 0"
    assert metadata.signature()["outputs"] == [{"name": "scores", "dtype": "float32", "shape": ["n", 2]}]
    assert manager.find("fake").metadata.task == "embedding"


def test_probabilities_come_from_its_head(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE))
    rows = rows_of(trained, "hello", "pizza")
    expected = rows.sum(axis=1) * 0.1
    logits = trained.logits(rows, trained.model.text.encode(["hello", "pizza"]))
    assert logits == pytest.approx(np.stack([expected + 3, expected - 3], axis=1), abs=1e-5)
    assert probabilities(logits, multi_label=False)[:, 0] == pytest.approx([1 / (1 + np.exp(-6))] * 2, abs=1e-5)


def test_a_head_with_words_is_served_as_it_was_trained(
    manager: ModelManager, registry: Registry, tmp_path: Path
) -> None:
    staged = staging(tmp_path / "staged", {"report.md": "# report"})
    pieces = WordPieces.fit(BASE.text.encode(["lost card", "lost card", "pizza", "pizza"]))
    words = torch.stack([torch.arange(len(pieces.keys)), torch.zeros(len(pieces.keys))], dim=1)
    LexicalHead(torch.zeros(2, BASE.metadata.width), torch.zeros(2), pieces, words, ("a", "b")).save(staged)
    manifest = replace(MANIFEST, version=1, base="fake", base_version=BASE.metadata.version, labels=("a", "b"))
    manifest = replace(manifest, golden=golden(staged, manifest, BASE))
    trained = load(manager, registry.publish(NAME, staged, lambda number: manifest))
    rows = asyncio.run(trained.rows(["lost card", "rain"], Caller(), "classification"))
    said, unsaid = trained.logits(rows.values, rows.tokens)
    assert said[0] > 1
    assert unsaid.tolist() == [0, 0]


def test_without_a_detector_it_judges_nothing(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE))
    assert (trained.score(rows_of(trained, "hello")), trained.calibrated_on, trained.threshold(0.05)) == (None, 0, None)


def test_with_a_detector_it_does(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE, task="anomaly", labels=()))
    verdict = trained.score(rows_of(trained, NORMAL[3], "pizza weather rain"))
    assert verdict is not None
    assert (verdict.p_values <= 0.05).tolist() == [False, True]
    assert trained.calibrated_on == 40
    assert trained.metadata.signature()["outputs"] == [{"name": "score", "dtype": "float32", "shape": ["n", 1]}]


@pytest.mark.parametrize("task", ["embedding", "rerank", "classification", "anomaly"])
def test_an_encoder_of_its_own_has_an_engine_of_its_own(
    manager: ModelManager, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any
) -> None:
    made = open_fake_encoders(monkeypatch)
    trained = load(manager, own_with_parts(registry, tmp_path, task))
    try:
        assert trained.owns_engine
        assert trained.engine is not manager.find("fake").engine
        assert (trained.metadata.task, trained.label) == (task, f"{NAME}:v1")
        assert len(made) == 1
    finally:
        trained.engine.close()


def own_with_parts(registry: Registry, where: Path, task: str) -> int:
    """A version with its own encoder; classifiers and detectors sit on one that embeds."""
    if task in {"embedding", "rerank"}:
        return own_encoder(registry, where, seed=1, task=task)
    encoder = FakeModel(NAME, seed=1)
    files = {"encoder/config.json": '{"seed": 1, "task": "embedding", "labels": []}'}
    return train(registry, where, encoder, files=files, encoder="own", base="fake", base_version="0", task=task)


def test_a_tuned_sequence_classifier_needs_no_head(
    manager: ModelManager, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_fake_encoders(monkeypatch)
    trained = load(manager, own_encoder(registry, tmp_path, seed=1, task="classification", labels=("good", "bad")))
    try:
        rows = rows_of(trained, "hello")
        assert np.array_equal(trained.logits(rows, trained.model.text.encode(["hello"])), rows)
        assert trained.takes_pairs
    finally:
        trained.engine.close()


def write(name: str, content: str = "{}") -> Any:
    return lambda path: (path / name).write_text(content)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base": "elsewhere"}, "it is a head on elsewhere, which is not served here: start it with --model"),
        (
            {"base_version": "1" * 12},
            "it was trained on fake of version 111111111111, the one served is 0: train again",
        ),
        ({"base": "intents"}, "classification on the rows of a model for classification"),
        ({"task": "embedding", "labels": ()}, "embedding on the rows of a model for embedding"),
        ({"encoder": "own"}, "an encoder of its own, and there is none"),
        (
            {"golden": Golden(("hello",), ((0.5, 0.5),), 1e-3)},
            "golden inputs: differs by 0.498 from what it gave when it was",
        ),
        ({"golden": Golden(("hello",), ((1.0,),), 1e-3)}, r"golden inputs: expected shape \[1, 1\], got \[1, 2\]"),
        ({"golden": Golden(("hello", ("a", "b")), ((1.0,), (1.0,)), 1)}, "pairs and single texts"),
        ({"golden": Golden(("hello", "a"), ((1.0,), (1.0, 2.0)), 1)}, "rows of one length"),
    ],
)
def test_what_cannot_be_right_is_not_served(
    manager: ModelManager, registry: Registry, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    before = threading.active_count()
    version = train(registry, tmp_path, BASE, **change)
    with pytest.raises(ArtifactError, match=problem):
        load(manager, version)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (write("report.md", "changed"), "has SHA-256"),
        (lambda path: (path / "head.safetensors").unlink(), "is missing"),
        (write("more.json"), "not in the manifest"),
    ],
)
def test_a_damaged_artifact_is_not_served(
    manager: ModelManager, registry: Registry, tmp_path: Path, damage: Any, problem: str
) -> None:
    version = train(registry, tmp_path, BASE)
    damage(registry.path(NAME, version))
    with pytest.raises(ArtifactError, match=problem):
        load(manager, version)


def test_a_head_with_other_labels_than_its_manifest_is_not_served(
    manager: ModelManager, registry: Registry, tmp_path: Path
) -> None:
    staged = tmp_path / "ft-fake-team-intents-1"
    train(registry, tmp_path, BASE)
    version = registry.publish(NAME, staged, lambda number: replace(MANIFEST, version=number, labels=("a", "b")))
    with pytest.raises(ArtifactError, match="other labels than the manifest"):
        load(manager, version)


@pytest.mark.parametrize(("task", "problem"), [("classification", "has no head"), ("anomaly", "has no detector")])
def test_a_missing_part_is_named(
    manager: ModelManager, registry: Registry, tmp_path: Path, task: Any, problem: str
) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "report.md").write_text("")
    version = registry.publish(NAME, tmp_path / "staged", lambda number: replace(MANIFEST, task=task))
    with pytest.raises(ArtifactError, match=problem):
        load(manager, version)


def test_the_engine_of_an_encoder_that_fails_its_golden_inputs_is_ended(
    manager: ModelManager, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_fake_encoders(monkeypatch)
    before = threading.active_count()
    wrong = Golden(("hello",), ((1.0, *([0.0] * 15)),), 1e-3)
    version = own_encoder(registry, tmp_path, seed=1, golden=wrong)
    with pytest.raises(ArtifactError, match="golden inputs: differs"):
        load(manager, version)
    version = own_encoder(registry, tmp_path, seed=1, task="rerank")
    monkeypatch.setattr("models.loader.load", lambda source, placement: FakeModel(source.name, version=source.version))
    with pytest.raises(ArtifactError, match="its encoder does embedding"):
        load(manager, version)
    assert threading.active_count() == before


def test_a_rerankers_golden_texts_are_pairs(
    manager: ModelManager, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_fake_encoders(monkeypatch)
    version = own_encoder(
        registry, tmp_path, seed=1, task="rerank", golden=Golden(("query\ndocument",), ((0.5,),), 1.0)
    )
    with pytest.raises(ArtifactError, match=r"pairs \[query, document\], got single texts"):
        load(manager, version)


def test_without_golden_inputs_the_metadata_says_so(manager: ModelManager, registry: Registry, tmp_path: Path) -> None:
    trained = load(manager, train(registry, tmp_path, BASE, golden=Golden((), (), 0.0)))
    assert trained.metadata.notes == ("no golden inputs: its answers were not checked at load",)


def test_what_is_not_registered_is_not_loaded(manager: ModelManager) -> None:
    with pytest.raises(NotRegistered):
        load(manager, 1)


@pytest.mark.parametrize(
    ("dtype", "difference", "passes"), [("float32", 0.02, False), ("bfloat16", 0.02, True), ("bfloat16", 0.05, False)]
)
def test_a_reduced_precision_may_differ_more(dtype: str, difference: float, passes: bool) -> None:
    manifest = replace(MANIFEST, golden=Golden(("a",), ((0.5, 0.5),), 1e-3))
    got = np.array([[0.5 + difference, 0.5]], dtype=np.float32)
    if passes:
        compare(manifest, got, dtype)
    else:
        with pytest.raises(ArtifactError, match="differs by"):
            compare(manifest, got, dtype)


def test_not_a_number_is_no_answer() -> None:
    with pytest.raises(ArtifactError, match="differs by nan"):
        compare(MANIFEST, np.array([[np.nan, 0.75]], dtype=np.float32), "float32")


def test_embeddings_are_compared_as_directions() -> None:
    manifest = replace(MANIFEST, task="embedding", golden=Golden(("a",), ((3.0, 4.0),), 1e-6))
    compare(manifest, np.array([[0.6, 0.8]], dtype=np.float32), "float32")


def test_a_worker_can_check_the_golden_inputs_without_an_engine(registry: Registry, tmp_path: Path) -> None:
    version = train(registry, tmp_path, BASE)
    path, manifest = registry.path(NAME, version), registry.manifest(NAME, version)
    reproduce(path, manifest, BASE)
    reproduce(path, replace(manifest, golden=Golden((), (), 0.0)), BASE)
    with pytest.raises(ArtifactError, match="differs"):
        reproduce(path, replace(manifest, golden=replace(golden(path, manifest, BASE), rows=((0.5, 0.5),) * 3)), BASE)
