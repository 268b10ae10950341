"""Requests and answers of ModelInfer, to and from what HTTP's are read into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from models.counted import counted
from models.programs.tensors import NUMPY_DTYPES
from service.api.schemas.open_inference import MOST_DIMENSIONS, InferBody
from service.api.tensors.data import bytes_tensor, to_raw
from service.api.tensors.inference import Inference
from service.api.tensors.refusals import validation_error
from service.datatypes import DATATYPES, DTYPES
from service.errors import InvalidRequest
from service.inference_messages import message

_RESPONSE = message("ModelInferResponse")
# The field that holds the values of a datatype. FP16 and BF16 travel as raw values alone.
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Values that become Python's numbers at a time.
_PART = 65_536


def read_request(request: Any) -> InferBody:
    """A request's body without values. Raises InvalidRequest."""
    for index, one in enumerate(request.inputs):
        if len(one.shape) > MOST_DIMENSIONS:
            expected = f"expected at most {MOST_DIMENSIONS} dimensions, got {len(one.shape)}"
            raise InvalidRequest.at(f"inputs[{index}].shape", expected)
    fields = {
        "id": request.id,
        "parameters": {**_read_parameters(request.parameters), "binary_data_output": True},
        "inputs": [
            {
                "name": one.name,
                "datatype": one.datatype,
                "shape": list(one.shape),
                "parameters": _read_parameters(one.parameters),
            }
            for one in request.inputs
        ],
        "outputs": [{"name": one.name, "parameters": _read_parameters(one.parameters)} for one in request.outputs],
    }
    try:
        return msgspec.convert(fields, InferBody)
    except msgspec.ValidationError as error:
        raise validation_error(error, msgspec.json.encode(fields)) from error


def write_response(made: Inference) -> Any:
    """An answer, whose values are raw."""
    about = dict(made.about)
    response = _RESPONSE(**{name: about[name] for name in ("model_name", "model_version", "id")})
    for name, value in about.get("parameters", {}).items():
        kind = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(response.parameters[name], kind, value)
    for name, tensor in made.outputs.items():
        response.outputs.add(name=name, datatype=DATATYPES[tensor.dtype], shape=tensor.shape)
        response.raw_output_contents.append(to_raw(tensor))
    return response


def _read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: (value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}
    return {name: getattr(value, kind) if kind else None for name, (value, kind) in chosen.items()}


def raw_values(request: Any) -> list[memoryview]:
    """The raw values of each input. Raises InvalidRequest."""
    if not request.raw_input_contents:
        return [memoryview(_from_contents(one)) for one in request.inputs]
    if len(request.raw_input_contents) != len(request.inputs):
        expected = f"expected one for each of the {len(request.inputs)} inputs"
        raise InvalidRequest.at("raw_input_contents", f"{expected}, got {len(request.raw_input_contents)}")
    return [memoryview(raw) for raw in request.raw_input_contents]


def _from_contents(one: Any) -> bytes:
    """The values of an input's contents as raw values. Raises InvalidRequest."""
    field = _CONTENTS.get(one.datatype)
    if field is None:
        known = ", ".join(_CONTENTS)
        raise InvalidRequest.at(one.name, f"expected raw_input_contents, or contents of {known}; got {one.datatype!r}")
    values: Sequence[Any] = getattr(one.contents, field)
    others = [kind.name for kind, _ in one.contents.ListFields() if kind.name != field]
    if others:
        raise InvalidRequest.at(one.name, f"expected {one.datatype} in {field}, got {', '.join(others)}")
    if one.datatype == "BYTES":
        return to_raw(bytes_tensor(list(values)))
    if len(values) != (expected := math.prod(one.shape)):
        wanted = f"{counted(expected, 'value')} for shape {list(one.shape)}"
        raise InvalidRequest.at(one.name, f"expected {wanted}, got {len(values)}")
    dtype = NUMPY_DTYPES[DTYPES[one.datatype]]
    try:
        parts = [np.array(values[at : at + _PART], dtype).tobytes() for at in range(0, len(values), _PART)]
        return b"".join(parts)
    except OverflowError as error:
        limits = np.iinfo(dtype)
        wrong = next(value for value in values if not limits.min <= value <= limits.max)
        expected = f"expected {one.datatype}, {limits.min} to {limits.max}"
        raise InvalidRequest.at(one.name, f"{expected}, got {wrong}") from error
