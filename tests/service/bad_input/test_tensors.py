"""Tensors that are not as they say, in every form in which they come: refused by name, at once, and forgotten."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.service.bad_input.running import MOST_KEPT_MB, Answer, Running

pytestmark = [pytest.mark.slow, pytest.mark.real]

_HEADER = "inference-header-content-length"
_V2 = "/v2/models/mlp/infer"
_ROW = [0.0] * 16
_NAN = struct.pack("<16f", *[math.nan] * 16)
Send = Callable[[Running], Answer]


def _json(**changes: Any) -> Send:
    """A row of 16 numbers with something changed, in JSON of the protocol."""
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": _ROW} | changes
    return lambda running: running.post(_V2, json={"inputs": [one]})


def _raw(values: bytes, model: str = "mlp", *, size: int | None = None, **changes: Any) -> Send:
    """The same as raw values after the JSON; `size` is what the request says of them."""
    stated = len(values) if size is None else size
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": stated}} | changes
    head = json.dumps({"inputs": [one]}).encode()
    headers = {_HEADER: str(len(head))}
    return lambda running: running.post(f"/v2/models/{model}/infer", content=head + values, headers=headers)


def _rpc(values: bytes | None = None, model: str = "mlp", **changes: Any) -> Send:
    """The same over gRPC; without values, in the message's contents."""
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16]} | changes
    if values is None:
        one = {"contents": {"fp32_contents": _ROW}} | one
        return lambda running: running.infer_rpc(model_name=model, inputs=[one])
    return lambda running: running.infer_rpc(model_name=model, inputs=[one], raw_input_contents=[values])


def _task(path: str, model: str, **changes: Any) -> Send:
    """The same for a program that does a task, on the task's own route."""
    one = {"name": "x", "datatype": "FP32", "shape": [1, 16], "data": _ROW} | changes
    return lambda running: running.post(f"/v1/{path}", json={"model": model, "inputs": [one]})


def _text(length: int) -> dict[str, Any]:
    """A text of BYTES whose length is false."""
    return {"values": length.to_bytes(4, "little") + b"card", "name": "text", "datatype": "BYTES", "shape": [1]}


# By kind of fault and form: how it is sent, and what the refusal says.
BAD: dict[str, tuple[Send, str]] = {
    "wrong dtype, JSON": (_json(datatype="FP64"), "x: expected float32 [batch, 16], got dtype float64"),
    "wrong dtype, raw": (_raw(bytes(128), datatype="FP64"), "x: expected float32 [batch, 16], got dtype float64"),
    "wrong dtype, gRPC": (_rpc(bytes(128), datatype="FP64"), "x: expected float32 [batch, 16], got dtype float64"),
    "wrong dtype, task": (_task("classify", "classes", datatype="INT64", data=[0] * 16), "got dtype int64"),
    "shape off by one, JSON": (_json(shape=[1, 15], data=_ROW[1:]), "dimension 1 is 15, expected 16"),
    "shape off by one, raw": (_raw(bytes(68), shape=[1, 17]), "dimension 1 is 17, expected 16"),
    "shape off by one, gRPC": (_rpc(bytes(60), shape=[1, 15]), "dimension 1 is 15, expected 16"),
    "shape off by one, rows": (
        lambda running: running.post("/v1/classify", json={"model": "classes", "rows": [_ROW[1:]]}),
        "x: expected float32 [batch, 16], got [1, 15]",
    ),
    "a scalar for a batch, JSON": (_json(shape=[], data=1.0), "x: expected float32 [batch, 16], got []"),
    "a scalar for a batch, raw": (_raw(bytes(4), shape=[]), "x: expected float32 [batch, 16], got []"),
    "a scalar for a batch, gRPC": (_rpc(bytes(4), shape=[]), "x: expected float32 [batch, 16], got []"),
    "a scalar for a batch, task": (_task("classify", "classes", shape=[], data=1.0), "got []"),
    "NaN, JSON": (
        lambda running: running.post(
            _V2, content=b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}'
        ),
        "the body is not JSON",
    ),
    "infinity, JSON": (_json(data=[*_ROW[1:], 1e39]), "x: expected finite numbers, got NaN or infinity"),
    "NaN, raw": (_raw(_NAN), "x: expected finite numbers, got NaN or infinity"),
    "NaN, gRPC": (_rpc(_NAN), "x: expected finite numbers, got NaN or infinity"),
    "NaN, contents": (_rpc(contents={"fp32_contents": [math.nan] * 16}), "x: expected finite numbers"),
    "infinity, task": (_task("classify", "classes", data=[*_ROW[1:], 1e39]), "x: expected finite numbers"),
    "negative binary_data_size": (_raw(bytes(64), size=-64), "binary_data_size"),
    "binary_data_size of 10^12": (_raw(bytes(64), size=10**12), "x: expected 64 bytes"),
    "fewer bytes than stated": (_raw(bytes(60), size=64), "x: expected 64 bytes for FP32 [1, 16], got"),
    "more bytes than stated": (_raw(bytes(68), size=64), "inputs: expected 64 bytes after the JSON"),
    "fewer bytes than the shape has, gRPC": (_rpc(bytes(60)), "x: expected 64 bytes for FP32 [1, 16], got"),
    "fewer values than the shape has": (_json(data=_ROW[1:]), "x: expected 16 values for shape [1, 16], got 15"),
    "a shape of 2^80 values": (_json(shape=[2**40, 2**40]), "expected"),
    "a negative size in a shape": (_json(shape=[-1, 16]), "inputs[0].shape[0]: expected `int` >= 0"),
    "BYTES with a false length, raw": (_raw(model="clip", **_text(5)), "text: expected 9 bytes, as the length"),
    "BYTES of 4 GB, raw": (_raw(model="clip", **_text(2**32 - 1)), "as the length before text 0 says, got 8"),
    "BYTES with too short a length, raw": (_raw(model="clip", **_text(3)), "text: expected 1 text for shape [1]"),
    "BYTES with a false length, gRPC": (_rpc(model="clip", **_text(5)), "text: expected 9 bytes, as the length"),
    "BYTES of 4 GB, gRPC": (_rpc(model="clip", **_text(2**32 - 1)), "as the length before text 0 says, got 8"),
    "an image with a false length": (
        _raw(model="vit", **(_text(5) | {"name": "image"})),
        "image: expected 9 bytes, as the length",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_tensors_are_refused_at_once_and_forgotten(name: str, running: Running) -> None:
    send, expected = BAD[name]
    send(running)  # what a first request loads does not count
    before = running.resident_mb
    assert running.fault(lambda: send(running), expected) == ""
    assert running.resident_mb - before < MOST_KEPT_MB
