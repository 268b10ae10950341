"""The Open Inference Protocol, version 2, over HTTP. Errors on its paths have its shape: `{"error": "…"}`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import APIRouter, Response

from models.programs.contract import Contract, TensorSpec
from service.api.compute_route import INFER, CallDep
from service.api.deps import ManagerDep
from service.api.json_body import read_bytes
from service.api.schemas.open_inference import InferBody
from service.api.tensor_data import (
    DATATYPES,
    describe_inputs,
    read_tensors,
    require_json_form,
    split_body,
    write_outputs,
)
from service.errors import InvalidRequest
from service.serving.program_model import ServedProgram

T = TypeVar("T")
# The protocol has a document of its own, which describes these routes to its clients.
router = APIRouter(tags=["Open Inference Protocol"], include_in_schema=False, dependencies=[INFER])
_HEADER_LENGTH = "inference-header-content-length"
_BINARY = "application/octet-stream"
# Values that take longer to read than a thread to start.
_INLINE_BYTES = 64 * 1024


@router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    """The server's name and version, and what it adds to the protocol."""
    return {"name": "sonde", "version": version("sonde"), "extensions": ["binary_tensor_data"]}


# Decorators apply from the last one up, and the first route that fits a path answers.
@router.get("/v2/models/{model:path}/ready")
@router.get("/v2/models/{model:path}/versions/{number}/ready")
async def model_ready(model: str, manager: ManagerDep, number: str = "") -> Response:
    """200 when the model takes requests."""
    await manager.resolve(_label(model, number))
    return Response()


@router.get("/v2/models/{model:path}")
@router.get("/v2/models/{model:path}/versions/{number}")
async def model_metadata(model: str, manager: ManagerDep, number: str = "") -> dict[str, Any]:
    """The names, datatypes and shapes of a program's inputs and outputs; -1 is a size that varies."""
    served = manager.require_program(await manager.resolve(_label(model, number)))
    contract = served.contract
    return {
        "name": served.metadata.name,
        "versions": [served.metadata.version],
        "platform": "pytorch_exported_program",
        "inputs": [_tensor_metadata(spec, contract) for spec in contract.inputs],
        "outputs": [_tensor_metadata(spec, contract) for spec in contract.outputs],
    }


@router.post("/v2/models/{model:path}/infer")
@router.post("/v2/models/{model:path}/versions/{number}/infer")
async def infer(model: str, call: CallDep, number: str = "") -> Response:
    """The outputs of a program for tensors in JSON, or in raw values after it."""
    request = call.request
    raw = await read_bytes(request.receive, request.headers, call.settings.max_body_bytes)
    served = call.manager.require_program(await call.manager.resolve(_label(model, number)))
    body, binary = split_body(raw, request.headers.get(_HEADER_LENGTH))
    wanted = _wanted(body, served)
    served.check(describe_inputs(body))
    tensors = await _in_pool_if(len(raw) > _INLINE_BYTES, served, lambda: read_tensors(body, binary))
    output = await call.cancel_on_disconnect(served.infer(tensors, call.caller))
    about = {"model_name": served.metadata.name, "model_version": served.metadata.version, "id": body.id}
    chosen = {name: output.tensors[name] for name in wanted}
    in_binary = [name for name, is_binary in wanted.items() if is_binary]
    size = sum(tensor.values.nbytes for tensor in chosen.values())
    content, length = await _in_pool_if(size > _INLINE_BYTES, served, lambda: write_outputs(about, chosen, in_binary))
    response = call.respond(content, served, output, media_type=_BINARY if length is not None else "application/json")
    if length is not None:
        response.headers[_HEADER_LENGTH] = str(length)
    return response


async def _in_pool_if(is_large: bool, served: ServedProgram, work: Callable[[], T]) -> T:
    """Do work in a thread where it is large."""
    return await served.run_in_pool(work) if is_large else work()


def _label(model: str, number: str) -> str:
    return f"{model}:{number}" if number else model


def _wanted(body: InferBody, served: ServedProgram) -> dict[str, bool]:
    """The outputs that a caller wants, and whether as raw values.

    Raises InvalidRequest for an unknown one, and for one that has no form in JSON.
    """
    by_default = body.parameters.binary_data_output
    dtypes = {spec.name: spec.dtype for spec in served.contract.outputs}
    wanted = {one.name: one.parameters.binary_data for one in body.outputs} or dict.fromkeys(dtypes)
    for name, is_binary in wanted.items():
        if name not in dtypes:
            raise InvalidRequest.at("outputs", f"no output {name!r}; the model has: {', '.join(dtypes)}")
        if not (by_default if is_binary is None else is_binary):
            require_json_form(name, dtypes[name])
    return {name: by_default if is_binary is None else is_binary for name, is_binary in wanted.items()}


def _tensor_metadata(spec: TensorSpec, contract: Contract) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in contract.shape_of(spec)]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}
