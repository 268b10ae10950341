"""Bytes of an image to RGB pixels: bytes, pixels and frames are bounded before anything is decoded."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from models.errors import ImageError, ImageTooLarge, UnsupportedImage
from models.images.gif_frames import count_frames
from models.images.tiff_strips import count_strips
from models.signatures import RAR, SEVEN_ZIP, START_BYTES, content_of

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_READ = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# Cameras write up to 64 KiB, most of it a small picture.
_MAX_EXIF_BYTES = 256 * 1024
# A longer image would be scaled to gigabytes by a model that scales the shorter side.
_MAX_ASPECT = 64
_ORIENTATION = 0x0112
# A larger image is reduced before it is turned and scaled.
_LARGE_PIXELS = 8_000_000
# Reads of a file, of which each part of it takes two to four. A header with ten times the parts of a camera's is read;
# pixels come in blocks of kilobytes. Pillow takes microseconds for each part, and some parts are joined anew each time.
_MOST_HEADER_READS = 2_000
_MOST_READS = 200_000
# Each strip of a TIFF becomes an object. Cameras and scanners write one of up to 64 rows.
_MOST_STRIPS = 65_536
# What a file that is also a document or a program has somewhere.
_OTHER_CONTENT = {
    b"%PDF-": "a PDF",
    b"<script": "HTML",
    b"<?php": "PHP",
    RAR: "a RAR archive",
    SEVEN_ZIP: "a 7z archive",
}
# A larger file is searched by NumPy, 128 Ki pairs of bytes at a time, and by Python where a thousand places look like
# the beginning of a mark.
_LARGE_BYTES, _SEARCHED_PAIRS, _MOST_PLACES = 32 * 1024, 128 * 1024, 1_000
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_MORE_BITS = {"I", "F"}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may have. `max_pixels` are those of one frame, before anything is decoded.

    The images of one request may have `max_request_pixels` together.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_frames: int = 1_000

    @property
    def max_request_pixels(self) -> int:
        return 8 * self.max_pixels


def read_image(data: bytes, limits: ImageLimits, param: str, *, side: int | None = None) -> Image.Image:
    """The first frame of an image as RGB, turned as its EXIF block says.

    With `side`, a JPEG or a large image may come smaller, with no side shorter than that. Raises UnsupportedImage for
    another format, ImageTooLarge for what exceeds the limits, and ImageError for what cannot be decoded; all name
    `param`.
    """
    image, file = _open_checked(data, limits, param)
    file.allow(_MOST_READS)
    try:
        turn = _orientation(image)
        if side is not None and image.format == "JPEG":
            image.draft("RGB", (side, side))
        image.load()
        return _turned(_reduced(_to_rgb(image, param), side), turn)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises a dozen classes for broken files
        raise _broken(error, param) from error


def count_pixels(data: bytes, limits: ImageLimits, param: str) -> int:
    """The pixels that an image's header states. Raises as `read_image` does for a header that it refuses."""
    width, height = _open_checked(data, limits, param)[0].size
    return width * height


class _CountedReads(io.BytesIO):
    """A file that is read a limited number of times."""

    def __init__(self, data: bytes, param: str) -> None:
        super().__init__(data)
        self._param = param
        self._left = _MOST_HEADER_READS

    def allow(self, reads: int) -> None:
        """Let it be read that many times from now on."""
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        """See BytesIO. Raises ImageTooLarge."""
        self._left -= 1
        if self._left < 0:
            raise _too_many_parts(self._param)
        return super().read(size)


def _open_checked(data: bytes, limits: ImageLimits, param: str) -> tuple[Image.Image, _CountedReads]:
    """An image whose header keeps to the limits, and its file."""
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"{param}: expected at most {limits.max_bytes:,} bytes, got {len(data):,}; send a smaller image",
            param=param,
        )
    if count_strips(data) > _MOST_STRIPS:
        raise _too_many_parts(param)
    file = _CountedReads(data, param)
    image = _open(file, data, limits, param)
    _require_one_content(data, param)
    _require_size(image, data, limits, param)
    return image, file


def _open(file: _CountedReads, data: bytes, limits: ImageLimits, param: str) -> Image.Image:
    """The image, of which only the header is read."""
    try:
        return Image.open(file, formats=FORMATS)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise UnsupportedImage(f"{param}: expected {_READ}, got {_describe(data)}", param=param) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(f"more than {Image.MAX_IMAGE_PIXELS:,}", limits, param) from None
    except Exception as error:  # as for decoding
        raise _broken(error, param) from error


