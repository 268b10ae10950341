"""Hostile images on every route that takes images, over HTTP and gRPC: refused by name, at once, and forgotten."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.described_programs import described
from tests.support.images import encoded, hostile, picture
from tests.support.processes import peak_mb, reset_peak, resident_mb
from tests.support.server import free_port, serving
from tests.support.tiny_image_models import (
    image_classifier,
    image_encoder,
    object_detector,
    text_image_encoder,
    text_recognizer,
)

pytestmark = [pytest.mark.slow, pytest.mark.real]

GOOD = encoded(picture(80, 60))
# Of processor time, because other tests use the machine, too.
MOST_S = 1.0
# An image that is refused by its header may cost its body a few times over; one that were decoded, a gigabyte.
MOST_PEAK_MB = 200.0
# Python and the C library keep some room for the next request.
MOST_KEPT_MB = 48.0
_HEADER = "inference-header-content-length"
Answer = tuple[int, str]


@dataclass(frozen=True)
class Running:
    """A service of one model of each kind, and its process."""

    http: httpx.Client
    grpc_port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True)
class Route:
    """A way to send an image, and what its errors call the image."""

    send: Callable[[Running, bytes], Answer]
    param: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    made = {
        "vit": image_classifier,
        "dino": image_encoder,
        "clip": text_image_encoder,
        "detr": object_detector,
        "trocr": text_recognizer,
    }
    specs = [f"{name}={make(folder / name)}" for name, make in made.items()]  # type: ignore[operator]
    specs += [described(folder, name) for name in ("pictures", "defects")]
    port = free_port()
    flags = [flag for spec in specs for flag in ("--model", spec)]
    with serving(folder, "--cache-mb", "0", "--device", "cpu", "--grpc-port", str(port), *flags) as served:
        with httpx.Client(base_url=served.url, timeout=60) as http:
            yield Running(http, port, served.process.pid)


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{_text(data)}"


def _answer(response: httpx.Response) -> Answer:
    return response.status_code, response.text


def _json(path: str, param: str, body: Callable[[bytes], dict[str, Any]]) -> Route:
    """An image in a body of JSON."""
    return Route(lambda running, data: _answer(running.http.post(path, json=body(data))), param)


def _raw(path: str, param: str) -> Route:
    """The image as the body."""
    headers = {"content-type": "application/octet-stream"}
    return Route(lambda running, data: _answer(running.http.post(path, content=data, headers=headers)), param)


def _form(path: str, param: str, **fields: str) -> Route:
    """The image as a file of a form, after a good one."""

    def send(running: Running, data: bytes) -> Answer:
        files = [("images", ("a.png", GOOD)), ("images", ("b.png", data))]
        return _answer(running.http.post(path, data=fields, files=files))

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
        return _answer(running.http.post(f"/v2/models/{model}/infer", content=body, headers=headers))

    return Route(send, "image[0]")


def _message(model: str, *, raw: bool) -> Route:
    """The image as BYTES over gRPC, in raw values or in the message's contents."""

    def send(running: Running, data: bytes) -> Answer:
        grpc = pytest.importorskip("grpc")
        from service.inference_messages import SERVICE, message

        one: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
        values = {"raw_input_contents": [len(data).to_bytes(4, "little") + data]} if raw else {}
        inputs = [one if raw else one | {"contents": {"bytes_contents": [data]}}]
        request = message("ModelInferRequest")(model_name=model, inputs=inputs, **values)
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
            try:
                channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString(), timeout=60)
            except grpc.RpcError as error:
                caller = error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
                return 422 if caller else 500, error.details()
        return 200, ""

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
    before = resident_mb(running.pid)
    findings = []
    for kind, data in hostile().items():
        reset_peak(running.pid)
        peak, cpu_s = peak_mb(running.pid), running.cpu_s
        status, said = route.send(running, data)
        seconds, more = running.cpu_s - cpu_s, peak_mb(running.pid) - peak
        is_named = route.param in said or kind == "empty"
        if not (400 <= status < 500 and is_named and seconds < MOST_S and more < MOST_PEAK_MB):
            findings.append(f"{kind}: {status} {said[:200]}, {seconds:.2f} s, {more:.0f} MB")
    kept = resident_mb(running.pid) - before
    assert findings == []
    assert kept < MOST_KEPT_MB
