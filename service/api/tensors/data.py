"""Tensors of the Open Inference Protocol as bytes: JSON, or raw values after it. Texts are BYTES, in UTF-8."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson

from models.counted import counted
from models.programs.contract import Described
from models.programs.tensors import NUMPY_DTYPES, HostTensor
from service.api.body_counts import BodyCounts
from service.api.schemas.open_inference import MOST_DIMENSIONS, MOST_TENSORS, InferBody, InferInput, ShapesAsBytes
from service.api.tensors.refusals import validation_error
from service.datatypes import BINARY_ALONE, DATATYPES, DTYPES
from service.errors import BodyTooLarge, InvalidRequest, MalformedBody

BodyT = TypeVar("BodyT")
# Python's names of arrays of floats.
_CODES = {"float32": "f", "float64": "d"}
# Keys, names and values of parameters.
_OTHER_STRINGS = 16 * 2 * MOST_TENSORS
_MAX_SHAPE_BYTES = 4096
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)
# Of a text's length before its bytes, little-endian.
_LENGTH_BYTES = 4


def stated_length(header_length: str | None) -> float:
    """The length of the JSON as the header has it; infinite where that is missing or no number."""
    return int(header_length) if header_length and _DIGITS.fullmatch(header_length) else math.inf


def split_body(raw: bytes, header_length: str | None, max_inputs: int) -> tuple[InferBody, memoryview]:
    """A request's JSON, and the raw values after it. `header_length` is the length of the JSON, where there are any.

    Raises MalformedBody for what is no JSON, BodyTooLarge for more strings than `max_inputs` texts and all tensors
    have, and InvalidRequest for other JSON.
    """
    length = len(raw)
    if header_length is not None:
        if (stated := stated_length(header_length)) > len(raw):
            expected = f"expected the length of the JSON, at most the {len(raw)} bytes of the body"
            raise MalformedBody(f"inference-header-content-length: {expected}, got {header_length[:40]!r}")
        length = int(stated)
    content = raw if length == len(raw) else raw[:length]
    most = _OTHER_STRINGS + max_inputs + 1
    if length > 2 * most:  # a string takes two bytes and more
        BodyCounts(strings=most, lists=length, values=length).require_within(content)
    _require_short_shapes(content)
    return decode_body(content, InferBody), memoryview(raw)[length:]


def _require_short_shapes(content: bytes) -> None:
    """Raise InvalidRequest for a shape whose numbers would be many, before a list is made of them."""
    if len(content) <= _MAX_SHAPE_BYTES:
        return
    for index, one in enumerate(decode_body(content, ShapesAsBytes).inputs):
        if (size := memoryview(one.shape).nbytes) > _MAX_SHAPE_BYTES:
            expected = f"expected at most {MOST_DIMENSIONS} dimensions"
            raise InvalidRequest.at(f"inputs[{index}].shape", f"{expected}, got a shape of {size} bytes")


def decode_body(raw: bytes | memoryview, kind: type[BodyT]) -> BodyT:
    """A body of JSON. Raises MalformedBody for what is no JSON, and InvalidRequest for other JSON."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise validation_error(error, raw) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON in UTF-8: {error}") from error


def cut_parts(body: InferBody, binary: memoryview) -> list[memoryview | None]:
    """The raw values of each input; None where its values are in `data`.

    Where bytes are missing, an input has too few. Raises InvalidRequest where bytes are left over.
    """
    parts: list[memoryview | None] = []
    at = 0
    for one in body.inputs:
        parts.append(None if one.binary_size is None else binary[at : at + one.binary_size])
        at += one.binary_size or 0
    if at < len(binary):
        message = f"expected {at} bytes after the JSON, as binary_data_size says, got {len(binary)}"
        raise InvalidRequest.at("inputs", message)
    return parts


def describe_inputs(body: InferBody) -> dict[str, Described]:
    """The dtypes and shapes of a request's inputs, by name. Raises InvalidRequest."""
    described: dict[str, Described] = {}
    for one in body.inputs:
        if one.datatype not in DTYPES:
            known = ", ".join(DTYPES)
            raise InvalidRequest.at(one.name, f"expected a datatype of {known}, got {one.datatype!r}")
        if one.name in described:
            raise InvalidRequest.at(one.name, "expected one input of this name, got another one: send it once")
        described[one.name] = Described(DTYPES[one.datatype], _shape(one))
    return described


