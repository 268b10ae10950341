"""Pages of text that the tests draw, with the boxes of their lines."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.images.text_lines import Box

WORDS = (
    "where",
    "is",
    "my",
    "card",
    "it",
    "has",
    "not",
    "come",
    "please",
    "send",
    "another",
    "by",
    "post",
    "thank",
    "you",
)


@dataclass
class Page:
    """A page, and the lines that were drawn on it, in reading order."""

    image: Image.Image
    lines: list[Box] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def draw_page(
    seed: int = 0,
    *,
    size: int = 20,
    columns: int = 1,
    dark: bool = False,
    noise: float = 0.0,
    width: int = 1000,
    height: int = 700,
) -> Page:
    """A page of random words. The lines of each column begin at another height."""
    chance = np.random.default_rng(seed)
    page = Page(Image.new("L", (width, height), 30 if dark else 245))
    pen, font = ImageDraw.Draw(page.image), ImageFont.load_default(size)
    step = width // columns
    for column in range(columns):
        top = 2 * size + int(chance.integers(0, size))
        while top < height - 3 * size:
            text = " ".join(chance.choice(WORDS, int(chance.integers(2, 9 // columns + 1))))
            place = (column * step + 2 * size, top)
            left, upper, right, lower = map(int, pen.textbbox(place, text, font=font))
            if right < (column + 1) * step - 2 * size:
                pen.text(place, text, fill=230 if dark else 15, font=font)
                page.lines.append(Box(left, upper, right, lower))
                page.texts.append(text)
            top += int(1.6 * size)
    if noise:
        grey = np.asarray(page.image, np.float32) + chance.normal(0, noise, (height, width))
        page.image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    page.image = page.image.convert("RGB")
    return page


def overlap(one: Box, other: Box) -> float:
    """The share of two boxes that both have: intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0) * max(height, 0)
    area = sum((box.right - box.left) * (box.bottom - box.top) for box in (one, other))
    return shared / (area - shared)
