"""Anomaly scores of images: by reference images, with a map of where, and what is refused."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pybase64
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from models.images.model import ImageModel
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from service.serving.model_manager import ModelManager
from service.serving.servable import Servable
from tests.support.app import MakeApp
from tests.support.images import encoded
from tests.support.tiny_image_models import image_encoder, text_image_encoder

pytestmark = pytest.mark.slow


def tile(seed: int, *, defect: bool = False) -> bytes:
    """A grey texture, and a dark spot in the upper left of a tile with a defect."""
    pixels = np.random.default_rng(seed).normal(150, 12, (64, 64, 3))
    if defect:
        pixels[8:24, 8:24] = 10
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


GOOD = [tile(seed) for seed in range(40)]
NEW = [tile(100), tile(101, defect=True)]


def base64(images: list[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in images]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[ImageModel]:
    root = tmp_path_factory.mktemp("models")
    paths = {
        "dino": image_encoder(root / "dino"),
        "resnet": image_encoder(root / "resnet", "resnet"),
        "clip": text_image_encoder(root / "clip"),
    }
    found = [load_images(locate(f"{name}={path}"), place("cpu", "float32")) for name, path in paths.items()]
    return [model for model in found if model is not None]


@pytest.fixture
def client(make_app: MakeApp, loaded: list[ImageModel]) -> Iterator[TestClient]:
    app = make_app()
    manager: ModelManager = app.state.manager
    for model in loaded:
        manager.add_images(model)
    with TestClient(app) as client:
        yield client


def score(client: TestClient, **fields: Any) -> Any:
    body = {"model": "dino", "images": base64(NEW), "reference": base64(GOOD), **fields}
    response = client.post("/v1/anomaly/score", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_each_image_is_decoded_and_the_model_found_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, named, resolve = list[str](), list[str | None](), ModelManager.resolve

    async def count(manager: ModelManager, name: str | None) -> Servable:
        named.append(name)
        return await resolve(manager, name)

    def note(text: str, *, validate: bool) -> bytes:
        decoded.append(text)
        return pybase64.b64decode(text, validate=validate)

    monkeypatch.setattr("service.api.schemas.images.b64decode", note)
    monkeypatch.setattr(ModelManager, "resolve", count)
    score(client)
    assert sorted(decoded) == sorted(base64(NEW + GOOD))
    assert named == ["dino"]


@pytest.mark.parametrize("model", ["dino", "resnet"])
@pytest.mark.parametrize("detector", ["padim", "patchcore"])
def test_a_defect_is_an_anomaly_and_another_good_image_is_not(client: TestClient, model: str, detector: str) -> None:
    found = score(client, model=model, detector=detector)
    good, bad = found["data"]
    assert (good["is_anomaly"], bad["is_anomaly"]) == (False, True)
    assert good["score"] < found["threshold"] <= bad["score"]
    assert found["reference"] == {"count": 40, "cached": False, "truncated": 0}


def test_a_form_gives_the_same_and_finds_the_detector_in_the_cache(client: TestClient) -> None:
    expected = score(client)
    files = [("images", ("a.png", one)) for one in NEW] + [("reference", ("b.png", one)) for one in GOOD]
    response = client.post("/v1/anomaly/score", data={"model": "dino"}, files=files)
    assert response.status_code == 200, response.text
    assert response.json()["data"] == expected["data"]
    assert response.json()["reference"]["cached"] is True


def test_the_map_shows_where(client: TestClient) -> None:
    _, bad = score(client, model="resnet", maps=True)["data"]
    head, content = bad["anomaly_map"].split(",")
    grey = np.asarray(Image.open(io.BytesIO(b64decode(content))))
    assert head == "data:image/png;base64"
    assert grey.shape == (32, 32)
    assert grey.max() > 200
    assert grey[:16, :16].mean() > grey[16:, 16:].mean() + 10
    assert score(client)["data"][1]["anomaly_map"] is None


def test_too_few_reference_images_for_alpha_are_said(client: TestClient) -> None:
    found = score(client, reference=base64(GOOD[:5]))
    assert found["threshold"] is None
    assert "send at least 19 images" in found["warnings"][0]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"reference": base64(GOOD[:2])}, "reference", "at least 3 images"),
        ({"reference": None}, "reference", "at least 3 images"),
        ({"reference": ["%", *base64(GOOD)]}, "reference[0]", "base64"),
        ({"reference": base64([*GOOD, b"no image"])}, "reference[40]", "bytes that begin with"),
        ({"images": ["https://a.example/b.png"]}, "images[0]", "Sonde fetches none"),
        ({"model": "clip"}, "model", "inner maps"),
        ({"model": "fake"}, "model", "models that do embedding with images: dino, resnet, clip"),
        ({"input": "a"}, "images", "exactly one of"),
        ({"images": None, "input": "a", "maps": True}, "maps", "goes with images"),
    ],
)
def test_wrong_requests_are_refused(client: TestClient, fields: dict[str, Any], param: str, words: str) -> None:
    body = {"model": "dino", "images": base64(NEW), "reference": base64(GOOD), **fields}
    response = client.post("/v1/anomaly/score", json=body)
    assert response.status_code in {415, 422}, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]
