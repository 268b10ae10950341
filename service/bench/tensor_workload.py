"""The workload of the Open Inference Protocol: tensors as a model's metadata describes them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from service.bench.workload import PreparedRequest, Texts
from service.datatypes import DTYPES
from service.errors import ConfigError

_BYTES = "BYTES"
_DTYPES = DTYPES | {"BF16": "uint16"}  # NumPy has no bfloat16: its bits
# Tensors of numbers take turns, because making them takes longer than sending them.
_DIFFERENT = 16


@dataclass(frozen=True, slots=True)
class TensorInput:
    """An input with all its sizes."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def about(self) -> dict[str, Any]:
        """What a request says of it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


# An input's values as they are sent, and as the raw values of the protocol.
Tensor = tuple[TensorInput, Any, bytes]
# A request's body, and the headers that belong to it.
Encode = Callable[[Sequence[Tensor]], tuple[bytes, bytes]]


def inputs_of(metadata: Mapping[str, Any], batch: int, shapes: Mapping[str, tuple[int, ...]]) -> list[TensorInput]:
    """A model's inputs, with `batch` where the first size varies, and otherwise the sizes of `shapes`.

    Raises ConfigError for a size that nothing says, and for a shape that is nobody's.
    """
    inputs = [_with_sizes(one, batch, shapes) for one in metadata["inputs"]]
    if unknown := shapes.keys() - {one.name for one in inputs}:
        names = ", ".join(one.name for one in inputs)
        raise ConfigError(f"--shape: no input {min(unknown)!r}; the model has: {names}")
    return inputs


def _with_sizes(one: Mapping[str, Any], batch: int, shapes: Mapping[str, tuple[int, ...]]) -> TensorInput:
    name, datatype, stated = str(one["name"]), str(one["datatype"]), [int(size) for size in one["shape"]]
    shape = shapes.get(name) or tuple(batch if size < 0 and not at else size for at, size in enumerate(stated))
    if len(shape) != len(stated) or min(shape, default=1) < 0:
        raise ConfigError(f"--shape: expected the {len(stated)} sizes of {name}, which varies: --shape {name}:1,16")
    if datatype not in _DTYPES:
        raise ConfigError(f"{name} has datatype {datatype}, which sonde bench cannot make")
    return TensorInput(name, datatype, shape)


class TensorRequests:
    """An endless source of requests. Texts differ; tensors of numbers are `_DIFFERENT` ones in turn."""

    def __init__(self, inputs: Sequence[TensorInput], texts: Texts, encode: Encode, *, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._texts = texts
        self._encode = encode
        self._inputs = inputs
        self._rows = inputs[0].shape[0] if inputs and inputs[0].shape else 1
        self._numbers = {
            one.name: itertools.cycle([_numbers(random, one) for _ in range(_DIFFERENT)])
            for one in inputs
            if one.datatype != _BYTES
        }

    def __iter__(self) -> Iterator[PreparedRequest]:
        return self

    def __next__(self) -> PreparedRequest:
        tokens = 0
        tensors: list[Tensor] = []
        for one in self._inputs:
            if one.datatype == _BYTES:
                taken = [self._texts.take() for _ in range(math.prod(one.shape))]
                tokens += sum(count for _, count in taken)
                texts = [text for text, _ in taken]
                tensors.append((one, texts, b"".join(_with_length(text.encode()) for text in texts)))
            else:
                values = next(self._numbers[one.name])
                tensors.append((one, values.ravel(), values.tobytes()))
        body, headers = self._encode(tensors)
        return PreparedRequest(body, "tensors", self._rows, tokens, headers)


def encode_json(tensors: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """Values in JSON."""
    inputs = [{**one.about, "data": values} for one, values, _ in tensors]
    return orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY), b""


def encode_raw(tensors: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """Raw values after the JSON, as Triton's client sends them, and asks for them."""
    inputs = [{**one.about, "parameters": {"binary_data_size": len(raw)}} for one, _, raw in tensors]
    header = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    body = b"".join([header, *(raw for _, _, raw in tensors)])
    return body, b"inference-header-content-length: %d\r\n" % len(header)


def _numbers(random: np.random.Generator, one: TensorInput) -> Any:
    """Random numbers: of integers zeros and ones, for which all tables have rows."""
    if one.datatype == "BF16":
        return (random.standard_normal(one.shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if one.datatype.startswith("FP"):
        return random.standard_normal(one.shape).astype(_DTYPES[one.datatype])
    return random.integers(0, 2, one.shape).astype(_DTYPES[one.datatype])


def _with_length(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text