def _require_size(image: Image.Image, data: bytes, limits: ImageLimits, param: str) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width:,} x {height:,}", limits, param)
    if max(width, height) > _MAX_ASPECT * min(width, height):
        expected = f"sides of at most {_MAX_ASPECT} to 1"
        raise ImageError(f"{param}: expected {expected}, got {width:,} x {height:,}; cut the image", param=param)
    frames = count_frames(data, limits.max_frames + 1) if image.format == "GIF" else _stated_frames(image)
    if frames is None:
        raise _too_many_parts(param)
    if frames > limits.max_frames:
        raise ImageTooLarge(
            f"{param}: expected at most {limits.max_frames:,} frames, of which the first is read, got more; send one",
            param=param,
        )
    if (size := len(image.info.get("exif", b""))) > _MAX_EXIF_BYTES:
        raise ImageTooLarge(
            f"{param}: expected at most {_MAX_EXIF_BYTES:,} bytes of EXIF, got {size:,}; remove it", param=param
        )


def _stated_frames(image: Image.Image) -> int:
    """The frames that a header states. Pages of a TIFF are not counted, because only the first one is looked up."""
    return 1 if image.format == "TIFF" else int(getattr(image, "n_frames", 1))


def _require_one_content(data: bytes, param: str) -> None:
    """Refuse a file that programs of other kinds would read as theirs.

    A ZIP archive is found by its end record, without which no program opens it. Its first mark alone may come by
    chance, and other bytes behind an image are left alone: cameras put previews and videos there.
    """
    found = next((what for mark, what in _OTHER_CONTENT.items() if _holds(data, mark)), None)
    if found is None and zipfile.is_zipfile(io.BytesIO(data)):
        found = "a ZIP archive"
    if found is not None:
        message = f"{param}: expected an image alone, got a file that also holds {found}; save the image anew"
        raise UnsupportedImage(message, param=param)


def _holds(data: bytes, mark: bytes) -> bool:
    """Whether bytes hold a mark. NumPy takes half the time of `in`, and gives Python's lock back meanwhile."""
    if len(data) < _LARGE_BYTES:
        return mark in data
    pair = np.frombuffer(mark, np.uint16, count=1)
    for odd in (0, 1):
        pairs = np.frombuffer(data, np.uint16, (len(data) - odd) // 2, offset=odd)
        for start in range(0, len(pairs), _SEARCHED_PAIRS):
            places = np.flatnonzero(pairs[start : start + _SEARCHED_PAIRS] == pair)
            if len(places) > _MOST_PLACES:
                return mark in data
            if any(data.startswith(mark, odd + 2 * (start + int(at))) for at in places):
                return True
    return False


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image, by its EXIF block."""
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return methods.get(image.getexif().get(_ORIENTATION, 1))


def _to_rgb(image: Image.Image, param: str) -> Image.Image:
    """8 bits of red, green and blue; 16 bits of grey keep their upper 8. Transparency is dropped."""
    if image.mode in _SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    elif image.mode in _MORE_BITS:
        message = f"{param}: expected 8 or 16 bits a channel, got mode {image.mode} of 32 bits; convert it first"
        raise UnsupportedImage(message, param=param)
    return image if image.mode == "RGB" else image.convert("RGB")


def _reduced(rgb: Image.Image, side: int | None) -> Image.Image:
    """A large image in whole parts of its sides, none shorter than `side`: turning and scaling would copy it twice."""
    factor = min(rgb.size) // side if side is not None and math.prod(rgb.size) > _LARGE_PIXELS else 1
    return rgb.reduce(factor) if factor > 1 else rgb


def _turned(rgb: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return rgb if turn is None else rgb.transpose(turn)


def _too_many_pixels(got: str, limits: ImageLimits, param: str) -> ImageTooLarge:
    return ImageTooLarge(
        f"{param}: expected at most {limits.max_pixels:,} pixels, got {got}; send a smaller image", param=param
    )


def _too_many_parts(param: str) -> ImageTooLarge:
    return ImageTooLarge(
        f"{param}: expected an image of few parts, got one cut into very many blocks, markers or runs; save it anew",
        param=param,
    )


def _broken(error: Exception, param: str) -> ImageError:
    return ImageError(
        f"{param}: expected a whole image, got one that cannot be decoded ({type(error).__name__}); save it anew",
        param=param,
    )


def _describe(data: bytes) -> str:
    """What bytes that are no image of ours look like."""
    if not data:
        return "no bytes"
    start = data[:256].lstrip()
    if start.startswith((b"<svg", b"<?xml")):
        return "SVG, which is a drawing and no image: render it first"
    if start.startswith(b"%PDF-"):
        return "a PDF: make an image of each page first"
    if start.startswith(b"PK"):
        return "a ZIP archive or an office document: send the images in it"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or a video, which are not read: convert it first"
    return content_of(data[:START_BYTES]) or f"bytes that begin with {data[:8].hex(' ')}"
