"""int8 at load: what it is compared with, what is said of it, and where it is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from models.errors import ModelError
from models.loader import load
from models.runtime import placement
from models.runtime.fbgemm import has_fbgemm
from models.runtime.placement import Placement, place
from models.runtime.product_autotune import ProductAutotune, ProductTimes
from models.source import ModelSource, locate
from models.text.encoder import Encoder
from models.text.packed import encoder, linear
from models.text.packed.encoder import PackedEncoder
from tests.models.text.packed.test_int8 import CPU32, cosines, int8, rough_model, texts
from tests.support import tiny_models

pytestmark = [
    pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here"),
    pytest.mark.usefixtures("layers_in_python"),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return rough_model(tmp_path_factory.mktemp("int8") / "model", "bert")


def test_the_metadata_says_int8_how_near_it_is_and_what_it_gains(bert: ModelSource) -> None:
    metadata = load(bert, int8()).metadata
    assert metadata.dtype == "int8"
    assert metadata.reason == "device cpu as asked; int8 as asked"
    assert 0.99 <= float(metadata.forward.removeprefix("packed: least cosine to the general forward pass ")) < 0.9999999
    assert any("of the time of" in note and "timed at load" in note for note in metadata.notes)


@pytest.mark.parametrize(("share", "warned"), [(0.5, 0), (1.5, 1)])
def test_where_it_gains_nothing_the_log_says_so(
    bert: ModelSource, share: float, warned: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter([1.0, share])
    monkeypatch.setattr(encoder, "_forward_seconds", lambda network, layout: next(times))
    with caplog.at_level(logging.WARNING, "models.text.packed.encoder"):
        model = PackedEncoder(bert, int8())
    assert len([line for line in caplog.records if line.name == encoder.__name__]) == warned
    assert model.metadata.notes[0].startswith(f"int8 takes {share:.2f} of the time of ")


def test_it_is_compared_with_what_the_machine_would_take_otherwise(
    bert: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ProductTimes(1.0, 1.0)
    monkeypatch.setattr(placement, "autotune_products", lambda: ProductAutotune(ProductTimes(0.4, 0.4), one, one))
    monkeypatch.setattr(linear, "has_onednn", lambda: False)  # whose bfloat16 really needs such a processor
    model = PackedEncoder(bert, int8())
    assert "of the time of bfloat16 for" in model.metadata.notes[0]
    batch = texts([3, 20], model.metadata.vocabulary)
    assert cosines(model.forward(batch), PackedEncoder(bert, CPU32).forward(batch)).min() > 0.98


def test_a_device_that_is_no_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelError, match="int8 is for CPUs, and models compute on cuda"):
        place("auto", "int8")


def test_a_pytorch_without_the_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.runtime.placement.has_fbgemm", lambda: False)
    with pytest.raises(ModelError, match="int8 needs fbgemm, which PyTorch does not have"):
        place("cpu", "int8")


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="int8 is for encoders, and this is a sequence classifier"):
        load(locate(str(tiny_models.classifier(tmp_path / "model"))), int8())


def test_an_encoder_that_is_not_packed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="packed forward pass, and its architecture is modernbert: set another dtype"):
        load(locate(str(tiny_models.encoder(tmp_path / "model", "modernbert"))), int8())


def test_vectors_that_are_too_far_off_are_refused(bert: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "quantize", lambda network, layout: network.norm.bias.add_(1))
    with pytest.raises(ModelError, match="the packed forward pass differs, least cosine"):
        load(bert, int8())


def test_the_comparison_is_with_float32(bert: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def noted(source: ModelSource, placement: Placement) -> object:
        taken.append(placement.dtype_name)
        return Encoder(source, placement)

    monkeypatch.setattr(encoder, "Encoder", noted)
    load(bert, int8())
    assert taken == ["float32"]