def _shape(one: InferInput) -> tuple[int, ...]:
    """The shape. MLServer's codecs send a list of texts as a column, which is a list here."""
    if one.datatype == DATATYPES["bytes"] and len(one.shape) == 2 and one.shape[1] == 1:
        return (one.shape[0],)
    return tuple(one.shape)


def read_tensors(
    body: InferBody,
    described: Mapping[str, Described],
    parts: Sequence[memoryview | None],
    *,
    with_missing: bool = False,
) -> dict[str, HostTensor]:
    """The tensors of a request as `described`, by name. Of BYTES, the values are Python's bytes.

    `with_missing` takes NaN, in JSON null, for a value that is missing. Raises InvalidRequest naming the first tensor
    whose values are not as it says.
    """
    tensors: dict[str, HostTensor] = {}
    for one, part in zip(body.inputs, parts, strict=True):
        about = described[one.name]
        values = _from_json(one, about, with_missing) if part is None else _from_bytes(one, about, part)
        tensor = HostTensor(about.dtype, values.reshape(about.shape))
        if not tensor.is_finite and not (with_missing and not np.isinf(values).any()):
            expected = "finite numbers, or NaN where a value is missing" if with_missing else "finite numbers"
            raise InvalidRequest.at(one.name, f"expected {expected}, got {'' if with_missing else 'NaN or '}infinity")
        tensors[one.name] = tensor
    return tensors


