"""How long texts are, in tokens: what chatbots are really asked, or a fixed choice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

# Tokens of all-MiniLM-L6-v2, [CLS] and [SEP] included, of the 28,203 texts of Banking77 (train; CC BY 4.0) and CLINC150 (train and
# val, out-of-scope ones included; CC BY 3.0): the percentiles from 0 to 100.
INTENTS = (
    *(3, 5, 6, 6, 6, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10),
    *(10, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13),
    *(13, 13, 13, 13, 13, 13, 14, 14, 14, 14, 14, 14, 15, 15, 15, 15, 15, 15, 16, 16, 16, 16, 17, 17, 18, 18, 18, 19, 20, 21),
    *(22, 23, 26, 30, 35, 43, 98),
)
SPECIAL = 2
Draw = Callable[[random.Random], int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of text lengths; `draw` gives words, each one token, beside which a text has two special tokens."""

    name: str
    draw: Draw


def intents() -> Lengths:
    """As long as what is asked of chatbots: half have 11 tokens or fewer, one in a hundred 43 or more."""

    def draw(chance: random.Random) -> int:
        place = chance.random() * (len(INTENTS) - 1)
        low = int(place)
        return round(INTENTS[low] + (place - low) * (INTENTS[low + 1] - INTENTS[low])) - SPECIAL

    return Lengths("a chatbot's lengths", draw)


def between(low: int, high: int, name: str | None = None) -> Lengths:
    """Uniform between so many words and so many, both included."""
    label = name or (f"{low} words" if low == high else f"{low} to {high} words")
    return Lengths(label, (lambda chance: low) if low == high else lambda chance: chance.randint(low, high))


NAMED = {
    "intents": intents(),
    "short": between(10, 10, "12 tokens"),
    "long": between(118, 118, "120 tokens"),
    "mixed": between(3, 248, "5 to 250 tokens"),
}
