"""Rows of training data: columns of equal length, all of one kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.text.normalization import normalize

RowKind = Literal["labelled", "plain", "pairs", "triplets", "scored", "relevance"]

# The text columns of each kind, and the column with the label or score of a row.
TEXT_COLUMNS: dict[RowKind, tuple[str, ...]] = {
    "labelled": ("text",),
    "plain": ("text",),
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2"),
    "relevance": ("query", "document"),
}
TARGET_COLUMN: dict[RowKind, str | None] = {
    "labelled": "label",
    "plain": None,
    "pairs": None,
    "triplets": None,
    "scored": "score",
    "relevance": "label",
}
_WORD = re.compile(r"\w+")


def columns_of(kind: RowKind) -> tuple[str, ...]:
    """Every column that a row of this kind has."""
    target = TARGET_COLUMN[kind]
    return (*TEXT_COLUMNS[kind], target) if target else TEXT_COLUMNS[kind]


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of one kind, in the order of their file.

    `texts` holds one list of n texts for each text column (`TEXT_COLUMNS`). "labelled" rows have `labels`; "scored"
    and "relevance" rows have `scores` (a relevance label is a grade, 1.0 for relevant). `lines` are 1-based lines of
    the file, rows of Parquet. `notes` says what the reader left out or changed. Of `inputs` images, a text is the key
    of an image.
    """

    kind: RowKind
    texts: list[list[str]]
    labels: list[str] | None
    scores: list[float] | None
    lines: list[int]
    notes: tuple[str, ...] = ()
    inputs: Literal["texts", "images"] = "texts"

    def __post_init__(self) -> None:
        width = len(TEXT_COLUMNS[self.kind])
        if len(self.texts) != width:
            raise ValueError(f"texts: expected {width} columns for {self.kind}, got {len(self.texts)}")
        targets = (self.labels is not None, self.scores is not None)
        if targets != (self.kind == "labelled", self.kind in ("scored", "relevance")):
            raise ValueError(f"labels or scores do not fit rows of kind {self.kind}")
        lengths = {len(column) for column in (*self.texts, self.lines, self.labels, self.scores) if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"columns: expected equal lengths, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, indices: Sequence[int]) -> TextRows:
        """The rows at these positions, in this order."""
        return replace(
            self,
            texts=[[column[index] for index in indices] for column in self.texts],
            labels=None if self.labels is None else [self.labels[index] for index in indices],
            scores=None if self.scores is None else [self.scores[index] for index in indices],
            lines=[self.lines[index] for index in indices],
        )


def normalized(text: str) -> str:
    """A text without compatibility forms, case and punctuation, to find duplicates."""
    folded = normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or " ".join(folded.split())


def has_visible_text(text: str) -> bool:
    """Whether a text has a character that is neither whitespace nor invisible."""
    return any(character.isprintable() and not character.isspace() for character in text)


def group_keys(rows: TextRows) -> list[str]:
    """Per row the text, anchor, query or sorted sentences; a split never parts equal keys."""
    first = [normalized(text) for text in rows.texts[0]]
    if rows.kind != "scored":
        return first
    return ["\n".join(sorted((one, normalized(other)))) for one, other in zip(first, rows.texts[1], strict=True)]
