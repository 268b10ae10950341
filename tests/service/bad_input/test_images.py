"""Hostile images on every route that takes images, over HTTP and gRPC: refused by name, at once, and forgotten."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.service.bad_input.running import MOST_KEPT_MB, Answer, Running
from tests.support.images import encoded, hostile, picture

pytestmark = [pytest.mark.slow, pytest.mark.real]

GOOD = encoded(picture(80, 60))
_HEADER = "inference-header-content-length"


@dataclass(frozen=True)
class Route:
    """A way to send an image, and what its errors call the image."""

    send: Callable[[Running, bytes], Answer]
    param: str


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{_text(data)}"


def _json(path: str, param: str, body: Callable[[bytes], dict[str, Any]]) -> Route:
    """An image in a body of JSON."""
    return Route(lambda running, data: running.post(path, json=body(data)), param)


def _raw(path: str, param: str) -> Route:
    """The image as the body."""
    headers = {"content-type": "application/octet-stream"}
    return Route(lambda running, data: running.post(path, content=data, headers=headers), param)


def _form(path: str, param: str, **fields: str) -> Route:
    """The image as a file of a form, after a good one."""

    def send(running: Running, data: bytes) -> Answer:
        files = [("images", ("a.png", GOOD)), ("images", ("b.png", data))]
        return running.post(path, data=fields, files=files)

    return Route(send, param)


def _tensor(model: str, *, raw: bool) -> Route:
    """The image as BYTES of the Open Inference Protocol, in JSON or in raw values after it."""

    def send(running: Running, data: bytes) -> Answer:
        one: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
        values = len(data).to_bytes(4, "little") + data
        more = {"parameters": {"binary_data_size": len(values)}} if raw else {"data": [_text(data)]}
        head = json.dumps({"inputs": [one | more]}).encode()
        headers = {_HEADER: str(len(head))} if raw else {}
        body = head + values if raw else head
        return running.post(f"/v2/models/{model}/infer", content=body, headers=headers)

    return Route(send, "image[0]")


def _message(model: str, *, raw: bool) -> Route:
    """The image as BYTES over gRPC, in raw values or in the message's contents."""

    def send(running: Running, data: bytes) -> Answer:
        one: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
        if raw:
            values = len(data).to_bytes(4, "little") + data
            return running.infer_rpc(model_name=model, inputs=[one], raw_input_contents=[values])
        return running.infer_rpc(model_name=model, inputs=[one | {"contents": {"bytes_contents": [data]}}])

    return Route(send, "image[0]")


def _part(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _uri(data)}}


