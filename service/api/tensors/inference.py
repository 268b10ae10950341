"""One inference of the Open Inference Protocol: from a body that was read to the outputs that its caller wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from models.programs.tensors import HostTensor
from service.api.schemas.open_inference import (
    PRIORITY_LEVELS,
    InferBody,
    InferOutput,
    InferParameters,
    OutputParameters,
)
from service.api.tensors.data import bytes_tensor, describe_inputs, read_tensors, require_json_form
from service.api.tensors.model import TensorCall, TensorModel
from service.errors import InvalidRequest
from service.serving.program_model import Tensors
from service.serving.servable import Caller, Servable, Timings

T = TypeVar("T")
# Values that take longer to read or write than a thread to start.
INLINE_BYTES = 64 * 1024
# Sorting takes ten times as long, and each of the best values becomes a text.
_INLINE_RANKED = 8 * 1024
_MOST_RANKED = 200_000
# Others have no best values.
_NUMBERS = {"uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


@dataclass(frozen=True, slots=True)
class Inference:
    """The outputs that a caller wants, in order; those `in_binary` as raw values. `about` is the rest of the answer."""

    outputs: Mapping[str, HostTensor]
    in_binary: Sequence[str]
    about: Mapping[str, Any]
    parts: Sequence[Timings]


async def infer(
    body: InferBody,
    parts: Callable[[], Sequence[memoryview | None]],
    cost_bytes: int,
    model: TensorModel[Any],
    caller: Caller,
) -> Inference:
    """Check a request against the model's contract, and compute it. To read it costs as much as `cost_bytes` of JSON.

    `parts` gives the inputs' raw values. It is called once shapes are known to be right.

    Raises TensorError and InvalidRequest naming what does not fit, and what `TensorModel.infer` raises.
    """
    wanted, described, options = _wanted(body, model), describe_inputs(body), body.options
    model.check(described, options)
    tensors = await in_pool_if(
        cost_bytes > INLINE_BYTES,
        model.served,
        lambda: read_tensors(body, described, parts(), with_missing=model.with_missing),
    )
    output = await model.infer(TensorCall(tensors, wanted, options, _with_request_limits(caller, options)))
    outputs = await _ranked_outputs(output.tensors, wanted, model)
    in_binary = [name for name, one in wanted.items() if _is_binary(body, one)]
    metadata = model.served.metadata
    about: dict[str, Any] = {"model_name": metadata.name, "model_version": metadata.version, "id": body.id or ""}
    if output.parameters:
        about["parameters"] = output.parameters
    return Inference(outputs, in_binary, about, output.parts)


async def in_pool_if(is_large: bool, served: Servable, work: Callable[[], T]) -> T:
    """Do work in a thread where it is large."""
    return await served.run_in_pool(work) if is_large else work()


def _wanted(body: InferBody, model: TensorModel[Any]) -> dict[str, OutputParameters]:
    """The outputs that a caller wants, by default all.

    Raises InvalidRequest for one that the model lacks, and for one that has not the form that is wanted.
    """
    dtypes = {spec.name: spec.dtype for spec in model.contract.outputs}
    outputs = body.outputs or [InferOutput(name) for name in dtypes]
    wanted = {one.name: one.parameters or OutputParameters() for one in outputs}
    for name, parameters in wanted.items():
        if name not in dtypes:
            raise InvalidRequest.at("outputs", f"no output {name!r}; the model has: {', '.join(dtypes)}")
        if parameters.classification:
            _require_numbers(name, dtypes[name])
        elif not _is_binary(body, parameters):
            require_json_form(name, dtypes[name])
    return wanted


def _is_binary(body: InferBody, output: OutputParameters) -> bool:
    """Whether an output goes out as raw values."""
    return bool(body.options.binary_data_output if output.binary_data is None else output.binary_data)


def _require_numbers(name: str, dtype: str) -> None:
    """Raise InvalidRequest for an output whose values cannot be ranked."""
    if dtype not in _NUMBERS:
        raise InvalidRequest.at(name, f"{dtype} has no best values: leave out classification")


def _with_request_limits(caller: Caller, parameters: InferParameters) -> Caller:
    """The caller with the priority and the time of a request; of two deadlines the earlier one holds."""
    if (parameters.priority or 0) >= PRIORITY_LEVELS:
        caller = replace(caller, bulk=True)
    if not parameters.timeout:
        return caller
    deadline = time.monotonic() + parameters.timeout / 1e6
    if caller.patience_s is None and caller.deadline is not None:
        deadline = min(deadline, caller.deadline)
    return replace(caller, deadline=deadline, patience_s=None)


async def _ranked_outputs(
    tensors: Tensors, wanted: Mapping[str, OutputParameters], model: TensorModel[Any]
) -> Mapping[str, HostTensor]:
    """The outputs as their caller wants them. Raises InvalidRequest for more best values than one answer has."""
    ranked = [tensors[name].values.nbytes for name, one in wanted.items() if one.classification]
    if not ranked:
        return {name: tensors[name] for name in wanted}
    return await in_pool_if(
        max(ranked) > _INLINE_RANKED,
        model.served,
        lambda: {name: _ranked(tensors[name], one, model.labels.get(name, ())) for name, one in wanted.items()},
    )


def _ranked(tensor: HostTensor, wanted: OutputParameters, labels: Sequence[str]) -> HostTensor:
    """An output as its caller wants it. Raises InvalidRequest for more best values than one answer has."""
    if not wanted.classification:
        return tensor
    columns = tensor.shape[-1] if tensor.shape else 1
    count = tensor.values.size // max(columns, 1) * min(wanted.classification, columns)
    if count > _MOST_RANKED:
        message = f"{count} best values, {_MOST_RANKED} are allowed: ask for fewer of each row, or send fewer rows"
        raise InvalidRequest.at("classification", message)
    return best_values(tensor, wanted.classification, labels)


def best_values(tensor: HostTensor, count: int, labels: Sequence[str]) -> HostTensor:
    """The `count` best values of each row as BYTES `value:index[:label]`, as Triton writes them."""
    rows = tensor.values.reshape(-1, tensor.shape[-1] if tensor.shape else 1)
    texts = [
        f"{row[at]:f}:{at}{f':{labels[at]}' if labels else ''}".encode()
        for row in rows
        for at in np.argsort(-row.astype(np.float64), kind="stable")[:count]
    ]
    return bytes_tensor(texts, (*tensor.shape[:-1], min(count, rows.shape[1])))
