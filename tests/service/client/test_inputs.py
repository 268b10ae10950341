"""Rows, tensors and images by the client, over an application with programs and models of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.client import BadInput, Client, Refused
from service.config import Settings
from tests.fakes.image import FakeDetector, FakeImages, FakeRecognizer
from tests.support.app import MakeApp, listening, opened
from tests.support.described_programs import LABELS, described
from tests.support.images import encoded, picture
from tests.support.pages import draw_page

X = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
TENSOR: Any = {"name": "x", "datatype": "FP32", "shape": [3, 16], "data": X.ravel().tolist()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of programs that do tasks."""
    folder = tmp_path_factory.mktemp("programs")
    models = [described(folder, name) for name in ("classes", "vectors", "strange")]
    settings = Settings.read({"home": folder / "home", "model": models})
    with opened(settings) as (app, _), listening(app) as url, Client(url) as client:
        yield client


@pytest.fixture
def of_images(make_app: MakeApp) -> Iterator[Client]:
    """A client of models of images."""
    app = make_app(host="127.0.0.1")
    for model in (FakeImages(), FakeDetector(), FakeRecognizer()):
        app.state.manager.add_images(model)
    with listening(app) as url, Client(url) as client:
        yield client


@pytest.mark.parametrize(
    "given",
    [
        {"rows": X.tolist()},
        {"rows": X},
        {"inputs": {"x": X}},
        {"inputs": {"x": torch.from_numpy(X)}},
        {"inputs": [TENSOR]},
    ],
)
def test_rows_arrays_and_tensors_are_classified_alike(client: Client, given: dict[str, Any]) -> None:
    found = client.classify(model="classes", **given).data
    expected = client.classify(model="classes", rows=X.tolist()).data
    assert [item.label for item in found] == [item.label for item in expected]
    assert {one.label for one in found[0].labels} == set(LABELS)


def test_tensors_are_embedded_and_scored(client: Client) -> None:
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    assert len(client.embed(model="vectors", inputs={"ids": ids}).vectors) == 2
    scores = client.anomaly(model="strange", rows=X[:2], alpha=0.1)
    assert (len(scores.data), scores.reference.count, scores.alpha) == (2, 39, 0.1)
    assert client.anomaly(model="strange", inputs={"x": X[:2]}, alpha=0.1).data == scores.data


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (lambda one: one.classify(model="m", inputs={"x": X.astype(np.float16)}), "x: expected one of the dtypes bool"),
        (lambda one: one.classify(model="m", inputs={"x": [1.0]}), "x: expected an array, got list"),
        (lambda one: one.detect("cat.png", model="m"), "images: expected a list of images, got str"),
        (lambda one: one.embed(images=[Path("none.png")], model="m"), "none.png: No such file"),
    ],
)
def test_what_cannot_be_sent_is_named(client: Client, send: Callable[[Client], Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        send(client)


def test_the_service_names_the_row_that_does_not_fit(client: Client) -> None:
    with pytest.raises(Refused, match=r"rows\[1\]: expected 2 numbers as rows\[0\] has, got 1") as refused:
        client.classify(model="classes", rows=[[1.0, 2.0], [3.0]])
    assert refused.value.param == "rows[1]"


def test_images_are_embedded_searched_and_read(of_images: Client, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(encoded(picture(81, 60)))
    [vector, same] = of_images.embed(images=[file, file.read_bytes()], model="images").vectors
    assert vector == same
    [found] = of_images.detect([file], model="objects", threshold=0.3, top_k=1).data
    assert (found.width, found.height, [one.label for one in found.objects]) == (81, 60, ["cat"])
    assert found.objects[0].box.ymax == 60
    [page] = of_images.ocr([encoded(draw_page(0, width=600, height=300).image)], model="reader").data
    assert len(page.lines) > 3
    assert page.text == "\n".join(line.text for line in page.lines)
