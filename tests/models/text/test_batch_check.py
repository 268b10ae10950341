"""A text alone has the row that it has in company, whatever the network does with padding."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.batch_check import OneByOne
from models.text.model import TextModel
from models.text.sequence_classifier import SequenceClassifier
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU32 = place("cpu", "float32")
TEXTS = ["a card", "the card is 12 days late, where is it?", "x"]


def alone_and_together(model: TextModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    tokens = model.text.encode(TEXTS)
    return np.concatenate([model.forward([item]) for item in tokens]), model.forward(tokens)


def require_same_in_company(model: TextModel) -> None:
    alone, together = alone_and_together(model)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pad_token_id", [0, 5])
def test_a_decoder_is_padded_by_the_token_of_its_configuration(tmp_path: Path, pad_token_id: int) -> None:
    model = load(locate(str(tiny_models.decoder_classifier(tmp_path / "model", pad_token_id=pad_token_id))), CPU32)
    assert isinstance(model, SequenceClassifier)
    require_same_in_company(model)
    assert not model.metadata.one_by_one
    assert model.metadata.batches.startswith("texts share batches")


@pytest.mark.parametrize("tokenizer_pads", [True, False])
def test_a_decoder_without_padding_token_computes_one_text_at_a_time_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tokenizer_pads: bool
) -> None:
    path = tiny_models.decoder_classifier(tmp_path / "mine", pad_token_id=None, tokenizer_pads=tokenizer_pads)
    with caplog.at_level(logging.WARNING, "models.text.batch_check"):
        model = load(locate(str(path)), CPU32)
    require_same_in_company(model)
    assert model.metadata.one_by_one
    assert not model.metadata.pads
    assert "no padding token is defined" in model.metadata.batches
    assert "model mine computes one text at a time" in caplog.text


@pytest.mark.parametrize("make", [tiny_models.mobilebert, tiny_models.convolution])
def test_encoders_that_read_padding_compute_one_text_at_a_time(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = load(locate(str(make(tmp_path))), CPU32)
    require_same_in_company(model)
    assert isinstance(model, OneByOne)
    assert "a text's row depends on the others" in model.metadata.batches


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_other_encoders_share_batches(tmp_path: Path, architecture: tiny_models.Architecture) -> None:
    model = load(locate(str(tiny_models.encoder(tmp_path / "model", architecture))), CPU32)
    require_same_in_company(model)
    assert not model.metadata.one_by_one


@pytest.mark.parametrize("make", [tiny_models.classifier, tiny_models.cross_encoder])
def test_classifiers_and_cross_encoders_share_batches(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = load(locate(str(make(tmp_path / "model"))), CPU32)
    assert model.metadata.batches == (
        "texts share batches, their rows are those of texts alone; checked up to its limit of 64 tokens"
    )


def test_a_model_that_fails_at_its_own_limit_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = locate(f"mine={tiny_models.classifier(tmp_path / 'model')}")
    monkeypatch.setattr("models.text.sequence_classifier.longest_input", lambda config, stated: 90)
    with pytest.raises(ModelSourceError, match="mine: expected a row for a text of 90 tokens"):
        load(source, CPU32)


def test_a_model_that_gives_nan_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate(f"mine={tiny_models.classifier(tmp_path / 'model')}")

    def nan(self: object, batch: list[object]) -> NDArray[np.float32]:
        return np.full((len(batch), 3), torch.nan, dtype=np.float32)

    monkeypatch.setattr(SequenceClassifier, "forward", nan)
    with pytest.raises(ModelSourceError, match="mine: expected finite numbers"):
        load(source, CPU32)
