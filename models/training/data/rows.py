"""Rows of training data: columns of equal length, all of one kind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["labelled", "plain", "pairs", "triplets", "scored", "relevance"]

# The text columns of each kind, and the column that says what is true of them.
TEXT_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "labelled": ("text",),
    "plain": ("text",),
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2"),
    "relevance": ("query", "document"),
}
TARGET_COLUMN: dict[Kind, str | None] = {
    "labelled": "label",
    "plain": None,
    "pairs": None,
    "triplets": None,
    "scored": "score",
    "relevance": "label",
}
_WORD = re.compile(r"\w+")


def columns_of(kind: Kind) -> tuple[str, ...]:
    """Every column that a row of this kind has."""
    target = TARGET_COLUMN[kind]
    return (*TEXT_COLUMNS[kind], target) if target else TEXT_COLUMNS[kind]


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of one kind, in the order of their file.

    `texts` holds one list a text column (`TEXT_COLUMNS`), each of `len(rows)` texts. `labels` is there for
    "labelled"; `scores` for "scored" and "relevance" (whose label is a grade, 1.0 for relevant). `lines` are 1-based
    lines of the file, rows for Parquet. `notes` says what the reader left out or changed.
    """

    kind: Kind
    texts: list[list[str]]
    labels: list[str] | None
    scores: list[float] | None
    lines: list[int]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) != len(TEXT_COLUMNS[self.kind]):
            raise ValueError(
                f"texts: expected {len(TEXT_COLUMNS[self.kind])} columns for {self.kind}, got {len(self.texts)}"
            )
        if (self.labels is None) != (self.kind != "labelled") or (self.scores is None) != (
            self.kind not in ("scored", "relevance")
        ):
            raise ValueError(f"labels or scores do not fit rows of kind {self.kind}")
        lengths = {len(column) for column in (*self.texts, self.lines, self.labels, self.scores) if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"columns: expected equal lengths, got {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, indices: Sequence[int]) -> TextRows:
        """The rows at these positions, in this order."""
        return TextRows(
            kind=self.kind,
            texts=[[column[index] for index in indices] for column in self.texts],
            labels=None if self.labels is None else [self.labels[index] for index in indices],
            scores=None if self.scores is None else [self.scores[index] for index in indices],
            lines=[self.lines[index] for index in indices],
            notes=self.notes,
        )


def normalised(text: str) -> str:
    """The text as duplicates are told by: compatibility forms, case, punctuation and whitespace do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or " ".join(folded.split())


def group_keys(rows: TextRows) -> list[str]:
    """What may not be on both sides of a split, per row: the text, the anchor, the query, or both sentences in any
    order.
    """
    first = [normalised(text) for text in rows.texts[0]]
    if rows.kind != "scored":
        return first
    return ["\n".join(sorted((one, normalised(other)))) for one, other in zip(first, rows.texts[1], strict=True)]
