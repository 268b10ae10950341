"""Objects in images: boxes in pixels, thresholds, Hugging Face's form and the protocol's tensors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.metadata import ModelMetadata
from service.banner import Banner
from tests.fakes.image import FakeDetector, FakeImages
from tests.support.app import MakeApp
from tests.support.images import encoded, picture

DATA = encoded(picture(81, 60))
BASE64 = b64encode(DATA).decode()
CAT = {"xmin": 0.0, "ymin": 0.0, "xmax": 40.5, "ymax": 60.0}
DOG = {"xmin": 0.0, "ymin": 0.0, "xmax": 81.0, "ymax": 60.0}


@pytest.fixture
def client(make_app: MakeApp) -> Iterator[TestClient]:
    app = make_app()
    for model in (FakeImages(), FakeDetector()):
        app.state.manager.add_images(model)
    with TestClient(app) as client:
        yield client


def answer(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_objects_come_best_first_in_pixels(client: TestClient) -> None:
    found = answer(client.post("/v1/detect", json={"images": [BASE64], "threshold": 0.3}))
    [image] = found["data"]
    assert (found["model"], image["width"], image["height"]) == ("objects", 81, 60)
    assert [(one["label"], one["score"], one["box"]) for one in image["objects"]] == [
        ("cat", pytest.approx(0.9), CAT),
        ("dog", pytest.approx(0.4), DOG),
    ]


@pytest.mark.parametrize(
    ("fields", "labels"), [({}, ["cat"]), ({"threshold": 0.95}, []), ({"threshold": 0, "top_k": 1}, ["cat"])]
)
def test_the_request_says_which_are_wanted(client: TestClient, fields: dict[str, float], labels: list[str]) -> None:
    [image] = answer(client.post("/v1/detect", json={"images": BASE64, **fields}))["data"]
    assert [one["label"] for one in image["objects"]] == labels


def test_a_form_and_an_image_itself_are_read(client: TestClient) -> None:
    files = [("images", ("a.png", DATA)), ("images", ("b.png", encoded(picture(20, 20))))]
    found = answer(client.post("/v1/detect", data={"threshold": "0.3"}, files=files))
    assert [(image["index"], image["width"]) for image in found["data"]] == [(0, 81), (1, 20)]
    raw = client.post("/v1/detect?top_k=1", content=DATA, headers={"content-type": "image/png"})
    assert len(answer(raw)["data"][0]["objects"]) == 1


def test_images_turned_by_exif_have_boxes_as_they_are_seen(client: TestClient) -> None:
    image = picture(81, 60)
    exif = image.getexif()
    exif[0x0112] = 6
    turned = encoded(image, "JPEG", exif=exif)
    [found] = answer(client.post("/v1/detect", content=turned, headers={"content-type": "image/jpeg"}))["data"]
    assert (found["width"], found["height"]) == (60, 81)
    assert found["objects"][0]["box"] == {"xmin": 0.0, "ymin": 0.0, "xmax": 30.0, "ymax": 81.0}


def test_hugging_faces_form_has_whole_pixels(client: TestClient) -> None:
    cat = {"label": "cat", "score": pytest.approx(0.9), "box": {"xmin": 0, "ymin": 0, "xmax": 40, "ymax": 60}}
    assert answer(client.post("/models/objects", json={"inputs": BASE64})) == [cat]
    assert answer(client.post("/models/objects", json={"inputs": [BASE64]})) == [[cat]]
    assert answer(client.post("/models/objects", content=DATA, headers={"content-type": "image/png"})) == [cat]
    less = {"inputs": BASE64, "parameters": {"threshold": 0.1}}
    assert [one["label"] for one in answer(client.post("/models/objects", json=less))] == ["cat", "dog"]


def test_tensors_have_all_objects(client: TestClient) -> None:
    about = answer(client.get("/v2/models/objects"))
    assert [output["shape"] for output in about["outputs"]] == [[-1, 2], [-1, 2], [-1, 2, 4]]
    sizes = len(DATA).to_bytes(4, "little") + DATA
    header = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":%d}}]}'
    header %= 2 * len(sizes)
    response = client.post(
        "/v2/models/objects/infer",
        content=header + sizes + sizes,
        headers={"inference-header-content-length": str(len(header))},
    )
    found = {output["name"]: output["data"] for output in answer(response)["outputs"]}
    assert found["label"] == ["cat", "dog"] * 2
    assert found["score"] == pytest.approx([0.9, 0.4] * 2)
    assert found["box"] == [*CAT.values(), *DOG.values()] * 2


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/v1/detect", {"model": "images", "images": BASE64}, "model", "that do detection with images: objects"),
        ("/v1/detect", {"model": "fake", "images": BASE64}, "model", "that do detection with images: objects"),
        ("/v1/detect", {"images": BASE64, "threshold": 2}, "threshold", "less than or equal to 1"),
        ("/v1/detect", {"images": [BASE64, "%"]}, "images[1]", "base64"),
        ("/v1/classify", {"model": "objects", "images": BASE64}, "model", "with images: none here"),
        ("/models/objects", {"inputs": "%"}, "inputs", "base64"),
    ],
)
def test_wrong_requests_are_refused(
    client: TestClient, path: str, body: dict[str, object], param: str, words: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


def test_the_banner_shows_the_route() -> None:
    metadata: ModelMetadata = FakeDetector().metadata
    assert "/v1/detect" in Banner(keys=False).text("", [metadata])
