"""Tuning of encoders of images: what trains, what is saved, and what tuning learns that no frozen encoder knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.errors import ModelError, ModelSourceError
from models.images.efficientnet_lite import EfficientNetLite0, fold, unfold
from models.images.model import ImageModel
from models.linalg import normalize
from models.loader import load_images
from models.runtime.placement import place
from models.source import ModelSource, locate
from models.training.context import ImageContext
from models.training.errors import TrainingError
from models.training.heads.linear_head import Examples, fit_plain, linear_logits
from models.training.images.store import ImageStore
from models.training.tuning.encoder_tuning import open_encoder
from models.training.tuning.image_networks import open_network
from models.training.tuning.labelled_tuning import LabelledTuning
from models.training.tuning.settings import TunerSettings
from models.training.tuning.trainable_image_encoder import TrainableImageEncoder
from tests.support.image_files import stripes
from tests.support.tiny_image_models import image_classifier, image_encoder, lite_encoder, text_image_encoder

pytestmark = pytest.mark.slow

CPU = place("cpu", "float32")
LORA, FULL = TunerSettings(mode="lora", lora_rank=4), TunerSettings()
_MAKE: dict[str, Callable[[Path], Path]] = {
    **{name: partial(image_encoder, architecture=name) for name in ("vit", "dinov2", "convnext", "resnet")},
    "clip": text_image_encoder,
    "lite": lite_encoder,
}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def source(kind: str, tmp_path: Path) -> ModelSource:
    return locate(f"tiny={_MAKE[kind](tmp_path / 'tiny')}")


def served(path: Path) -> ImageModel:
    model = load_images(locate(f"tiny={path}"), CPU)
    assert model is not None
    return model


def trained_names(encoder: TrainableImageEncoder) -> set[str]:
    return {name for name, parameter in encoder.network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, FULL) for kind in _MAKE] + [(kind, LORA) for kind in ("vit", "dinov2", "convnext", "clip")],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_what_is_saved_computes_what_was_trained(
    kind: str, settings: TunerSettings, store: ImageStore, tmp_path: Path
) -> None:
    base = source(kind, tmp_path)
    encoder = TrainableImageEncoder(base, CPU, settings, images=store)
    with torch.no_grad():
        for parameter in encoder.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    saved = served(encoder.save(tmp_path / "saved"))  # compares the embeddings of both
    assert saved.metadata.width == encoder.width
    image = [saved.images.prepare(Image.new("RGB", (64, 48), (200, 40, 10)))]
    before, after = (model.forward(image) for model in (served(base.path), saved))
    assert not np.array_equal(before, after), "it is the base that was saved"


def test_adapters_alone_train_and_a_text_tower_never_does(store: ImageStore, tmp_path: Path) -> None:
    names = trained_names(TrainableImageEncoder(source("clip", tmp_path), CPU, LORA, images=store))
    assert names
    assert all("lora_" in name for name in names)
    assert not any("text_model" in name for name in names)


@pytest.mark.parametrize("kind", ["vit", "resnet", "lite", "clip"])
def test_lower_layers_are_frozen_with_all_that_comes_before_them(kind: str, store: ImageStore, tmp_path: Path) -> None:
    base = source(kind, tmp_path)
    whole, part = (
        trained_names(TrainableImageEncoder(base, CPU, replace(FULL, frozen_layers=share), images=store))
        for share in (0.0, 0.5)
    )
    assert part < whole
    first, last = {
        "vit": ("embeddings", "layers.3"),
        "resnet": ("embedder", "stages.3"),
        "lite": ("_conv_stem", "_conv_head"),
        "clip": ("vision_model.embeddings", "vision_model.encoder.layers.1"),
    }[kind]
    assert not any(first in name for name in part)
    assert any(last in name for name in part)


@pytest.mark.parametrize("kind", ["resnet", "lite"])
def test_networks_of_convolutions_refuse_lora_and_say_what_to_do(kind: str, store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no linear layers for LoRA .*take mode full"):
        TrainableImageEncoder(source(kind, tmp_path), CPU, LORA, images=store)


def test_batch_normalization_keeps_its_statistics(store: ImageStore, tmp_path: Path) -> None:
    encoder = TrainableImageEncoder(source("resnet", tmp_path), CPU, FULL, images=store).train()
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert encoder.network.training


def test_only_encoders_are_tuned(tmp_path: Path) -> None:
    path = image_classifier(tmp_path / "tiny")
    with pytest.raises(TrainingError, match="expected an encoder of images to tune, got a classifier"):
        open_network(locate(f"tiny={path}"), CPU)


def test_unfolded_weights_fold_to_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folded = EfficientNetLite0().state_dict()
    again = fold(unfold(folded))
    assert again.keys() == folded.keys()
    for name, weight in folded.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-5, atol=1e-6)
    save_file(unfold(folded), tmp_path / "model.safetensors")  # refuses tensors that share memory


def test_tuning_learns_what_a_random_encoder_does_not_know(store: ImageStore, tmp_path: Path) -> None:
    base, taught, judged = source("resnet", tmp_path), 40, 50
    labels, keys, images = np.array(["down", "across"] * (taught + judged)), [], served(base.path).images
    for number in range(taught + judged):
        for key, drawn in ((f"d{number}", stripes("down", number)), (f"a{number}", stripes("across", number))):
            keys.append(key)
            store.add(key, key, images.prepare(drawn))

    def accuracy(path: Path) -> float:
        x = normalize(served(path).forward([store.pixels(key) for key in keys]))
        y = (labels == "down").astype(np.int64)
        head = fit_plain(Examples.of(x[: 2 * taught], y[: 2 * taught]), 30.0, ("across", "down"))
        return float(np.mean(linear_logits(head, x[2 * taught :]).argmax(axis=1) == y[2 * taught :]))

    tuning = LabelledTuning(
        base,
        CPU,
        keys[: 2 * taught],
        labels[: 2 * taught].tolist(),
        TunerSettings(epochs=10.0, batch_size=16, learning_rate=1e-2),
        lambda event: None,
        tmp_path / "tuning",
        open_encoder=partial(TrainableImageEncoder, images=store),
    )
    frozen, tuned = accuracy(base.path), accuracy(tuning.under_head())
    assert frozen < 0.7
    assert tuned > 0.85


def test_an_encoder_of_another_size_does_not_read_the_jobs_images(store: ImageStore, tmp_path: Path) -> None:
    """The version in service may have been tuned from a base that was larger then."""
    base, other, nothing = source("resnet", tmp_path), image_encoder(tmp_path / "other", "resnet"), cast(Any, None)
    context = ImageContext(nothing, tmp_path, nothing, nothing, base, CPU, None, nothing, served(base.path), store)
    assert open_encoder(context, other).width == served(other).metadata.width
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(settings | {"size": {"height": 48, "width": 48}}))
    with pytest.raises(ModelSourceError, match=r"an encoder of images of \(32, 32\), got one of \(48, 48\)"):
        open_encoder(context, other)
