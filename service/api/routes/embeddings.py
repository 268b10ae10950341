"""OpenAI's embeddings, and vectors as JSON.

Answers are built as bytes: a pydantic object for each vector would cost more than the model.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Literal

import numpy as np
import orjson
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from models.linalg import normalize, shorten
from service.api.fast_path import CallDep, compute_route
from service.api.schemas.fields import name_inputs
from service.api.schemas.texts import EmbeddingsAnswer, EmbeddingsBody
from service.errors import InvalidRequest
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

Vectors = NDArray[np.float32]
router = APIRouter(tags=["OpenAI"])
# Larger answers are written in the pool, because they would hold up other callers on the event loop.
INLINE_NUMBERS = 16_384


@compute_route(router, "/v1/embeddings", EmbeddingsAnswer, "Embed texts")
async def embeddings(body: EmbeddingsBody, call: CallDep) -> Response:
    """One vector per input, in order."""
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(body.input), "input")
    check_dimensions(body.dimensions, served)
    name = name_inputs("input", body.input)
    options = TokenizeOptions(prompt=served.prompt(body.prompt_name), truncate=body.truncate, name=name)
    rows = await call.cancel_on_disconnect(served.rows(body.input, call.caller, "embedding", options))

    def write() -> bytes:
        vectors = finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions)
        return _embeddings_body(vectors, rows, body.model, body.encoding_format)

    content = write() if rows.values.size <= INLINE_NUMBERS else await served.run_in_pool(write)
    return call.respond(content, served, rows)


def check_dimensions(dimensions: int | None, served: ServedText) -> None:
    """Refuse more dimensions than the model has."""
    if dimensions is not None and dimensions > served.metadata.width:
        raise InvalidRequest.at("dimensions", f"{served.metadata.name} has {served.metadata.width}, got {dimensions}")


def finish_vectors(vectors: Vectors, *, normalized: bool, dimensions: int | None) -> Vectors:
    """Vectors as the caller wants them: shortened first, then scaled."""
    short = shorten(vectors, dimensions)
    return normalize(short) if normalized else np.ascontiguousarray(short)


def vectors_body(vectors: Vectors) -> bytes:
    """Vectors as a JSON list of lists."""
    return b"[%b]" % b",".join(map(_to_json, vectors))


def _embeddings_body(vectors: Vectors, rows: ModelOutput, model: str, encoding: Literal["float", "base64"]) -> bytes:
    """OpenAI's answer, vector by vector, so that other threads get their turn in between."""
    encode = _to_base64 if encoding == "base64" else _to_json
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b,"truncated":%b}'
        % (index, encode(vector), b"true" if tokens.truncated else b"false")
        for index, (vector, tokens) in enumerate(zip(vectors, rows.tokens, strict=True))
    )
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (rows.token_count, rows.token_count)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (items, orjson.dumps(model), usage)


def _to_json(vector: Vectors) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _to_base64(vector: Vectors) -> bytes:
    return b'"%b"' % b64encode(vector.astype("<f4", copy=False).tobytes())
