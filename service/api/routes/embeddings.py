"""OpenAI's embeddings, and vectors as JSON.

Answers are built as bytes: a pydantic object for each vector would cost more than the model.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from models.linalg import normalize, quantize, shorten
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.image_urls import fetch_images
from service.api.routes.program_inputs import program_rows, refuse_text_fields
from service.api.schemas.images import EncodedImage
from service.api.schemas.requests import check_text, name_inputs
from service.api.schemas.texts import EmbeddingsAnswer, EmbeddingsBody
from service.errors import InvalidRequest
from service.serving.image_model import ImageOutput, ReadsImages
from service.serving.program_model import ProgramRows, ServedProgram
from service.serving.servable import Servable
from service.serving.text_model import Inputs, ModelOutput, ServedText, TokenizeOptions
from service.serving.token_ids import TokenDecoder

Vectors = NDArray[np.float32]
RowsT = TypeVar("RowsT", ModelOutput, ImageOutput, ProgramRows)
router = APIRouter(tags=["OpenAI"])
# Larger answers are written in the pool, because they would hold up other callers on the event loop.
INLINE_NUMBERS = 16_384
# So are more token ids than this decoded.
_INLINE_IDS = 2_000


@compute_route(router, "/v1/embeddings", EmbeddingsAnswer, "Embed texts or images")
@compute_route(router, "/embeddings", EmbeddingsAnswer, "Embed texts or images", include_in_schema=False)
async def embeddings(body: EmbeddingsBody, call: CallDep) -> Response:
    """One vector per input, in order. Models of texts and images put both into one space."""
    if body.inputs is not None or body.rows is not None:
        return await _embed_tensors(body, call)
    if (mixed := body.mixed) is not None:
        return await _embed_images(mixed, body, call)
    sent: list[Any] = body.input or []
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(sent), "input")
    check_dimensions(body.dimensions, served)
    name = name_inputs("input", sent)
    prompt = served.prompt(body.prompt_name) if body.prompt_name else served.prompt_for(body.purpose)
    options = TokenizeOptions(prompt=prompt, truncate=body.truncate, name=name)
    inputs = await _read_token_ids(sent, name, served, call)

    return await embed_inputs(inputs, served, call, options, lambda rows: _embeddings_body(rows, body, served))


async def _embed_tensors(body: EmbeddingsBody, call: ComputeCall) -> Response:
    """One vector per row that an exported program makes."""
    served = await call.manager.resolve_program("embedding", body.model)
    check_dimensions(body.dimensions, served)
    work = program_rows(body, served, call)
    return await respond_with_rows(work, served, call, lambda rows: _embeddings_body(rows, body, served))


async def _embed_images(inputs: list[str | EncodedImage], body: EmbeddingsBody, call: ComputeCall) -> Response:
    """One vector per image or text, in order."""
    served = await call.manager.resolve_images("embedding", body.model)
    if isinstance(served, ServedProgram):
        refuse_text_fields(body, served)
    elif body.prompt_name is not None:
        raise InvalidRequest.at("prompt_name", f"goes with texts alone; {served.metadata.name} has none beside images")
    param = "input" if body.images is None else "images"
    call.require_inputs(len(inputs), param)
    check_dimensions(body.dimensions, served)
    work = compute_mixed(inputs, served, call, mixed_options(param, inputs, truncate=body.truncate))
    return await respond_with_rows(work, served, call, lambda rows: _embeddings_body(rows, body, served))


async def compute_mixed(
    inputs: list[str | EncodedImage], served: ReadsImages, call: ComputeCall, options: TokenizeOptions
) -> ImageOutput:
    """The rows of texts and images, which are fetched where they came as URLs."""
    return await served.mixed_rows(await fetch_images(inputs, call), call.caller, "embedding", options)


def mixed_options(param: str, inputs: list[str | EncodedImage], *, truncate: bool) -> TokenizeOptions:
    """The options of texts beside images, of which each has its own name."""
    named = name_inputs(param, inputs)
    return TokenizeOptions(
        truncate=truncate, name=lambda at: item.param if isinstance(item := inputs[at], EncodedImage) else named(at)
    )


async def embed_inputs(
    inputs: Inputs,
    served: ServedText,
    call: ComputeCall,
    options: TokenizeOptions,
    write: Callable[[ModelOutput], bytes],
) -> Response:
    """The answer that `write` makes of the rows of texts or token ids."""
    return await respond_with_rows(served.rows(inputs, call.caller, "embedding", options), served, call, write)


async def respond_with_rows(
    work: Coroutine[Any, Any, RowsT], served: Servable, call: ComputeCall, write: Callable[[RowsT], bytes]
) -> Response:
    """The answer that `write` makes of rows."""
    rows = await call.cancel_on_disconnect(work)
    content = write(rows) if rows.values.size <= INLINE_NUMBERS else await served.run_in_pool(lambda: write(rows))
    return call.respond(content, served, rows)


async def _read_token_ids(
    inputs: list[str] | list[list[int]], name: Callable[[int], str], served: ServedText, call: ComputeCall
) -> Inputs:
    """The texts of token ids of OpenAI's vocabulary, or the ids where they are the model's own.

    Raises InvalidRequest unless `--token-ids` says whose ids come: another vocabulary's would give a wrong vector.
    """
    if isinstance(inputs[0], str) or call.settings.token_ids == "model":  # noqa: S105
        return inputs
    decoder: TokenDecoder | None = call.request.app.state.token_decoder
    if decoder is None:
        raise InvalidRequest(
            "input: expected texts, got token ids, which may be of another vocabulary. Have the client send texts "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)). Or start Sonde with --token-ids model "
            "for the model's own ids, or with --token-ids cl100k_base or o200k_base for OpenAI's",
            param="input",
        )
    lists: list[Any] = inputs

    def decode() -> list[str]:
        return [check_text(decoder.decode(ids, name(index)), name(index)) for index, ids in enumerate(lists)]

    return decode() if sum(map(len, lists)) <= _INLINE_IDS else await served.run_in_pool(decode)


def check_dimensions(dimensions: int | None, served: Servable, param: str = "dimensions") -> None:
    """Refuse more dimensions than the model has."""
    if dimensions is not None and dimensions > served.metadata.width:
        raise InvalidRequest.at(param, f"{served.metadata.name} has {served.metadata.width}, got {dimensions}")


def finish_vectors(vectors: Vectors, *, normalized: bool = True, dimensions: int | None = None) -> Vectors:
    """Vectors as the caller wants them: shortened first, then scaled."""
    short = shorten(vectors, dimensions)
    return normalize(short) if normalized else np.ascontiguousarray(short)


def vectors_body(vectors: NDArray[Any]) -> bytes:
    """Vectors of floats or integers as a JSON list of lists."""
    return b"[%b]" % b",".join(map(_to_json, vectors))


def to_base64(vector: NDArray[Any]) -> bytes:
    """A vector as a JSON string: base64 of little-endian float32, or of its bytes."""
    return b'"%b"' % b64encode(vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes())


def _embeddings_body(rows: ModelOutput | ImageOutput | ProgramRows, body: EmbeddingsBody, served: Servable) -> bytes:
    """OpenAI's answer, vector by vector, so that other threads get their turn in between."""
    vectors = finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions)
    numbers: NDArray[Any] = vectors
    quantization = b""
    if body.integers:
        numbers, loss = quantize(vectors, body.integers)
        quantization = b',"quantization":%b' % orjson.dumps({"dtype": body.integers, "loss": loss})
    encode = to_base64 if body.is_base64 else _to_json
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b,"truncated":%b}'
        % (index, encode(vector), b"true" if tokens.truncated else b"false")
        for index, (vector, tokens) in enumerate(zip(numbers, rows.tokens, strict=True))
    )
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (rows.token_count, rows.token_count)
    model = orjson.dumps(body.model or served.metadata.name)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b%b}' % (items, model, usage, quantization)


def _to_json(vector: NDArray[Any]) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
