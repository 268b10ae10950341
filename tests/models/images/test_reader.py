"""Tests of the reader: formats, conversions, and files that must be refused."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.errors import ImageError, ImageTooLarge, UnsupportedImage
from models.images import reader
from models.images.data_uri import from_data_uri, to_kept_data_uri
from models.images.reader import _SEARCHED_PAIRS, ImageLimits, read_image
from models.images.tiff_strips import count_strips
from tests.support.images import MANY_PARTS, encoded, hostile, long_gif, picture, png_header

LIMITS = ImageLimits()


def pixels(data: bytes, **options: int) -> NDArray[np.int64]:
    return np.asarray(read_image(data, LIMITS, "image", **options)).astype(np.int64)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95}, 16)],
)
def test_formats_give_the_same_pixels(kind: str, options: dict[str, object], tolerance: int) -> None:
    found = pixels(encoded(picture(), kind, **options))
    assert found.shape == (32, 48, 3)
    assert abs(found - np.asarray(picture()).astype(np.int64)).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_modes_become_rgb(mode: str) -> None:
    image = picture().convert(mode)
    found = pixels(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert abs(found - np.asarray(image.convert("RGB")).astype(np.int64)).max() == 0


def test_sixteen_bits_of_grey_keep_their_upper_eight() -> None:
    grey = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    found = pixels(encoded(Image.fromarray(grey)))
    assert np.array_equal(found[..., 0], grey >> 8)


def test_thirty_two_bits_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="8 or 16 bits"):
        read_image(encoded(Image.new("F", (4, 4)), "TIFF"), LIMITS, "image")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_by_exif(orientation: int) -> None:
    image = picture()
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    expected = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](np.asarray(image).astype(np.int64))
    assert np.array_equal(pixels(data), expected)


def test_the_first_frame_of_a_gif_is_read() -> None:
    first, second = (Image.new("P", (4, 4), colour) for colour in (0, 1))
    first.putpalette([200, 0, 0, 0, 0, 200])
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert pixels(data)[0, 0].tolist() == [200, 0, 0]


def test_a_jpeg_may_come_smaller_but_not_below_the_side() -> None:
    data = encoded(picture(1600, 1200), "JPEG")
    assert read_image(data, LIMITS, "image", side=224).size == (400, 300)
    assert read_image(data, LIMITS, "image", side=1000).size == (1600, 1200)


@pytest.mark.parametrize("name", hostile())
def test_hostile_files_are_refused_at_once(name: str) -> None:
    data, process = hostile()[name], psutil.Process()
    before, began = process.memory_info().rss, time.thread_time()
    with pytest.raises(ImageError, match=r"^image: expected "):
        read_image(data, LIMITS, "image")
    assert time.thread_time() - began < 1
    assert process.memory_info().rss - before < 64 << 20


def test_the_reason_names_the_limit() -> None:
    for data, error, words in (
        (png_header(40_000, 40_000), ImageTooLarge, "pixels"),
        (long_gif(1_001), ImageTooLarge, "frames"),
        (bytes(LIMITS.max_bytes + 1), ImageTooLarge, "bytes"),
        (hostile()["EXIF bomb"], ImageTooLarge, "EXIF"),
        (hostile()["polyglot"], UnsupportedImage, "ZIP"),
        (hostile()["SVG"], UnsupportedImage, "SVG"),
        (hostile()["HEIC"], UnsupportedImage, "HEIC"),
        (b"%PDF-1.7\n1 0 obj", UnsupportedImage, "got a PDF: make an image of each page"),
        (b"PK\3\4" + bytes(30), UnsupportedImage, "got a ZIP archive"),
        (b"Rar!\x1a\x07\x01\0" + bytes(90), UnsupportedImage, "got a RAR archive"),
        (b"<svg><script>alert(1)</script></svg>", UnsupportedImage, "got SVG"),
    ):
        with pytest.raises(error, match=words):
            read_image(data, LIMITS, "image")
    assert len(png_header(40_000, 40_000)) < 2048


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_an_archive_behind_an_image_is_refused_and_its_first_mark_alone_is_not(kind: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    image = encoded(picture(), kind)
    with pytest.raises(UnsupportedImage, match="also holds a ZIP archive"):
        read_image(image + archive.getvalue(), LIMITS, "image")
    assert read_image(image + b"PK\3\4", LIMITS, "image").size == picture().size


@pytest.mark.parametrize("mark", [b"%PDF-", b"<script", b"<?php", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c"])
@pytest.mark.parametrize(
    "before", [0, *(2 * _SEARCHED_PAIRS + more for more in (-2, -1, 0, 1)), 4 * _SEARCHED_PAIRS - 3]
)
@pytest.mark.parametrize("large", [0, 2**40])
def test_another_content_is_found_wherever_it_begins(
    mark: bytes, before: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_LARGE_BYTES", large)
    image = encoded(picture(), "JPEG")
    padded = image + bytes(max(before - len(image), 0))
    with pytest.raises(UnsupportedImage, match="also holds"):
        read_image(padded + mark, LIMITS, "image")
    assert read_image(padded + mark[:-1], LIMITS, "image").size == picture().size


def test_a_file_of_many_beginnings_of_marks_is_searched_at_once() -> None:
    data = encoded(picture(), "JPEG") + b"<s" * 10_000_000
    began = time.thread_time()
    assert read_image(data, LIMITS, "image").size == picture().size
    assert time.thread_time() - began < 1
    with pytest.raises(UnsupportedImage, match="HTML"):
        read_image(data + b"cript", LIMITS, "image")


def test_a_gif_within_the_limit_is_read() -> None:
    assert pixels(long_gif(1_000)).shape == (1, 1, 3)


@pytest.mark.parametrize("name", MANY_PARTS)
def test_images_of_many_parts_are_refused_at_once(name: str) -> None:
    data, process = MANY_PARTS[name](), psutil.Process()
    before, began = process.memory_info().rss, time.thread_time()
    with pytest.raises(ImageTooLarge, match="an image of few parts"):
        read_image(data, LIMITS, "image")
    assert time.thread_time() - began < 2
    assert process.memory_info().rss - before < 64 << 20


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "jpeg"])
def test_strips_of_a_tiff_are_counted(compression: str | None) -> None:
    data = encoded(picture(640, 480), "TIFF", compression=compression)
    assert 1 <= count_strips(data) <= 480
    assert pixels(data).shape == (480, 640, 3)
    for length in range(0, len(data), 997):
        assert count_strips(data[:length]) <= 480


@pytest.mark.slow
def test_images_with_the_parts_of_a_camera_are_read() -> None:
    picture_with = encoded(picture(640, 480), "JPEG", exif=b"Exif\0\0" + bytes(60_000), icc_profile=bytes(3_000_000))
    assert pixels(picture_with).shape == (480, 640, 3)
    assert pixels(encoded(picture(2000, 1500), "PNG", compress_level=0)).shape == (1500, 2000, 3)
    assert pixels(encoded(picture(1000, 800).convert("P"), "GIF", comment=b"a" * 50_000)).shape == (800, 1000, 3)


@pytest.mark.slow
def test_a_large_image_comes_smaller_but_not_below_the_side() -> None:
    image = picture(4000, 3000)
    exif = image.getexif()
    exif[0x0112] = 6
    data = encoded(image, "PNG", compress_level=1, exif=exif)
    found = read_image(data, LIMITS, "image", side=448)
    assert found.size == (500, 667)
    whole = read_image(data, LIMITS, "image").resize(found.size, Image.Resampling.BOX)
    difference = np.asarray(found).astype(np.int64) - np.asarray(whole).astype(np.int64)
    assert abs(difference).mean() < 1
    assert read_image(encoded(picture(1600, 1200)), LIMITS, "image", side=448).size == (1600, 1200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_kept_image_has_no_exif_block(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    plain, told = encoded(picture(40, 30), kind), encoded(picture(40, 30), kind, exif=exif)
    assert b"taken at home" in told
    assert from_data_uri(to_kept_data_uri(plain, ImageLimits(), "image")) == plain
    kept = from_data_uri(to_kept_data_uri(told, ImageLimits(), "image"))
    assert b"taken at home" not in kept
    assert Image.open(io.BytesIO(kept)).size == (40, 30)


@pytest.mark.parametrize("keyword", ["XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type xmp"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_kept_png_has_no_text_chunks_of_exif_or_xmp(keyword: str, compressed: bool) -> None:
    told = PngInfo()
    told.add_itxt(keyword, "<x:xmpmeta>taken at home</x:xmpmeta>", zip=compressed)
    kept = from_data_uri(to_kept_data_uri(encoded(picture(40, 30), "PNG", pnginfo=told), ImageLimits(), "image"))
    assert keyword.encode() not in kept
    assert Image.open(io.BytesIO(kept)).size == (40, 30)
