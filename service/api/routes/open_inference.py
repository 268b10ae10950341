"""The Open Inference Protocol, version 2, over HTTP. Errors on its paths have its shape: `{"error": "…"}`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Response

from service.api.compute_route import INFER, CallDep
from service.api.dependencies import ManagerDep, MetricsDep, SettingsDep
from service.api.hot_path import RawRoute
from service.api.json_body import read_bytes
from service.api.tensors.data import cut_parts, split_body, stated_length, write_outputs
from service.api.tensors.inference import INLINE_BYTES, in_pool_if
from service.api.tensors.inference import infer as infer_tensors
from service.api.tensors.kinds import tensor_model
from service.api.tensors.metadata import model_config, model_metadata
from service.api.tensors.statistics import model_statistics, totals_by_model
from service.version import VERSION

# The protocol has a document of its own, which describes these routes to its clients.
router = APIRouter(tags=["Open Inference Protocol"], include_in_schema=False, dependencies=[INFER])
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
_HEADER_LENGTH = "inference-header-content-length"
_BINARY = "application/octet-stream"
# Raw values are read in less than this share of the time that JSON of their length takes.
_RAW_FACTOR = 32


@router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    """The server's name and version, and what it adds to the protocol."""
    return {"name": "sonde", "version": VERSION, "extensions": EXTENSIONS}


@router.get("/v2/models")
async def list_models(manager: ManagerDep) -> dict[str, list[str]]:
    """The names of all models in service, as KServe lists them."""
    manager.require_ready()
    return {"models": [served.metadata.name for served in manager.all()]}


@router.get("/v2/models/stats")
def all_statistics(manager: ManagerDep, metrics: MetricsDep) -> dict[str, list[dict[str, Any]]]:
    """What was measured of all models in service."""
    totals = totals_by_model(metrics)
    return {"model_stats": [model_statistics(served, totals) for served in manager.all()]}


# Decorators apply from the last one up, and the first route that fits a path answers.
@router.get("/v2/models/{model:path}/ready")
@router.get("/v2/models/{model:path}/versions/{number}/ready")
async def ready(model: str, manager: ManagerDep, number: str = "") -> Response:
    """200 when the model takes requests."""
    await manager.resolve(label(model, number))
    return Response()


@router.get("/v2/models/{model:path}/config")
@router.get("/v2/models/{model:path}/versions/{number}/config")
async def config(model: str, manager: ManagerDep, settings: SettingsDep, number: str = "") -> dict[str, Any]:
    """A model's configuration as Triton has it."""
    return model_config(tensor_model(await manager.resolve(label(model, number)), settings))


@router.get("/v2/models/{model:path}/stats")
@router.get("/v2/models/{model:path}/versions/{number}/stats")
async def statistics(model: str, manager: ManagerDep, metrics: MetricsDep, number: str = "") -> dict[str, Any]:
    """What was measured of a model."""
    served = await manager.resolve(label(model, number))
    totals = await asyncio.to_thread(totals_by_model, metrics)
    return {"model_stats": [model_statistics(served, totals)]}


@router.get("/v2/models/{model:path}")
@router.get("/v2/models/{model:path}/versions/{number}")
async def metadata(model: str, manager: ManagerDep, settings: SettingsDep, number: str = "") -> dict[str, Any]:
    """A model's contract: the names, datatypes and shapes of its inputs and outputs."""
    return model_metadata(tensor_model(await manager.resolve(label(model, number)), settings))


async def infer(model: str, call: CallDep, number: str = "") -> Response:
    """The outputs of a model for tensors in JSON, or in raw values after it."""
    settings = call.settings
    raw = await read_bytes(call.request.receive, call.headers, settings.max_body_bytes)
    served = await call.manager.resolve(label(model, number))
    header_length = call.headers.get(_HEADER_LENGTH)
    json_bytes = int(min(stated_length(header_length), len(raw)))
    body, binary = await in_pool_if(
        json_bytes > INLINE_BYTES, served, lambda: split_body(raw, header_length, settings.max_inputs)
    )
    parts = partial(cut_parts, body, binary)
    cost_bytes, tensors = json_bytes + len(binary) // _RAW_FACTOR, tensor_model(served, settings)
    made = await call.cancel_on_disconnect(infer_tensors(body, parts, cost_bytes, tensors, call.caller))
    answer_bytes = sum(tensor.values.nbytes for tensor in made.outputs.values())
    content, length = await in_pool_if(
        answer_bytes > INLINE_BYTES, served, lambda: write_outputs(made.about, made.outputs, made.in_binary)
    )
    media_type = "application/json" if length is None else _BINARY
    response = call.respond(content, served, *made.parts, media_type=media_type)
    if length is not None:
        response.headers[_HEADER_LENGTH] = str(length)
    return response


for _path in ("/v2/models/{model:path}/versions/{number}/infer", "/v2/models/{model:path}/infer"):
    router.add_api_route(_path, infer, methods=["POST"], route_class_override=RawRoute)


def label(model: str, number: str) -> str:
    """The name of a model, or of one of its versions."""
    return f"{model}:{number}" if number else model
