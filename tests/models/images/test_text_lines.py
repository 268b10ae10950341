"""Lines of text: found where pages have them, in reading order, and bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from models.errors import ImageError
from models.images.text_lines import find_lines
from tests.support.pages import draw_page, overlap


@pytest.mark.parametrize(
    "options",
    [{}, {"columns": 2}, {"dark": True}, {"noise": 15.0}, {"size": 12}, {"size": 48, "width": 1600}],
    ids=["plain", "two columns", "light on dark", "noise", "small", "large"],
)
def test_each_line_of_a_page_is_found_once(options: dict[str, Any]) -> None:
    for seed in range(3):
        page = draw_page(seed, **options)
        found = find_lines(page.image, "image")
        assert len(found) == len(page.lines)
        assert all(max(overlap(line, box) for box in found) > 0.5 for line in page.lines)


def test_lines_come_from_top_to_bottom_and_from_left_to_right() -> None:
    page = Image.new("RGB", (600, 200), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(20)
    places = [(20, 20), (400, 20), (20, 80), (400, 140)]
    for number, place in reversed(list(enumerate(places))):
        pen.text(place, f"line {number}", fill="black", font=font)
    found = find_lines(page, "image")
    assert [(round(box.left, -2), round(box.top, -1)) for box in found] == [(0, 20), (400, 20), (0, 80), (400, 140)]


def test_short_lines_beside_a_tall_one_are_apart() -> None:
    """The tall one covers the gap between them."""
    page = Image.new("L", (600, 200), 255)
    pen = ImageDraw.Draw(page)
    pen.text((20, 20), "HIGH", fill=0, font=ImageFont.load_default(120))
    for top in (30, 70, 110):
        pen.text((450, top), "short line", fill=0, font=ImageFont.load_default(20))
    assert len(find_lines(page, "image")) == 4


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_empty_page_has_no_lines(grey: int) -> None:
    assert find_lines(Image.new("L", (300, 200), grey), "image") == []


def test_rules_and_filled_areas_are_no_lines() -> None:
    page = Image.new("L", (400, 300), 255)
    pen = ImageDraw.Draw(page)
    pen.line((10, 20, 390, 20), fill=0, width=2)
    pen.rectangle((50, 100, 300, 200), fill=0)
    assert find_lines(page, "image") == []


def test_boxes_stay_within_the_image() -> None:
    page = Image.new("L", (100, 30), 255)
    ImageDraw.Draw(page).text((-3, -4), "text at the edges", fill=0, font=ImageFont.load_default(24))
    [box] = find_lines(page, "image")
    assert (box.left, box.right) == (0, 100)
    assert 0 <= box.top < box.bottom <= 30


def test_too_many_lines_are_refused_by_name() -> None:
    rows = np.full((2400, 60), 255, np.uint8)
    for top in range(0, 2400, 10):
        rows[top : top + 6, 4:40:2] = 0
    with pytest.raises(ImageError, match=r"images\[3\]: expected at most 200 lines of text, got 240"):
        find_lines(Image.fromarray(rows), "images[3]")
