"""Cohere's embeddings. Its rerank is in `rerank`, its tokens in `tokens`."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Response

from models.linalg import Vectors, quantize
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.routes.embeddings import (
    check_dimensions,
    compute_mixed,
    embed_inputs,
    finish_vectors,
    mixed_options,
    respond_with_rows,
    to_base64,
    vectors_body,
)
from service.api.schemas.cohere import CohereEmbedBody, CohereEmbeddings, EmbeddingType
from service.api.schemas.images import EncodedImage
from service.serving.image_model import ImageOutput
from service.serving.text_model import ModelOutput, Purpose, TokenizeOptions

router = APIRouter(tags=["Cohere"])
_PURPOSES: dict[str, Purpose] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}


@compute_route(router, "/v1/embed", CohereEmbeddings, "Embed texts or images (Cohere v1)")
@compute_route(router, "/v2/embed", CohereEmbeddings, "Embed texts or images (Cohere v2)")
async def embed(body: CohereEmbedBody, call: CallDep) -> Response:
    """One vector per text or image and type, in order."""
    param, inputs = body.source
    call.require_inputs(len(inputs), param)
    if any(isinstance(item, EncodedImage) for item in inputs):
        return await _embed_images(inputs, param, body, call)
    served = await call.manager.resolve_for("embedding", body.model)
    check_dimensions(body.output_dimension, served, "output_dimension")
    options = TokenizeOptions(
        prompt=served.prompt_for(_PURPOSES.get(body.input_type or "")),
        truncate=body.truncate != "NONE",
        side="left" if body.truncate == "START" else "right",
        max_tokens=body.max_tokens,
        param=param,
    )
    texts = [item for item in inputs if isinstance(item, str)]
    return await embed_inputs(texts, served, call, options, partial(_write, body, call, inputs))


async def _embed_images(
    inputs: list[str | EncodedImage], param: str, body: CohereEmbedBody, call: ComputeCall
) -> Response:
    served = await call.manager.resolve_images("embedding", body.model)
    check_dimensions(body.output_dimension, served, "output_dimension")
    options = mixed_options(param, inputs, truncate=body.truncate != "NONE")
    work = compute_mixed(inputs, served, call, options)
    return await respond_with_rows(work, served, call, partial(_write, body, call, inputs))


def _write(
    body: CohereEmbedBody, call: ComputeCall, inputs: list[str | EncodedImage], rows: ModelOutput | ImageOutput
) -> bytes:
    version = call.request.url.path[2]
    by_type = version == "2" or body.embedding_types is not None
    vectors = finish_vectors(rows.values, dimensions=body.output_dimension)
    images = sum(not isinstance(item, str) for item in inputs)
    billed = {"input_tokens": rows.token_count} | ({"images": images} if images else {})
    answer: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
        "embeddings": orjson.Fragment(_by_type(vectors, body) if by_type else vectors_body(vectors)),
        "texts": [item for item in inputs if isinstance(item, str)],
        "meta": {"api_version": {"version": version}, "billed_units": billed},
    }
    return orjson.dumps(answer)


def _by_type(vectors: Vectors, body: CohereEmbedBody) -> bytes:
    kinds = dict.fromkeys(body.embedding_types or ("float",))
    return b"{%b}" % b",".join(b'"%b":%b' % (kind.encode(), _as_type(vectors, kind)) for kind in kinds)


def _as_type(vectors: Vectors, kind: EmbeddingType) -> bytes:
    if kind == "base64":
        return b"[%b]" % b",".join(map(to_base64, vectors))
    return vectors_body(vectors if kind == "float" else quantize(vectors, kind)[0])