def require_json_form(name: str, dtype: str) -> None:
    """Raise InvalidRequest for an output whose values JSON cannot say."""
    if dtype in BINARY_ALONE:
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
            parts.append(to_raw(tensor))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        elif tensor.dtype == "bytes":
            output["data"] = [one.decode() for one in tensor.values.ravel()]
        else:
            output["data"] = np.ascontiguousarray(tensor.values).ravel()
        outputs.append(output)
    header = orjson.dumps({**about, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([header, *parts]), len(header) if parts else None


def to_raw(tensor: HostTensor) -> bytes:
    """The raw values; of BYTES, each text after its length."""
    if tensor.dtype != "bytes":
        return np.ascontiguousarray(tensor.values).tobytes()
    return b"".join(len(one).to_bytes(_LENGTH_BYTES, "little") + one for one in tensor.values.ravel())


def bytes_tensor(texts: Sequence[bytes], shape: tuple[int, ...] | None = None) -> HostTensor:
    """Texts as a tensor, by default [n]."""
    values = np.empty(len(texts), object)
    values[:] = texts
    return HostTensor("bytes", values.reshape(len(texts) if shape is None else shape))


def decode_texts(tensor: HostTensor, name: str) -> list[str]:
    """The texts of BYTES [n]. Raises InvalidRequest for bytes that are no UTF-8."""
    texts: list[str] = []
    for index, text in enumerate(tensor.values):
        try:
            texts.append(text.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest.at(f"{name}[{index}]", f"expected UTF-8, got other bytes ({error.reason})") from error
    return texts


def _from_bytes(one: InferInput, described: Described, part: memoryview) -> np.ndarray[Any, Any]:
    if bytes(one.data) not in (b"", b"null"):
        raise InvalidRequest.at(one.name, "has both data and binary_data_size: send one of them")
    if described.dtype == "bytes":
        if one.binary_size not in (None, len(part)):
            raise InvalidRequest.at(one.name, f"expected binary_data_size {one.binary_size} bytes, got {len(part)}")
        return bytes_tensor(_cut_texts(one, part, math.prod(described.shape))).values
    dtype = NUMPY_DTYPES[described.dtype]
    expected = math.prod(described.shape) * dtype.itemsize
    size = len(part) if one.binary_size is None else one.binary_size
    if size != expected or len(part) != expected:
        what = f"expected {expected} bytes for {one.datatype} {list(described.shape)}"
        raise InvalidRequest.at(one.name, f"{what}, got binary_data_size {size} and {len(part)} bytes")
    values = np.frombuffer(part, np.uint8 if described.dtype == "bool" else dtype)
    if described.dtype == "bool":
        if (values > 1).any():
            raise InvalidRequest.at(one.name, f"expected bytes of 0 and 1, got {values.max()}")
        values = values.astype(np.bool_)
    return values


def _cut_texts(one: InferInput, part: memoryview, count: int) -> list[bytes]:
    """The texts in raw values, where each has its length before it. Raises InvalidRequest."""
    texts: list[bytes] = []
    at = 0
    while at < len(part) and len(texts) < count:
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(part[at:begin], "little")
        if at > len(part):
            message = f"expected {at} bytes, as the length before text {len(texts)} says, got {len(part)}"
            raise InvalidRequest.at(one.name, message)
        texts.append(bytes(part[begin:at]))
    if len(texts) < count or at < len(part):
        message = f"expected {counted(count, 'text')} for shape {one.shape}, each after its length in 4 bytes"
        raise InvalidRequest.at(one.name, f"{message}; got {len(texts)}, and {counted(len(part) - at, 'byte')} more")
    return texts


def _from_json(one: InferInput, described: Described, with_missing: bool) -> np.ndarray[Any, Any]:
    raw = bytes(one.data)
    if described.dtype in BINARY_ALONE:
        raise InvalidRequest.at(one.name, f"{one.datatype} has no form in JSON: send it as binary data")
    if not raw:
        raise InvalidRequest.at(one.name, "expected data, or binary_data_size and raw values after the JSON; got none")
    expected = math.prod(described.shape)
    _require_few_values(one, described, raw, expected)
    try:
        values = _decode_values(raw, described.dtype, len(one.shape), with_missing)
        if described.dtype == "bytes":
            made = bytes_tensor([text.encode() for text in values]).values
        else:  # an array of floats makes infinity of large ones without a warning, but takes no null
            code = None if with_missing else _CODES.get(described.dtype)
            made = np.asarray(array(code, values) if code else values, NUMPY_DTYPES[described.dtype])
    except (msgspec.DecodeError, UnicodeError, OverflowError, RecursionError) as error:
        reason = str(error).partition(" - at")[0]
        raise InvalidRequest.at(one.name, f"expected {one.datatype} in lists, got other data ({reason})") from error
    if made.size != expected:
        raise _wrong_count(one, expected, str(made.size))
    return made


def _require_few_values(one: InferInput, described: Described, raw: bytes, expected: int) -> None:
    """Raise for more values than the shape has, before a list is made of them. A text may have commas in it."""
    most = max(expected, 1)
    if described.dtype == "bytes":
        try:
            BodyCounts(strings=most, lists=most + 1, values=most).require_within(raw)
        except BodyTooLarge as error:
            raise _wrong_count(one, expected, "more") from error
    elif raw.count(b",") + 1 > most:
        raise _wrong_count(one, expected, f"{raw.count(b',') + 1}")


def _wrong_count(one: InferInput, expected: int, got: str) -> InvalidRequest:
    return InvalidRequest.at(one.name, f"expected {counted(expected, 'value')} for shape {one.shape}, got {got}")


def _decode_values(raw: bytes, dtype: str, dimensions: int, with_missing: bool) -> list[Any]:
    """The values of a list, or of lists as deep as the shape, in one list."""
    if raw.lstrip()[1:].lstrip()[:1] == b"[":
        return list(_flat(_decoder(dtype, dimensions, with_missing).decode(raw)))
    flat: list[Any] = _decoder(dtype, 1, with_missing).decode(raw)
    return flat


@cache
def _decoder(dtype: str, depth: int, with_missing: bool) -> msgspec.json.Decoder[Any]:
    """Reads lists of values, `depth` deep, which is at most the dimensions that a body may name."""
    kinds = {"bool": bool, "bytes": str, "float32": float, "float64": float}
    kind: Any = kinds.get(dtype, int)
    if with_missing and kind is float:
        kind = float | None
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for one in values:
            yield from _flat(one)
    else:
        yield values
