"""Inputs of an exported program in the body of a task's route, and the rows that it makes of them."""

from __future__ import annotations

import numpy as np
import orjson
import torch

from models.programs.contract import Described
from models.programs.tensors import TORCH_DTYPES, HostTensor
from service.api.hot_path import ComputeCall
from service.api.schemas.open_inference import InferBody
from service.api.schemas.requests import RequestBody
from service.api.schemas.tensors import TakesTensors
from service.api.tensors.data import decode_body, describe_inputs, read_tensors
from service.errors import InvalidRequest
from service.serving.program_model import ProgramRows, ServedProgram, Tensors
from service.serving.servable import Servable

# Fields that only models of texts have.
_OF_TEXTS = ("prompt_name", "truncate")


def refuse_text_fields(body: RequestBody, served: Servable) -> None:
    """Raise InvalidRequest for a field that says how texts are read, which a program would ignore."""
    for name in _OF_TEXTS:
        if name in body.model_fields_set:
            raise InvalidRequest.at(
                name, f"is for texts, and {served.metadata.name} reads {served.reads}: leave it out"
            )


async def program_rows(body: TakesTensors, served: ServedProgram, call: ComputeCall) -> ProgramRows:
    """The rows of the program's task. Raises TensorError and InvalidRequest naming the input that does not fit."""
    refuse_text_fields(body, served)
    rows = body.rows
    if rows is not None:
        call.require_inputs(len(rows), "rows")
        tensors = await served.run_in_pool(lambda: _read_rows(rows, served))
    else:
        tensors = await served.run_in_pool(lambda: _read_tensors(body.inputs or [], served))
    return await served.rows(tensors, call.caller)


def _read_rows(rows: list[list[float]], served: ServedProgram) -> Tensors:
    [spec, *others] = served.contract.inputs
    if others or len(spec.shape) != 2 or "float" not in spec.dtype:
        needs = ", ".join(f"{one.name} {one.dtype} {served.contract.shape_of(one)}" for one in served.contract.inputs)
        expected = f"are for programs with one float input [batch, columns]; {served.metadata.name} has {needs}"
        raise InvalidRequest.at("rows", f"{expected}: send inputs".replace("'", ""))
    served.check({spec.name: Described(spec.dtype, (len(rows), len(rows[0])))})
    tensor = HostTensor.of(torch.from_numpy(np.array(rows, np.float64)).to(TORCH_DTYPES[spec.dtype]))
    if not tensor.is_finite:
        raise InvalidRequest.at("rows", f"expected numbers that {spec.dtype} can hold, got larger ones")
    return {spec.name: tensor}


def _read_tensors(inputs: list[object], served: ServedProgram) -> Tensors:
    try:
        content = orjson.dumps({"inputs": inputs})
    except orjson.JSONEncodeError as error:  # it writes fewer lists within lists than it reads
        raise InvalidRequest.at("inputs", "expected data in lists as deep as its shape, got deeper ones") from error
    read = decode_body(content, InferBody)
    described = describe_inputs(read)
    served.check(described)
    return read_tensors(read, described, [None] * len(read.inputs))
