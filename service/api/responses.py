"""Answers with many vectors, built as bytes: a pydantic object per vector would cost more than the model."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from typing import Literal

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray

from models.calibration import smallest_p_value
from models.linalg import normalize, shorten
from service.api.deps import context_of
from service.errors import InvalidRequest
from service.serving.servable import Servable, Timings
from service.serving.text_model import ModelOutput, ServedText

Vectors = NDArray[np.float32]
# Fewer numbers than this are written on the event loop; more would hold other callers up.
INLINE_NUMBERS = 16_384


def finish_vectors(vectors: Vectors, *, normalized: bool, dimensions: int | None) -> Vectors:
    """Vectors as the caller wants them: shortened first, then scaled."""
    short = shorten(vectors, dimensions)
    return normalize(short) if normalized else np.ascontiguousarray(short)


def check_dimensions(dimensions: int | None, served: ServedText) -> None:
    """Refuse more dimensions than the model has."""
    if dimensions is not None and dimensions > served.card.width:
        raise InvalidRequest(
            f"dimensions: {served.card.name} has {served.card.width}, got {dimensions}", param="dimensions"
        )


def usage(*parts: ModelOutput) -> dict[str, int]:
    """OpenAI's usage object: all tokens computed, special ones included."""
    total = sum(rows.token_count for rows in parts)
    return {"prompt_tokens": total, "total_tokens": total}


def embeddings_body(vectors: Vectors, rows: ModelOutput, model: str, encoding: Literal["float", "base64"]) -> bytes:
    """OpenAI's answer, vector by vector, so that other threads get their turn in between."""
    write = _base64 if encoding == "base64" else _numbers
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b,"truncated":%b}'
        % (index, write(vector), b"true" if tokens.truncated else b"false")
        for index, (vector, tokens) in enumerate(zip(vectors, rows.tokens, strict=True))
    )
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        items,
        orjson.dumps(model),
        orjson.dumps(usage(rows)),
    )


def vectors_body(vectors: Vectors) -> bytes:
    """A list of lists of numbers."""
    return b"[%b]" % b",".join(_numbers(vector) for vector in vectors)


def unreachable(count: int, alpha: float, what: str, remedy: str) -> list[str]:
    """A warning where calibration on so many can call nothing an anomaly; `remedy` has `{}` for how many could."""
    finest = smallest_p_value(count)
    if finest <= alpha:
        return []
    why = f"{count} {what} cannot give a p-value below {finest:.3g}, so nothing is an anomaly at alpha {alpha:g}"
    return [f"{why}: {remedy.format(math.ceil(1 / alpha) - 1)} or choose a larger alpha"]


def list_body(model: str, data: Sequence[object], **more: object) -> bytes:
    """`{"object": "list", "model": …, "data": […], …}`."""
    return orjson.dumps({"object": "list", "model": model, "data": data, **more})


def _numbers(vector: Vectors) -> bytes:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(vector: Vectors) -> bytes:
    return b'"%b"' % b64encode(vector.astype("<f4", copy=False).tobytes())


def build_response(request: Request, body: bytes, served: Servable, *parts: Timings) -> Response:
    """A JSON answer that says which model gave it, how long that took and how many inputs were cut."""
    response = Response(body, media_type="application/json")
    truncated = sum(rows.truncated for rows in parts)
    tokenize, queue, inference = (1000 * max((times[i] for times in map(_times, parts)), default=0.0) for i in range(3))
    response.headers["x-sonde-model"] = served.label
    response.headers["x-sonde-truncated"] = str(truncated)
    response.headers["server-timing"] = (
        f"tokenize;dur={tokenize:.2f}, queue;dur={queue:.2f}, inference;dur={inference:.2f}"
    )
    context_of(request).facts.update(
        model=served.label,
        inputs=sum(rows.inputs for rows in parts),
        tokens=sum(rows.token_count for rows in parts),
        truncated=truncated,
        tokenize_ms=round(tokenize, 3),
        queue_ms=round(queue, 3),
        inference_ms=round(inference, 3),
    )
    return response


def _times(rows: Timings) -> tuple[float, float, float]:
    return rows.tokenize_s, rows.queue_s, rows.inference_s
