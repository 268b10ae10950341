"""Tensors of the Open Inference Protocol as bytes: JSON, or raw values after it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson

from models.programs.contract import Described
from models.programs.tensors import NUMPY_DTYPES, HostTensor
from service.api.schemas.open_inference import InferBody, InferInput
from service.errors import InvalidRequest, MalformedBody

# The protocol's names of dtypes.
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
# JSON has no numbers of these.
_BINARY_ALONE = {"float16", "bfloat16"}


def split_body(raw: bytes, header_length: str | None) -> tuple[InferBody, memoryview]:
    """A request's JSON, and the raw values after it. `header_length` is the length of the JSON, where there are any.

    Raises MalformedBody for what is no JSON, and InvalidRequest for other JSON.
    """
    length = len(raw)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdecimal() and int(header_length) <= len(raw)):
            expected = f"expected the length of the JSON, at most the {len(raw)} bytes of the body"
            raise MalformedBody(f"inference-header-content-length: {expected}, got {header_length[:40]!r}")
        length = int(header_length)
    view = memoryview(raw)
    try:
        return msgspec.json.decode(view[:length], type=InferBody), view[length:]
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        param = where.strip("`.") or "body"
        raise InvalidRequest.at(param, message[:1].lower() + message[1:]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON in UTF-8: {error}") from error


def describe_inputs(body: InferBody) -> dict[str, Described]:
    """The dtypes and shapes of a request's inputs, by name. Raises InvalidRequest."""
    described: dict[str, Described] = {}
    for one in body.inputs:
        if one.datatype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise InvalidRequest.at(one.name, f"expected a datatype of {known}, got {one.datatype!r}")
        if one.name in described:
            raise InvalidRequest.at(one.name, "is there twice")
        described[one.name] = Described(_DTYPES[one.datatype], tuple(one.shape))
    return described


def read_tensors(body: InferBody, binary: memoryview) -> dict[str, HostTensor]:
    """The tensors of a request, by name. Raises InvalidRequest naming the first whose values are not as it says."""
    described, tensors, at = describe_inputs(body), {}, 0
    for one in body.inputs:
        size = one.parameters.binary_data_size
        if size is None:
            values = _from_json(one, described[one.name])
        else:
            values = _from_bytes(one, described[one.name], binary[at : at + size])
            at += size
        tensor = HostTensor(described[one.name].dtype, values.reshape(one.shape))
        if not tensor.is_finite:
            raise InvalidRequest.at(one.name, "expected finite numbers, got NaN or infinity")
        tensors[one.name] = tensor
    if at != len(binary):
        raise InvalidRequest.at(
            "inputs", f"expected {at} bytes after the JSON, as binary_data_size says, got {len(binary)}"
        )
    return tensors


def require_json_form(name: str, dtype: str) -> None:
    """Raise InvalidRequest for an output whose values JSON cannot say."""
    if dtype in _BINARY_ALONE:
        raise InvalidRequest.at(name, f"{DATATYPES[dtype]} has no form in JSON: ask for binary_data")


def write_outputs(
    about: Mapping[str, Any], tensors: Mapping[str, HostTensor], in_binary: Sequence[str]
) -> tuple[bytes, int | None]:
    """A response's body, and the length of its JSON where raw values follow. `in_binary` are the outputs sent so."""
    parts: list[bytes] = []
    outputs = []
    for name, tensor in tensors.items():
        output: dict[str, Any] = {"name": name, "datatype": DATATYPES[tensor.dtype], "shape": list(tensor.shape)}
        if name in in_binary:
            parts.append(np.ascontiguousarray(tensor.values).tobytes())
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = np.ascontiguousarray(tensor.values).ravel()
        outputs.append(output)
    header = orjson.dumps({**about, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([header, *parts]), len(header) if parts else None


def _from_bytes(one: InferInput, described: Described, part: memoryview) -> np.ndarray[Any, Any]:
    dtype = NUMPY_DTYPES[described.dtype]
    expected = math.prod(described.shape) * dtype.itemsize
    size = one.parameters.binary_data_size
    if bytes(one.data):
        raise InvalidRequest.at(one.name, "has both data and binary_data_size: send one of them")
    if size != expected or len(part) != expected:
        what = f"expected {expected} bytes for {one.datatype} {list(described.shape)}"
        raise InvalidRequest.at(one.name, f"{what}, got binary_data_size {size} and {len(part)} bytes")
    values = np.frombuffer(part, np.uint8 if described.dtype == "bool" else dtype)
    if described.dtype == "bool":
        if (values > 1).any():
            raise InvalidRequest.at(one.name, "expected bytes of 0 and 1")
        values = values.astype(np.bool_)
    return values


def _from_json(one: InferInput, described: Described) -> np.ndarray[Any, Any]:
    if described.dtype in _BINARY_ALONE:
        raise InvalidRequest.at(one.name, f"{one.datatype} has no form in JSON: send it as binary data")
    if not bytes(one.data):
        raise InvalidRequest.at(one.name, "expected data, or binary_data_size and raw values after the JSON; got none")
    expected = math.prod(described.shape)
    if bytes(one.data).count(b",") + 1 > max(expected, 1):  # before a list is made of it
        raise _wrong_count(one, expected, f"{bytes(one.data).count(b',') + 1}")
    try:
        values = list(_flat(msgspec.json.decode(one.data, type=_nested(described, one.data))))
        with np.errstate(over="ignore"):  # infinity is refused like others that are not finite
            array = np.array(values, NUMPY_DTYPES[described.dtype])
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        reason = str(error).partition(" - at")[0]
        raise InvalidRequest.at(one.name, f"expected {one.datatype} in lists, got other data ({reason})") from error
    if array.size != expected:
        raise _wrong_count(one, expected, str(array.size))
    return array


def _wrong_count(one: InferInput, expected: int, got: str) -> InvalidRequest:
    return InvalidRequest.at(one.name, f"expected {expected} values for shape {one.shape}, got {got}")


def _nested(described: Described, data: msgspec.Raw) -> Any:
    """The type of a list of values, or of lists as deep as the shape."""
    kind: Any = bool if described.dtype == "bool" else float if "float" in described.dtype else int
    depth = len(described.shape) if bytes(data).lstrip()[1:].lstrip()[:1] == b"[" else 1
    for _ in range(depth):
        kind = list[kind]
    return kind


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for one in values:
            yield from _flat(one)
    else:
        yield values
