"""Images that the tests make, good ones and hostile ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth picture without symmetry, so that a turned one differs."""
    chance = np.random.default_rng(seed)
    small = chance.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image in a format of Pillow's."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int, extra: bytes = b"") -> bytes:
    """A valid PNG of one colour that states a size: its lines compress to nearly nothing."""
    line = zlib.compress(bytes(1 + width // 8) * min(height, 16), 9)
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), extra]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, _chunk(b"IDAT", line), _chunk(b"IEND", b"")])


def exif_bomb(size: int = 8 << 20) -> bytes:
    """A PNG whose EXIF block has megabytes of entries."""
    image = encoded(picture())
    block = b"MM\x00*\x00\x00\x00\x08" + b"\xff\xff" + bytes(size)
    at = image.index(b"IDAT") - 4
    return image[:at] + _chunk(b"eXIf", block) + image[at:]


def long_gif(frames: int) -> bytes:
    """A GIF of many frames of one pixel."""
    whole = encoded(Image.new("P", (1, 1)), "GIF")
    start = whole.index(b"\x2c", 13 + 3 * (2 << (whole[10] & 7)))
    frame = whole[start:-1]
    return whole[:start] + frame * frames + b"\x3b"


def polyglot() -> bytes:
    """A JPEG that is a ZIP archive, too."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("run.sh", "echo")
    return encoded(picture(), "JPEG") + stream.getvalue()


def hostile() -> dict[str, bytes]:
    """Files that must be refused, by name."""
    jpeg = encoded(picture(200, 150), "JPEG")
    return {
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "polyglot": polyglot(),
        "huge PNG": png_header(40_000, 40_000),
        "large PNG": png_header(10_000, 10_000),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
        "GIF of 10,000 frames": long_gif(10_000),
        "EXIF bomb": exif_bomb(),
        "thin PNG": png_header(20_000, 8),
        "no image": b"hello",
        "empty": b"",
    }


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
