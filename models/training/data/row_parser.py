"""Records of a file to rows of text; each value is checked against what its column takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from models.training.data.file_reader import FileReader
from models.training.data.row_layout import CHAT_COLUMN, LayoutFinder, RowLayout, describe_value
from models.training.data.rows import TARGET_COLUMN, TEXT_COLUMNS, RowKind, TextRows, columns_of, has_visible_text
from models.training.errors import TrainingDataError, data_error, quote, shorten

MAX_LABEL_CHARACTERS = 256
# All texts of a file together: a small Parquet file can hold far more than memory.
MAX_CHARACTERS = 1 << 30
_MAX_NOTES = 20


class RowParser:
    """Collects a file's records as rows, and refuses the first one that does not fit."""

    def __init__(self, file: FileReader, columns: Mapping[str, str], task: str | None = None) -> None:
        self._layouts = LayoutFinder(columns, task, param=file.param, unit=file.unit)
        self._error = partial(data_error, file.param, unit=file.unit)
        # CSV has numbers as text; no text is longer than a line may be.
        self._unit, self._textual, self._max_text = file.unit, file.format == "csv", file.max_line_bytes
        self._line = 0
        self._kind: RowKind | None = None
        self._kind_line = 0
        self._texts: list[list[str]] = []
        self._labels: list[str] = []
        self._scores: list[float] = []
        self._lines: list[int] = []
        self._notes: dict[str, str] = {}
        self._characters = 0

    def add(self, line: int, record: Mapping[str, object]) -> None:
        """Check one record and append it."""
        self._line = line
        layout = self._layouts.find(line, record, self._kind)
        self._require_kind(record, layout)
        for name in layout.unused:
            self._note(name, f"column {quote(name)} is not used")
        if layout.is_chat:
            column = layout.source[CHAT_COLUMN]
            self._add_chat(column, record[column])
        else:
            self._add_columns(record, layout)
        self._lines.append(line)

    def rows(self) -> TextRows:
        """The rows collected. Raises TrainingDataError where there are none."""
        if self._kind is None:
            raise self._error("no_rows", "at least one row", "none")
        return TextRows(
            kind=self._kind,
            texts=self._texts,
            labels=self._labels if self._kind == "labelled" else None,
            scores=self._scores if self._kind in ("scored", "relevance") else None,
            lines=self._lines,
            notes=tuple(self._notes.values()),
        )

    def _require_kind(self, record: Mapping[str, object], layout: RowLayout) -> None:
        """Require a kind that the task takes, and the same one for all records."""
        if layout.kind == self._kind:
            return
        if self._kind is not None:
            expected, got = (" and ".join(columns_of(kind)) for kind in (self._kind, layout.kind))
            expected += f" as on {self._unit} {self._kind_line} (one kind of row a file)"
            raise self._refuse("mixed_row_kinds", expected, got)
        if layout.kind not in self._layouts.kinds:
            raise self._layouts.wrong_columns("wrong_row_kind", self._line, record, layout.source)
        self._kind, self._kind_line = layout.kind, self._line
        self._texts = [[] for _ in TEXT_COLUMNS[layout.kind]]

    def _refuse(self, code: str, expected: str, got: str, column: str | None = None) -> TrainingDataError:
        return self._error(code, expected, got, line=self._line, column=column)

    def _note(self, key: str, text: str) -> None:
        """Remember, once a key, what was left out or changed."""
        if key not in self._notes and len(self._notes) < _MAX_NOTES:
            self._notes[key] = f"{text} (first on {self._unit} {self._line})"
        elif key not in self._notes:
            self._notes["\0more"] = "and more of the same"

    def _add_columns(self, record: Mapping[str, object], layout: RowLayout) -> None:
        for texts, ours in zip(self._texts, TEXT_COLUMNS[layout.kind], strict=True):
            column = layout.source[ours]
            texts.append(self._text(column, record[column]))
        target = TARGET_COLUMN[layout.kind]
        if target is None:
            return
        column = layout.source[target]
        if layout.kind == "labelled":
            self._labels.append(self._label(column, record[column]))
        else:
            self._scores.append(self._score(column, record[column]))

    def _add_chat(self, column: str, messages: object) -> None:
        """One user and one assistant turn as text and label; a system turn is left out."""
        if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
            got = describe_value(messages)
            raise self._refuse("invalid_chat", "a list of messages (objects)", got, column)
        roles = [str(turn.get("role")) for turn in messages]
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
            expected = "one user and one assistant turn, after at most one system turn"
            got = ", ".join(shorten(role) for role in roles[:6]) or "no messages"
            raise self._refuse("invalid_chat", expected, got, column)
        if len(roles) > 2:
            self._note("messages:system", "system turns are not part of the text")
        user, assistant = messages[-2:]
        for name in sorted({str(key) for key in (*user, *assistant)} - {"role", "content"}):
            self._note(f"messages:{name}", f"{quote(name)} of a message is not used")
        self._texts[0].append(self._text(f"{column}[user].content", user.get("content")))
        self._labels.append(self._label(f"{column}[assistant].content", assistant.get("content")))

    def _text(self, column: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._refuse("not_text", "text", describe_value(value), column)
        self._require_no_nul("text", column, value)
        if not has_visible_text(value):
            got = "nothing but whitespace" if value else "empty text"
            raise self._refuse("empty_text", "text that is not empty", got, column)
        if len(value) > self._max_text:
            raise self._refuse("text_too_long", f"at most {self._max_text:,} characters", f"{len(value):,}", column)
        self._characters += len(value)
        if self._characters > MAX_CHARACTERS:
            expected = f"at most {MAX_CHARACTERS:,} characters of text in all"
            raise self._refuse("file_too_large", expected, "more", column)
        return value

    def _label(self, column: str, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            self._note("label:int", "labels that are whole numbers are read as text")
            value = str(value)
        if not isinstance(value, str):
            raise self._refuse("invalid_label", "a label (text or a whole number)", describe_value(value), column)
        self._require_no_nul("a label", column, value)
        if not has_visible_text(value):
            raise self._refuse("empty_label", "a label that is not empty", "an empty one", column)
        if len(value) > MAX_LABEL_CHARACTERS:
            expected = f"a label of at most {MAX_LABEL_CHARACTERS} characters"
            raise self._refuse("label_too_long", expected, f"{len(value):,}", column)
        return value

    def _require_no_nul(self, what: str, column: str, value: str) -> None:
        if "\0" in value:
            got = f"one at character {value.index(chr(0)) + 1}"
            raise self._refuse("nul", f"{what} without NUL characters", got, column)

    def _score(self, column: str, value: object) -> float:
        number = _parse_number(value) if self._textual and isinstance(value, str) else value
        if not isinstance(number, (int, float)):
            raise self._refuse("invalid_score", "a number", describe_value(value), column)
        try:
            score = float(number)
        except OverflowError:
            score = math.inf
        if not math.isfinite(score):
            raise self._refuse("invalid_score", "a finite number", shorten(str(value)), column)
        return score


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
