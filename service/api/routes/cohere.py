"""Cohere's embeddings. Its rerank is in `rerank`, its tokens in `tokens`."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
from fastapi import APIRouter, Response

from models.linalg import Vectors, quantize
from service.api.compute_route import CallDep, compute_route
from service.api.routes.embeddings import check_dimensions, embed_inputs, finish_vectors, to_base64, vectors_body
from service.api.schemas.cohere import CohereEmbedBody, CohereEmbeddings, EmbeddingType
from service.serving.text_model import ModelOutput, Purpose, TokenizeOptions

router = APIRouter(tags=["Cohere"])
_PURPOSES: dict[str, Purpose] = {
    "search_document": "document",
    "search_query": "query",
    "classification": "classification",
    "clustering": "clustering",
}


@compute_route(router, "/v1/embed", CohereEmbeddings, "Embed texts (Cohere v1)")
@compute_route(router, "/v2/embed", CohereEmbeddings, "Embed texts (Cohere v2)")
async def embed(body: CohereEmbedBody, call: CallDep) -> Response:
    """One vector per text and type, in order."""
    served = await call.manager.resolve_for("embedding", body.model)
    param, texts = body.source
    call.require_inputs(len(texts), param)
    check_dimensions(body.output_dimension, served, "output_dimension")
    options = TokenizeOptions(
        prompt=served.prompt_for(_PURPOSES.get(body.input_type or "")),
        truncate=body.truncate != "NONE",
        side="left" if body.truncate == "START" else "right",
        max_tokens=body.max_tokens,
        param=param,
    )
    version = call.request.url.path[2]
    by_type = version == "2" or body.embedding_types is not None

    def write(rows: ModelOutput) -> bytes:
        vectors = finish_vectors(rows.values, dimensions=body.output_dimension)
        answer: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
            "embeddings": orjson.Fragment(_by_type(vectors, body) if by_type else vectors_body(vectors)),
            "texts": texts,
            "meta": {"api_version": {"version": version}, "billed_units": {"input_tokens": rows.token_count}},
        }
        return orjson.dumps(answer)

    return await embed_inputs(texts, served, call, options, write)


def _by_type(vectors: Vectors, body: CohereEmbedBody) -> bytes:
    kinds = dict.fromkeys(body.embedding_types or ("float",))
    return b"{%b}" % b",".join(b'"%b":%b' % (kind.encode(), _as_type(vectors, kind)) for kind in kinds)


def _as_type(vectors: Vectors, kind: EmbeddingType) -> bytes:
    if kind == "base64":
        return b"[%b]" % b",".join(map(to_base64, vectors))
    return vectors_body(vectors if kind == "float" else quantize(vectors, kind)[0])
