"""Where images are decoded: by the runners that compute them, or in the pool."""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Sequence

import pytest
import torch
from fastapi.testclient import TestClient

from models.images.pixels import Pixels
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits
from service.serving.image_model import ReadsImages
from service.serving.servable import Caller
from service.serving.unread_image import UnreadImage
from tests.fakes.image import FakeDetector, FakeImages
from tests.support.app import MakeApp
from tests.support.images import encoded, picture
from tests.support.tiny_image_models import processor

RED, BLUE = (b64encode(encoded(picture(40, 30, seed=seed))).decode() for seed in (1, 2))


class NotedProcessor(ImageProcessor):
    """A processor that notes which threads read images."""

    def __init__(self, *, whole_size: bool) -> None:
        super().__init__(processor("vit"), "images", whole_size=whole_size)
        self.threads: list[str] = []

    def read(self, data: bytes, limits: ImageLimits, param: str, key: bytes = b"") -> Pixels:
        self.threads.append(threading.current_thread().name.rstrip("-_0123456789"))
        return super().read(data, limits, param, key)


def noted(model: FakeImages) -> NotedProcessor:
    """The processor of a model, which notes its threads from now on."""
    model.images = made = NotedProcessor(whole_size=isinstance(model, FakeDetector))
    return made


@pytest.mark.parametrize(
    ("model", "threads", "path", "expected"),
    [
        (FakeImages(), 1, "/v1/embeddings", "engine-images"),
        (FakeImages(), 2, "/v1/embeddings", "tokenize"),
        (FakeDetector(), 1, "/v1/detect", "tokenize"),
    ],
    ids=["a runner of one thread", "a runner of two", "the size is answered"],
)
def test_a_runner_of_one_thread_decodes_the_images_that_it_computes(
    model: FakeImages, threads: int, path: str, expected: str, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    read = noted(model)
    app = make_app(runners=1)
    app.state.manager.add_images(model)
    with TestClient(app) as client:
        answer = client.post(path, json={"images": [RED, BLUE]})
    assert answer.status_code == 200, answer.text
    assert read.threads == [expected] * 2


def test_a_cached_image_is_not_decoded_again(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = FakeImages()
    read = noted(model)
    app = make_app(cache_mb=1)
    app.state.manager.add_images(model)
    with TestClient(app) as client:
        first = client.post("/v1/embeddings", json={"images": [RED]}).json()
        again = client.post("/v1/embeddings", json={"images": [BLUE, RED]}).json()
    assert len(read.threads) == 2
    assert again["data"][1]["embedding"] == first["data"][0]["embedding"] != again["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("image", "status"),
    [(b64encode(encoded(picture(40, 30))[:200]).decode(), 422), ("no-base64!", 422), ("bm8gaW1hZ2U=", 415)],
    ids=["cut off", "no base64", "no image"],
)
def test_an_error_names_the_image_that_a_runner_could_not_read(
    image: str, status: int, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    app = make_app()
    app.state.manager.add_images(FakeImages())
    with TestClient(app) as client:
        alone = client.post("/v1/embeddings", json={"images": [image]})
        beside = client.post("/v1/embeddings", json={"images": [RED, image]})
    assert [(one.status_code, one.json()["error"]["param"]) for one in (alone, beside)] == [
        (status, "images[0]"),
        (status, "images[1]"),
    ]


CUT_OFF = b64encode(encoded(picture(40, 30))[:200]).decode()
NO_IMAGE = b64encode(b"no image").decode()


@pytest.mark.parametrize("model", [FakeImages(), FakeDetector()], ids=["in runners", "in the pool"])
@pytest.mark.parametrize(
    ("images", "first"),
    [
        ([RED, CUT_OFF, NO_IMAGE], "images[1]"),
        ([CUT_OFF, "no-base64!", RED], "images[0]"),
        ([RED, NO_IMAGE, CUT_OFF], "images[1]"),
        ([RED, BLUE, "no-base64!"], "images[2]"),
    ],
)
def test_of_several_broken_images_the_first_is_named(
    model: FakeImages, images: list[str], first: str, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    app = make_app()
    app.state.manager.add_images(model)
    path = "/v1/detect" if isinstance(model, FakeDetector) else "/v1/embeddings"
    with TestClient(app) as client:
        answer = client.post(path, json={"images": images})
    assert answer.json()["error"]["param"] == first


def test_the_first_broken_image_is_named_where_runners_read_a_later_one_first(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_from_the_end(self: ReadsImages, items: Sequence[UnreadImage], caller: Caller) -> None:
        for item in reversed(items):
            item.prepared()

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(ReadsImages, "_compute_rows", read_from_the_end)
    app = make_app()
    app.state.manager.add_images(FakeImages())
    with TestClient(app) as client:
        answer = client.post("/v1/embeddings", json={"images": [RED, CUT_OFF, BLUE, CUT_OFF, RED]})
    assert answer.json()["error"]["param"] == "images[1]"


def test_base64_is_decoded_once(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def count(text: str, **options: bool) -> bytes:
        decoded.append(text)
        return b64decode(text)

    monkeypatch.setattr("service.api.schemas.images.b64decode", count)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    app = make_app()
    app.state.manager.add_images(FakeImages())
    with TestClient(app) as client:
        client.post("/v1/embeddings", json={"images": [RED, BLUE]}).raise_for_status()
    assert decoded == [RED, BLUE]
