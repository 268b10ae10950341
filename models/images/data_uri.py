"""Images as data URIs, for reports, golden inputs and people's review."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image
from pybase64 import b64decode, b64encode

from models.images.reader import ImageLimits, read_image

# A text of feedback may have no more, and an image is kept as one.
MAX_KEPT_CHARACTERS = 100_000
_KEPT_BYTES = (MAX_KEPT_CHARACTERS - 40) // 4 * 3
_KEPT_SIDE = 512
# What begins a block of EXIF or XMP in a JPEG, then in a PNG: both may say where and by whom an image was taken.
_PERSONAL = (b"Exif\0\0", b"http://ns.adobe.com/xap/", b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")
_KEPT_AS_SENT = {b"\xff\xd8": "jpeg", b"\x89PNG": "png"}


def to_data_uri(image: Image.Image, side: int, kind: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """An image as a data URI, scaled to at most `side` pixels a side."""
    small = image.copy()
    small.info.clear()  # such as a comment, which Pillow would write again
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"


def to_kept_data_uri(data: bytes, limits: ImageLimits, param: str) -> str:
    """An encoded image as a data URI of at most 100,000 characters.

    A JPEG or PNG of that size without EXIF and XMP stays as it came. Others become JPEGs of at most 512 pixels a side.
    Raises ImageError.
    """
    image = read_image(data, limits, param, side=_KEPT_SIDE)
    kind = next((kind for start, kind in _KEPT_AS_SENT.items() if data.startswith(start)), None)
    if kind is not None and len(data) <= _KEPT_BYTES and not any(mark in data for mark in _PERSONAL):
        return f"data:image/{kind};base64,{b64encode(data).decode()}"
    uri = to_data_uri(image, _KEPT_SIDE)
    return uri if len(uri) <= MAX_KEPT_CHARACTERS else to_data_uri(image, _KEPT_SIDE // 2)


def from_data_uri(uri: str) -> bytes:
    """The bytes of a data URI of base64. Raises ValueError for anything else."""
    head, comma, content = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ValueError(f"expected a data URI of base64, got {uri[:40]!r}")
    return b64decode(content, validate=True)
