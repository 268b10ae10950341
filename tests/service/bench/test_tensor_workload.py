"""The workload of tensors: what is sent is what the service reads, in JSON, as raw values and over gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.api.tensors.data import cut_parts, describe_inputs, read_tensors, split_body
from service.bench.tensor_workload import (
    Encode,
    Tensor,
    TensorInput,
    TensorRequests,
    encode_json,
    encode_raw,
    inputs_of,
)
from service.bench.workload import PreparedRequest, Texts, between
from service.errors import ConfigError

NAMES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
METADATA: dict[str, Any] = {
    "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        *({"name": name, "datatype": name, "shape": [-1, 3]} for name in NAMES),
    ]
}


def requests(encode: Encode, inputs: list[TensorInput], seed: int = 0) -> TensorRequests:
    return TensorRequests(inputs, Texts(between(3, 9), seed), encode, seed=seed)


def read(request: PreparedRequest) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a request as the service reads them."""
    length = request.headers.decode().strip().rpartition(" ")[2] or None
    body, binary = split_body(request.body, length, 2048)
    tensors = read_tensors(body, describe_inputs(body), cut_parts(body, binary))
    return {name: tensor.values for name, tensor in tensors.items()}


def test_raw_values_and_json_are_the_same_tensors() -> None:
    inputs = inputs_of(METADATA, 2, {})
    raw, plain = (next(requests(encode, inputs)) for encode in (encode_raw, encode_json))
    assert (raw.inputs, plain.inputs) == (2, 2)
    assert raw.tokens == plain.tokens > 0
    tensors, others = read(raw), read(plain)
    assert {name: values.shape for name, values in tensors.items()} == {"text": (2,), **dict.fromkeys(NAMES, (2, 3))}
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, others[name])


def test_half_precision_travels_as_raw_values() -> None:
    halves = {"inputs": [{"name": name, "datatype": name, "shape": [-1, 4]} for name in ("FP16", "BF16")]}
    tensors = read(next(requests(encode_raw, inputs_of(halves, 1, {}))))
    assert all(np.unique(values).size > 1 for values in tensors.values())


def test_requests_differ_and_repeat_by_their_seed() -> None:
    inputs = inputs_of(METADATA, 1, {})
    source = requests(encode_json, inputs)
    first, second = next(source), next(source)
    assert first.body != second.body
    assert next(requests(encode_json, inputs)).body == first.body
    assert next(requests(encode_json, inputs, seed=1)).body != first.body


def test_shapes_that_the_caller_gives() -> None:
    image = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]}
    [one] = inputs_of(image, 1, {"image": (2, 3, 8, 9)})
    assert one.shape == (2, 3, 8, 9)
    with pytest.raises(ConfigError, match="expected the 4 sizes of image"):
        inputs_of(image, 1, {})
    with pytest.raises(ConfigError, match="expected the 4 sizes of image"):
        inputs_of(image, 1, {"image": (2, 3)})
    with pytest.raises(ConfigError, match="no input 'x'; the model has: image"):
        inputs_of(image, 1, {"image": (2, 3, 8, 9), "x": (1,)})
    with pytest.raises(ConfigError, match="UINT64"):
        inputs_of({"inputs": [{"name": "x", "datatype": "UINT64", "shape": [1]}]}, 1, {})


def test_a_message_of_grpc_has_the_raw_values() -> None:
    pytest.importorskip("grpc")
    from service.bench.rpc_client import encode_message
    from service.inference_messages import message

    def encode(tensors: Any) -> tuple[bytes, bytes]:
        sent: list[Tensor] = list(tensors)
        return encode_message("net", sent)

    inputs = inputs_of(METADATA, 2, {})
    request = message("ModelInferRequest").FromString(next(requests(encode, inputs)).body)
    assert request.model_name == "net"
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [
        (one.name, one.datatype, list(one.shape)) for one in inputs
    ]
    assert len(request.raw_input_contents) == len(inputs)
