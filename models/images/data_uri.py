"""Images as data URIs, for reports and golden inputs."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image
from pybase64 import b64decode, b64encode


def to_data_uri(image: Image.Image, side: int, kind: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """An image as a data URI, scaled to at most `side` pixels a side."""
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"


def from_data_uri(uri: str) -> bytes:
    """The bytes of a data URI of base64. Raises ValueError for anything else."""
    head, comma, content = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ValueError(f"expected a data URI of base64, got {uri[:40]!r}")
    return b64decode(content, validate=True)
