"""Models without some of their weights are refused by name; what no model needs, or is trained anew, may be missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.training.tuning.settings import TunerSettings
from models.training.tuning.trainable_cross_encoder import TrainableCrossEncoder
from tests.support import tiny_models

pytestmark = pytest.mark.slow


def _load(path: Path) -> None:
    load(locate(str(path)), place("cpu", "float32"))


def _drop(path: Path, *parts: str) -> list[str]:
    """Remove the weights whose names have one of the parts; their names."""
    weights = load_file(path / "model.safetensors")
    gone = [name for name in weights if any(part in name for part in parts)]
    assert gone
    save_file({name: value for name, value in weights.items() if name not in gone}, path / "model.safetensors")
    return gone


MODELS: dict[str, Callable[[Path], Path]] = {
    "a packed encoder": tiny_models.encoder,
    "a general encoder": lambda path: tiny_models.encoder(path, "modernbert", sees_whitespace=True),
    "an encoder with a Dense layer": lambda path: tiny_models.encoder(path, dense=16),
    "a plain transformer": tiny_models.transformer,
    "a classifier": tiny_models.classifier,
    "a cross-encoder": tiny_models.cross_encoder,
}
BODY = {"a general encoder": "layers.1.mlp.Wo", "": "layer.1.output.dense"}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_without_some_of_its_weights_is_refused_by_their_names(tmp_path: Path, kind: str) -> None:
    path = MODELS[kind](tmp_path / "model")
    _load(path)
    gone = _drop(path, BODY.get(kind, BODY[""]))
    with pytest.raises(ModelSourceError, match="|".join(gone)):
        _load(path)


@pytest.mark.parametrize("kind", MODELS)
def test_a_file_without_tensors_is_no_model(tmp_path: Path, kind: str) -> None:
    path = MODELS[kind](tmp_path / "model")
    save_file({}, path / "model.safetensors")
    with pytest.raises(ModelSourceError, match=r"missing|does not contain"):
        _load(path)


@pytest.mark.parametrize("kind", ["a classifier", "a cross-encoder"])
def test_a_classifier_without_its_head_is_refused(tmp_path: Path, kind: str) -> None:
    path = MODELS[kind](tmp_path / "model")
    _drop(path, "classifier.")
    with pytest.raises(
        ModelSourceError, match=r"expected all weights .* classifier\.bias, classifier\.weight are miss"
    ):
        _load(path)


@pytest.mark.parametrize("kind", ["an encoder with a Dense layer", "a plain transformer"])
def test_an_encoder_needs_no_pooler(tmp_path: Path, kind: str) -> None:
    path = MODELS[kind](tmp_path / "model")
    _drop(path, "pooler.")
    _load(path)


def test_a_head_that_is_to_be_trained_may_be_missing_and_its_encoder_may_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tiny_models.encoder(tmp_path / "model")
    _drop(path, "pooler.")
    TrainableCrossEncoder(locate(str(path)), place("cpu", "float32"), TunerSettings())
    gone = _drop(path, "layer.1.output.dense")
    with pytest.raises(ModelSourceError, match=gone[0]):
        TrainableCrossEncoder(locate(str(path)), place("cpu", "float32"), TunerSettings())
