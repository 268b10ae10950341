"""Images that the tests make, good ones and hostile ones."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
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


def _png_of_chunks(chunks: bytes) -> bytes:
    png = encoded(picture())
    data = png.index(b"IDAT") - 4
    return png[:data] + chunks + png[data:]


def _png_of_one_byte_a_chunk() -> bytes:
    whole = zlib.compress(bytes(600 * 1_801), 0)
    pixels = b"".join(_chunk(b"IDAT", whole[at : at + 1]) for at in range(300_000))
    size = _chunk(b"IHDR", struct.pack(">IIBBBBB", 600, 600, 8, 2, 0, 0, 0))
    return encoded(picture())[:8] + size + pixels + _chunk(b"IEND", b"")


def _jpeg_of(markers: bytes) -> bytes:
    jpeg = encoded(picture(), "JPEG")
    return jpeg[:2] + markers + jpeg[2:]


def _gif_of(blocks: bytes, *, ends: bool = False) -> bytes:
    gif = encoded(picture().convert("P"), "GIF")
    colours = 13 + 3 * (2 << (gif[10] & 7))
    return gif[:colours] + blocks + (b"" if ends else gif[colours:])


# Makers of images whose header or pixels come in very many parts, by name. Each part costs Pillow microseconds.
MANY_PARTS: dict[str, Callable[[], bytes]] = {
    "PNG of chunks": lambda: _png_of_chunks(_chunk(b"prVt", b"") * 100_000),
    "PNG of texts": lambda: _png_of_chunks(b"".join(_chunk(b"tEXt", b"k%d\0v" % at) for at in range(50_000))),
    "PNG of one byte a chunk": _png_of_one_byte_a_chunk,
    "JPEG of markers": lambda: _jpeg_of(b"\xff\xe9\0\x02" * 1_000_000),
    "JPEG of comments": lambda: _jpeg_of(b"\xff\xfe\0\x02" * 1_000_000),
    "JPEG of EXIF blocks": lambda: _jpeg_of(b"\xff\xe1\0\x10Exif\0\0aaaaaaaa" * 200_000),
    "JPEG of padding": lambda: _jpeg_of(b"\xff" * 4_000_000),
    "GIF of comments": lambda: _gif_of(b"\x21\xfe\x01a\0" * 1_000_000),
    "GIF of one comment": lambda: _gif_of(b"\x21\xfe" + b"\x01a" * 2_000_000 + b"\0"),
    "GIF of blocks": lambda: _gif_of(b"\x2c" + bytes(8) + b"\0\x08" + b"\x01a" * 2_000_000 + b"\0\x3b", ends=True),
    "TIFF of strips": lambda: _tiff_of_strips(1_000_000),
    "BMP of runs": lambda: _bmp_of_runs(b"\1\1" * 2_000_000),
    "BMP of line ends": lambda: _bmp_of_runs(b"\0\0" * 2_000_000),
}


def _tiff_of_strips(count: int) -> bytes:
    """A grey TIFF of 64 by 64 whose lines are in strips."""
    values = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in values.items()]
    entries += [struct.pack("<HHLL", tag, 4, count, 200) for tag in (273, 279)]
    start = b"II*\0" + struct.pack("<LH", 8, len(entries)) + b"".join(entries)
    return start.ljust(200, b"\0") + struct.pack("<L", 8) * count


def _bmp_of_runs(runs: bytes) -> bytes:
    """A BMP of 6,000 by 6,600 with run lengths."""
    start = 14 + 40 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, 6000, 6600, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + bytes(1024) + runs


@cache
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