_LABELS = {"candidate_labels": ["cat", "card"]}
_EMBED = {"model": "clip", "input_type": "image", "embedding_types": ["float"]}
ROUTES: dict[str, Route] = {
    "embeddings, Infinity": _json(
        "/v1/embeddings",
        "input[1]",
        lambda data: {"model": "dino", "modality": "image", "input": [_uri(GOOD), _uri(data)]},
    ),
    "embeddings, vLLM": _json(
        "/v1/embeddings",
        "messages[0].content[0].image_url.url",
        lambda data: {"model": "clip", "messages": [{"role": "user", "content": [_part(data)]}]},
    ),
    "embeddings, Jina": _json(
        "/v1/embeddings",
        "input[1]",
        lambda data: {"model": "clip", "input": [{"text": "a cat"}, {"image": _text(data)}]},
    ),
    "embeddings, Cohere": _json("/v2/embed", "images[0]", lambda data: _EMBED | {"images": [_uri(data)]}),
    "embeddings, Cohere's inputs": _json(
        "/v2/embed", "inputs[0]", lambda data: _EMBED | {"inputs": [{"content": [_part(data)]}]}
    ),
    "embeddings, images": _json(
        "/v1/embeddings", "images[1]", lambda data: {"model": "dino", "images": [_text(GOOD), _text(data)]}
    ),
    "embeddings, form": _form("/v1/embeddings", "images[1]", model="dino"),
    "embeddings, body": _raw("/v1/embeddings?model=dino", "images"),
    "classify": _json("/v1/classify", "images[1]", lambda data: {"model": "vit", "images": [_uri(GOOD), _uri(data)]}),
    "classify, form": _form("/v1/classify", "images[1]", model="vit"),
    "classify, body": _raw("/v1/classify?model=vit", "images"),
    "classify, labels": _json(
        "/v1/classify", "images[0]", lambda data: {"model": "clip", "images": [_uri(data)], "labels": ["cat", "card"]}
    ),
    "classify, program": _json("/v1/classify", "images[0]", lambda data: {"model": "pictures", "images": [_uri(data)]}),
    "detect": _json("/v1/detect", "images[1]", lambda data: {"model": "detr", "images": [_uri(GOOD), _uri(data)]}),
    "detect, body": _raw("/v1/detect?model=detr", "images"),
    "ocr": _json("/v1/ocr", "images[1]", lambda data: {"model": "trocr", "images": [_uri(GOOD), _uri(data)]}),
    "ocr, one line": _json(
        "/v1/ocr", "images[0]", lambda data: {"model": "trocr", "images": [_uri(data)], "lines": False}
    ),
    "anomaly": _json(
        "/v1/anomaly/score",
        "images[1]",
        lambda data: {"model": "dino", "images": [_uri(GOOD), _uri(data)], "reference": [_uri(GOOD)] * 20},
    ),
    "anomaly, reference": _json(
        "/v1/anomaly/score",
        "reference[19]",
        lambda data: {"model": "dino", "images": [_uri(GOOD)], "reference": [*[_uri(GOOD)] * 19, _uri(data)]},
    ),
    "anomaly, program": _json(
        "/v1/anomaly/score", "images[0]", lambda data: {"model": "defects", "images": [_uri(data)]}
    ),
    "preprocess": _json("/v1/preprocess", "images[0]", lambda data: {"model": "vit", "images": [_uri(data)]}),
    "feedback": _json(
        "/v1/feedback", "image", lambda data: {"model": "dino", "image": _uri(data), "correct_label": "cat"}
    ),
    "Hugging Face, image-classification, body": _raw("/models/vit", "inputs"),
    "Hugging Face, image-classification": _json("/models/vit", "inputs", lambda data: {"inputs": _text(data)}),
    "Hugging Face, zero-shot": _json(
        "/models/clip", "inputs", lambda data: {"inputs": _text(data), "parameters": _LABELS}
    ),
    "Hugging Face, object-detection, body": _raw("/models/detr", "inputs"),
    "Hugging Face, object-detection": _json("/models/detr", "inputs", lambda data: {"inputs": _text(data)}),
    "Hugging Face, image-to-text, body": _raw("/models/trocr", "inputs"),
    "Hugging Face, image-to-text": _json("/models/trocr", "inputs", lambda data: {"inputs": _text(data)}),
    **{f"V2, {model}, JSON": _tensor(model, raw=False) for model in ("vit", "detr")},
    **{f"V2, {model}, raw values": _tensor(model, raw=True) for model in ("vit", "dino", "clip", "detr", "trocr")},
    **{f"gRPC, {model}, raw values": _message(model, raw=True) for model in ("vit", "dino", "clip", "detr", "trocr")},
    **{f"gRPC, {model}, contents": _message(model, raw=False) for model in ("vit", "trocr")},
}


@pytest.mark.parametrize("name", ROUTES)
def test_hostile_images_are_refused_at_once_and_forgotten(name: str, running: Running) -> None:
    route = ROUTES[name]
    for data in (GOOD, hostile()["EXIF bomb"]):  # so that what a first request loads does not count
        route.send(running, data)
    before = running.resident_mb
    faults = {
        kind: running.fault(lambda data=data: route.send(running, data), route.param if data else "")  # type: ignore[misc]
        for kind, data in hostile().items()
    }
    assert not any(faults.values()), faults
    assert running.resident_mb - before < MOST_KEPT_MB
