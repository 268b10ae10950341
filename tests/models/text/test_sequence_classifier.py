"""Cross-encoders and sequence classifiers give the scores that their libraries give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import pipeline

from models.errors import ModelSourceError
from models.loader import load
from models.probabilities import probabilities
from models.runtime.placement import place
from models.source import locate
from models.text.sequence_classifier import SequenceClassifier, relevance
from tests.support import tiny_models
from tests.support.preemption import Calling

pytestmark = pytest.mark.slow

CPU32 = place("cpu", "float32")
PAIRS = [("a card", "the card is here"), ("a card", "x"), ("a", "b " * 40)]


def test_a_cross_encoder_equals_sentence_transformers(tmp_path: Path) -> None:
    path = tiny_models.cross_encoder(tmp_path / "model")
    model = load(locate(str(path)), CPU32)
    assert (model.metadata.task, model.metadata.width, model.metadata.labels) == ("rerank", 1, ())
    scores = relevance(model.forward(model.text.encode_pairs(PAIRS)))
    np.testing.assert_allclose(scores, CrossEncoder(str(path), device="cpu").predict(PAIRS), atol=1e-5)


def test_a_saved_cross_encoder_keeps_its_length(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    CrossEncoder(str(tiny_models.cross_encoder(tmp_path / "model")), device="cpu", max_length=20).save_pretrained(
        str(path)
    )
    assert load(locate(str(path)), CPU32).text.max_tokens == 20


def test_a_classifier_equals_transformers(tmp_path: Path) -> None:
    path = tiny_models.classifier(tmp_path / "model")
    model = load(locate(str(path)), CPU32)
    assert (model.metadata.task, model.metadata.labels, model.metadata.multi_label) == (
        "classification",
        ("good", "bad", "odd"),
        False,
    )
    texts = ["a card", "the the card", "x"]
    scores = probabilities(model.forward(model.text.encode(texts)), multi_label=False)
    expected = [
        {entry["label"]: entry["score"] for entry in line}
        for line in pipeline("text-classification", str(path), device="cpu")(texts, top_k=None)
    ]
    for line, wanted in zip(scores, expected, strict=True):
        np.testing.assert_allclose(line, [wanted[label] for label in model.metadata.labels], atol=1e-5)


def test_labels_that_exclude_nothing_are_scored_one_by_one(tmp_path: Path) -> None:
    path = tiny_models.classifier(tmp_path / "model", problem_type="multi_label_classification")
    assert load(locate(str(path)), CPU32).metadata.multi_label
    logits = np.array([[0.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, multi_label=True), [[0.5, 0.880797]], atol=1e-6)
    assert probabilities(logits, multi_label=False).sum() == pytest.approx(1)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model = load(locate(str(tiny_models.classifier(tmp_path / "model"))), CPU32)
    items = model.text.encode(["a", "the card " * 8])
    alone = np.concatenate([model.forward([item]) for item in items])
    np.testing.assert_allclose(model.forward(items), alone, rtol=1e-3, atol=1e-3)


def test_others_may_run_between_two_layers(tmp_path: Path) -> None:
    model = load(locate(str(tiny_models.classifier(tmp_path / "model"))), CPU32)
    seen: list[bool] = []
    model.forward(model.text.encode(["a"]), Calling(lambda: seen.append(torch.is_grad_enabled())))
    assert seen == [False, False]


def test_a_broken_classifier_is_a_clear_error(tmp_path: Path) -> None:
    path = tiny_models.classifier(tmp_path / "model")
    (path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelSourceError, match=r"model\.safetensors: expected a header within its 10 bytes"):
        SequenceClassifier(locate(str(path)), CPU32)


def test_a_directory_without_any_model_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelSourceError, match=r"expected config\.json or modules\.json"):
        load(locate(str(tmp_path)), CPU32)
