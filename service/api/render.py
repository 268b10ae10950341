"""Answers with many vectors, built as bytes: a pydantic object per vector would cost more than the model."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from models.calibration import smallest_p_value
from models.vectors import normalize, shorten
from service.engine.served import Rows, Served
from service.errors import InvalidRequest

Vectors = NDArray[np.float32]
# Fewer numbers than this are written on the event loop; more would hold other callers up.
INLINE_NUMBERS = 16_384


def finished(vectors: Vectors, *, normalized: bool, dimensions: int | None) -> Vectors:
    """Vectors as the caller wants them: shortened first, then scaled."""
    short = shorten(vectors, dimensions)
    return normalize(short) if normalized else np.ascontiguousarray(short)


def check_dimensions(dimensions: int | None, served: Served) -> None:
    """Refuse more dimensions than the model has."""
    if dimensions is not None and dimensions > served.card.width:
        raise InvalidRequest(f"dimensions: {served.card.name} has {served.card.width}, got {dimensions}", param="dimensions")


def usage(*parts: Rows) -> dict[str, int]:
    """OpenAI's usage object: all tokens computed, special ones included."""
    total = sum(rows.token_count for rows in parts)
    return {"prompt_tokens": total, "total_tokens": total}


def embeddings_body(vectors: Vectors, rows: Rows, model: str, encoding: Literal["float", "base64"]) -> bytes:
    """OpenAI's answer, vector by vector, so that other threads get their turn in between."""
    write = _base64 if encoding == "base64" else _numbers
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b,"truncated":%b}'
        % (index, write(vector), b"true" if tokens.truncated else b"false")
        for index, (vector, tokens) in enumerate(zip(vectors, rows.tokens, strict=True))
    )
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (items, orjson.dumps(model), orjson.dumps(usage(rows)))


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
