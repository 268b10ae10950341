"""The methods of `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from service.api.hot_path import facts_of
from service.api.routes.model_repository import load_model, model_index, unload_model
from service.api.routes.open_inference import label
from service.api.tensors.inference import INLINE_BYTES, in_pool_if, infer
from service.api.tensors.kinds import tensor_model
from service.api.tensors.metadata import model_config, model_metadata
from service.api.tensors.statistics import model_statistics, totals_by_model
from service.errors import InvalidRequest
from service.inference_messages import message
from service.rpc.calls import RpcCall, RpcMethod
from service.rpc.tensors import raw_values, read_request, write_response
from service.version import VERSION

_EXTENSIONS = ["classification", "model_configuration", "model_repository", "statistics"]


async def _server_live(request: Any, call: RpcCall) -> Any:
    return message("ServerLiveResponse")(live=True)


async def _server_ready(request: Any, call: RpcCall) -> Any:
    return message("ServerReadyResponse")(ready=call.manager.problem is None)


async def _server_metadata(request: Any, call: RpcCall) -> Any:
    return message("ServerMetadataResponse")(name="sonde", version=VERSION, extensions=_EXTENSIONS)


async def _model_ready(request: Any, call: RpcCall) -> Any:
    await call.manager.resolve(label(request.name, request.version))
    return message("ModelReadyResponse")(ready=True)


async def _model_metadata(request: Any, call: RpcCall) -> Any:
    served = await call.manager.resolve(label(request.name, request.version))
    return message("ModelMetadataResponse")(**model_metadata(tensor_model(served, call.settings)))


async def _model_infer(request: Any, call: RpcCall) -> Any:
    served = await call.manager.resolve(label(request.model_name, request.model_version))
    body = read_request(request)
    work = partial(raw_values, request)
    made = await infer(body, work, request.ByteSize(), tensor_model(served, call.settings), call.caller)
    call.context.facts.update(facts_of(served, made.parts))
    size = sum(tensor.values.nbytes for tensor in made.outputs.values())
    return await in_pool_if(size > INLINE_BYTES, served, lambda: write_response(made))


async def _model_config(request: Any, call: RpcCall) -> Any:
    served = await call.manager.resolve(label(request.name, request.version))
    return message("ModelConfigResponse")(config=model_config(tensor_model(served, call.settings)))


async def _model_statistics(request: Any, call: RpcCall) -> Any:
    """Those of one model, or of all where none is named."""
    models = [await call.manager.resolve(label(request.name, request.version))] if request.name else call.manager.all()
    totals = await asyncio.to_thread(totals_by_model, call.metrics)
    return message("ModelStatisticsResponse")(model_stats=[model_statistics(one, totals) for one in models])


async def _repository_index(request: Any, call: RpcCall) -> Any:
    models = await asyncio.to_thread(model_index, call.manager, call.registry, ready=request.ready)
    return message("RepositoryIndexResponse")(models=models)


async def _load(request: Any, call: RpcCall) -> Any:
    if request.parameters:
        raise InvalidRequest.at("parameters", "models have no configuration or files that a request could replace")
    await load_model(request.model_name, call.manager, call.registry, by=call.context.key.id)
    return message("RepositoryModelLoadResponse")()


async def _unload(request: Any, call: RpcCall) -> Any:
    key = call.context.key.id
    await asyncio.to_thread(unload_model, request.model_name, call.manager, call.registry, by=key)
    return message("RepositoryModelUnloadResponse")()


METHODS = (
    RpcMethod("ServerLive", _server_live, None),
    RpcMethod("ServerReady", _server_ready, None),
    RpcMethod("ServerMetadata", _server_metadata),
    RpcMethod("ModelReady", _model_ready),
    RpcMethod("ModelMetadata", _model_metadata),
    RpcMethod("ModelInfer", _model_infer),
    RpcMethod("ModelConfig", _model_config),
    RpcMethod("ModelStatistics", _model_statistics),
    RpcMethod("RepositoryIndex", _repository_index),
    RpcMethod("RepositoryModelLoad", _load, "admin"),
    RpcMethod("RepositoryModelUnload", _unload, "admin"),
)
