"""Ollama's embeddings and models. Errors on its paths have its shape; see `service.api.error_responses`."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from fastapi import APIRouter, Response

from models.metadata import ModelMetadata
from service.api.compute_route import INFER, CallDep, compute_route
from service.api.dependencies import ManagerDep
from service.api.json_body import JsonRoute
from service.api.openapi import COMPUTING, errors
from service.api.routes.embeddings import check_dimensions, embed_inputs, finish_vectors, vectors_body
from service.api.schemas.ollama import (
    OllamaDescription,
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaError,
    OllamaModels,
    OllamaShowBody,
    OllamaVector,
    OllamaVectors,
    OllamaVersion,
)
from service.api.schemas.requests import name_by_index, name_inputs
from service.serving.text_model import ModelOutput, TokenizeOptions
from service.version import VERSION

router = APIRouter(route_class=JsonRoute, tags=["Ollama"])
_STARTED = datetime.now(UTC).isoformat()
_CAPABILITIES = {"embedding": ["embedding"]}


@compute_route(router, "/api/embed", OllamaVectors, "Embed texts (Ollama)", error=OllamaError)
async def embed(body: OllamaEmbedBody, call: CallDep) -> Response:
    """One vector per input, in order; none without inputs, which Ollama's clients send to have a model loaded."""
    served = await call.manager.resolve_for("embedding", _without_tag(body.model))
    call.require_inputs(len(body.input), "input")
    check_dimensions(body.dimensions, served)
    if not body.input:
        return call.respond(_vectors_answer(body.model, b"[]"), served)
    options = TokenizeOptions(served.prompt(None), body.truncate, name=name_inputs("input", body.input))

    def write(rows: ModelOutput) -> bytes:
        vectors = vectors_body(finish_vectors(rows.values, dimensions=body.dimensions))
        took_s = rows.tokenize_s + rows.queue_s + rows.inference_s
        return _vectors_answer(body.model, vectors, took_s, rows.token_count)

    return await embed_inputs(body.input, served, call, options, write)


@compute_route(router, "/api/embeddings", OllamaVector, "Embed one text (Ollama)", error=OllamaError)
async def embed_prompt(body: OllamaEmbeddingsBody, call: CallDep) -> Response:
    """The vector of the prompt, which is empty where the prompt is."""
    served = await call.manager.resolve_for("embedding", _without_tag(body.model))
    if not body.prompt:
        return call.respond(b'{"embedding":[]}', served)
    options = TokenizeOptions(served.prompt(None), param="prompt", name=name_by_index("prompt", alone=True))

    def write(rows: ModelOutput) -> bytes:
        return b'{"embedding":%b}' % vectors_body(finish_vectors(rows.values))[1:-1]

    return await embed_inputs([body.prompt], served, call, options, write)


@router.get(
    "/api/tags",
    dependencies=[INFER],
    responses=errors(401, 403, 429, 503, shape=OllamaError),
    response_model=OllamaModels,
    summary="List models (Ollama)",
)
async def list_models(manager: ManagerDep) -> dict[str, Any]:
    """All models in service."""
    manager.require_ready()
    return {"models": [_listed(served.metadata) for served in manager.all()]}


@router.post(
    "/api/show",
    dependencies=[INFER],
    responses=errors(*COMPUTING, shape=OllamaError),
    response_model=OllamaDescription,
    summary="One model (Ollama)",
)
async def show_model(body: OllamaShowBody, manager: ManagerDep) -> dict[str, Any]:
    """A model's kind, length and dimensions."""
    metadata = (await manager.resolve(_without_tag(body.model or body.name or ""))).metadata
    kind = metadata.architecture
    return {
        "details": _details(metadata),
        "model_info": {
            "general.architecture": kind,
            f"{kind}.context_length": metadata.max_tokens,
            f"{kind}.embedding_length": metadata.width,
        },
        "capabilities": _CAPABILITIES.get(metadata.task, []),
        "modified_at": _STARTED,
    }


@router.get(
    "/api/version",
    dependencies=[INFER],
    responses=errors(401, 403, 429, shape=OllamaError),
    response_model=OllamaVersion,
    summary="Version (Ollama)",
)
async def get_version() -> dict[str, str]:
    """Sonde's version."""
    return {"version": VERSION}


def _vectors_answer(model: str, vectors: bytes, took_s: float = 0.0, tokens: int = 0) -> bytes:
    answer = {
        "model": model,
        "embeddings": orjson.Fragment(vectors),
        "total_duration": int(1e9 * took_s),
        "load_duration": 0,
        "prompt_eval_count": tokens,
    }
    return orjson.dumps(answer)


def _without_tag(name: str) -> str:
    """A model's name without the tag that Ollama's clients add."""
    return name.removesuffix(":latest")


def _listed(metadata: ModelMetadata) -> dict[str, Any]:
    label = f"{metadata.name}:{metadata.version}"
    return {
        "name": metadata.name,
        "model": metadata.name,
        "modified_at": _STARTED,
        "digest": sha256(label.encode()).hexdigest(),
        "details": _details(metadata),
    }


def _details(metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "format": "safetensors",
        "family": metadata.architecture,
        "families": [metadata.architecture],
        "parameter_size": "",
        "quantization_level": metadata.dtype,
    }
