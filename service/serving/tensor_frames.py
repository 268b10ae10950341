"""Programs as frames: what a front must know of one, the tensors of a request, and the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np

from models.programs.contract import Contract, Limits, Size, TensorSpec
from models.programs.description import Description
from models.programs.expressions import Expression, parse
from models.programs.tensors import NUMPY_DTYPES, HostTensor
from service.engine.frames import SubmitTensors, TensorPart, header
from service.engine.request import Item, Request
from service.serving.program_model import DescribedProgram, TensorItem, Tensors, cost_in_tokens


class _Spec(msgspec.Struct, array_like=True):
    """A tensor of a contract; arithmetic of sizes is a text."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class _Facts(msgspec.Struct, array_like=True):
    """A contract and a description."""

    inputs: tuple[_Spec, ...]
    outputs: tuple[_Spec, ...]
    limits: dict[str, Limits]
    conditions: tuple[str, ...]
    ids: dict[str, Limits]
    description: Description


def write_facts(program: DescribedProgram) -> bytes:
    """The contract and the description of a program."""
    contract = program.contract
    inputs, outputs = (tuple(map(_write_spec, specs)) for specs in (contract.inputs, contract.outputs))
    conditions = tuple(one.source for one in contract.conditions)
    facts = _Facts(inputs, outputs, dict(contract.limits), conditions, dict(contract.ids), program.description)
    return msgspec.msgpack.encode(facts)


def read_facts(content: bytes) -> tuple[Contract, Description]:
    """The contract and the description that `write_facts` wrote."""
    facts = msgspec.msgpack.decode(content, type=_Facts)
    inputs, outputs = (tuple(map(_read_spec, specs)) for specs in (facts.inputs, facts.outputs))
    conditions = tuple(map(parse, facts.conditions))
    return Contract(inputs, outputs, facts.limits, conditions, facts.ids), facts.description


def _write_spec(spec: TensorSpec) -> _Spec:
    return _Spec(spec.name, spec.dtype, tuple(one.source if isinstance(one, Expression) else one for one in spec.shape))


def _read_spec(spec: _Spec) -> TensorSpec:
    sizes: list[Size] = [parse(one) if isinstance(one, str) else one for one in spec.shape]
    return TensorSpec(spec.name, spec.dtype, tuple(sizes))


def tensor_submission(
    model: str, request: Request, items: Sequence[TensorItem], *, more: bool = False
) -> SubmitTensors:
    """The frame that submits tensors of a request to the engine's `model`."""
    return SubmitTensors(*header(model, request, more=more), tuple(_parts_of(item.tensors) for item in items))


def tensors_of(frame: SubmitTensors) -> list[TensorItem]:
    """The items of a submission. Raises ValueError for values that are not as a shape says."""
    if not frame.items or not all(frame.items):
        raise ValueError("expected items with tensors, got none")
    read = map(_read_parts, frame.items)
    return [TensorItem(tensors, cost_in_tokens(tensors)) for tensors in read]


def outputs_of(request: Request) -> tuple[tuple[TensorPart, ...], ...]:
    """The outputs of each item of a request that is computed; none where its items are no tensors."""
    return tuple(_parts_of(item.finished()) for item in request.items if isinstance(item, TensorItem))


def give_outputs(items: Sequence[Item], outputs: Sequence[tuple[TensorPart, ...]]) -> None:
    """Set the results of a request's items. Raises ValueError where they are others."""
    for item, parts in zip(cast(Sequence[TensorItem], items), outputs, strict=True):
        item.result = _read_parts(parts)


def _parts_of(tensors: Tensors) -> tuple[TensorPart, ...]:
    return tuple(
        TensorPart(name, one.dtype, one.shape, np.ascontiguousarray(one.values).data) for name, one in tensors.items()
    )


def _read_parts(parts: Sequence[TensorPart]) -> dict[str, HostTensor]:
    return {part.name: HostTensor(part.dtype, _values(part)) for part in parts}


def _values(part: TensorPart) -> np.ndarray[tuple[int, ...], np.dtype]:
    if part.dtype not in NUMPY_DTYPES:
        raise ValueError(f"{part.name}: a tensor of {part.dtype}")
    return np.frombuffer(part.values, NUMPY_DTYPES[part.dtype]).reshape(part.shape)
