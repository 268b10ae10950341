"""The text of images: lines in reading order, whole images, Hugging Face's form and the protocol's tensors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.banner import Banner
from tests.fakes.image import FakeImages, FakeRecognizer
from tests.support.app import MakeApp
from tests.support.images import encoded
from tests.support.pages import draw_page, overlap

PAGE = draw_page(0, width=600, height=300)
DATA = encoded(PAGE.image)
BASE64 = b64encode(DATA).decode()
LINE = b64encode(encoded(Image.new("L", (200, 20), 40))).decode()


@pytest.fixture
def client(make_app: MakeApp) -> Iterator[TestClient]:
    app = make_app(max_request_tokens=1_000)
    for model in (FakeImages(), FakeRecognizer()):
        app.state.manager.add_images(model)
    with TestClient(app) as client:
        yield client


def answer(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_lines_have_text_confidence_and_box(client: TestClient) -> None:
    response = client.post("/v1/ocr", json={"images": [BASE64]})
    [page] = answer(response)["data"]
    assert (page["width"], page["height"]) == PAGE.image.size
    assert len(page["lines"]) == len(PAGE.lines) > 3
    for line, drawn in zip(page["lines"], PAGE.lines, strict=True):
        box = type(drawn)(*(line["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")))
        assert overlap(box, drawn) > 0.5
    assert page["text"] == "\n".join(line["text"] for line in page["lines"])
    assert page["confidence"] == 0.5
    assert response.headers["x-sonde-truncated"] == "0"


def test_an_image_can_be_one_line(client: TestClient) -> None:
    response = client.post("/v1/ocr", json={"images": LINE, "lines": False})
    [page] = answer(response)["data"]
    box = {"xmin": 0, "ymin": 0, "xmax": 200, "ymax": 20}
    assert page["lines"] == [{"text": "40", "confidence": 0.5, "box": box, "truncated": True}]
    assert response.headers["x-sonde-truncated"] == "1"


def test_a_page_without_lines_is_empty(client: TestClient) -> None:
    blank = encoded(Image.new("L", (200, 100), 255))
    [page] = answer(client.post("/v1/ocr", content=blank, headers={"content-type": "image/png"}))["data"]
    assert (page["text"], page["lines"], page["confidence"]) == ("", [], None)


def test_pages_of_a_form_keep_their_order(client: TestClient) -> None:
    other = draw_page(1, width=300, height=200)
    files = [("images", ("a.png", DATA)), ("images", ("b.png", encoded(other.image)))]
    first, second = answer(client.post("/v1/ocr", files=files, data={"model": "reader"}))["data"]
    assert (len(first["lines"]), len(second["lines"])) == (len(PAGE.lines), len(other.lines))


def test_hugging_faces_form_reads_the_whole_image(client: TestClient) -> None:
    assert answer(client.post("/models/reader", json={"inputs": LINE})) == [{"generated_text": "40"}]
    assert answer(client.post("/models/reader", json={"inputs": [LINE]})) == [[{"generated_text": "40"}]]


def test_tensors_have_texts_and_confidences(client: TestClient) -> None:
    about = answer(client.get("/v2/models/reader"))
    assert [(one["name"], one["datatype"], one["shape"]) for one in about["outputs"]] == [
        ("text", "BYTES", [-1]),
        ("confidence", "FP32", [-1]),
    ]
    image = encoded(Image.new("L", (20, 20), 7))
    part = len(image).to_bytes(4, "little") + image
    header = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}'
    header %= len(part)
    response = client.post(
        "/v2/models/reader/infer", content=header + part, headers={"inference-header-content-length": str(len(header))}
    )
    assert [output["data"] for output in answer(response)["outputs"]] == [["7"], [0.5]]


@pytest.mark.slow
def test_more_lines_than_a_request_may_have_are_refused_by_name(client: TestClient) -> None:
    large = b64encode(encoded(draw_page(0, size=12, width=4000, height=700).image)).decode()
    response = client.post("/v1/ocr", json={"images": [LINE, *[large] * 4]})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"].startswith("images[")
    assert "1000 are allowed" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"model": "images", "images": LINE}, "model", "that do ocr with images: reader"),
        ({"model": "fake", "images": LINE}, "model", "that do ocr with images: reader"),
        ({"images": [LINE, "%"]}, "images[1]", "base64"),
    ],
)
def test_wrong_requests_are_refused(client: TestClient, body: dict[str, object], param: str, words: str) -> None:
    response = client.post("/v1/ocr", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


def test_the_banner_shows_the_route() -> None:
    assert "/v1/ocr" in Banner(keys=False).text("", [FakeRecognizer().metadata])
