"""Records of a file to rows: which kind they are, and whether each value is what its column takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from models.training.data.rows import TARGET_COLUMN, TEXT_COLUMNS, Kind, TextRows, columns_of
from models.training.errors import TrainingDataError

MAX_LABEL_CHARACTERS = 256
# All texts of a file together: a small Parquet file can hold far more than memory.
MAX_CHARACTERS = 1 << 30
_CHAT = "messages"
# The kinds of rows that a task takes.
KINDS: dict[str, tuple[Kind, ...]] = {
    "classification": ("labelled",),
    "anomaly": ("plain", "labelled"),
    "embedding": ("pairs", "triplets", "scored"),
    "rerank": ("relevance",),
}
_ALL_KINDS = tuple(TEXT_COLUMNS)
_MAX_NAMED = 20
# A proposal compares short names alone: the time goes with the square of their length. "lable" is 0.8 like "label".
_MAX_COMPARED = 60
_ALIKE = 0.75
_MAX_PLANS = 1000


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to read records with one set of columns; `source` maps our names to the file's."""

    kind: Kind
    source: Mapping[str, str]
    chat: bool
    unused: tuple[str, ...]


class RowBuilder:
    """Collects records into Rows, refusing the first that does not fit, or that the task, where one is given, does
    not take.

    `unit` is "line" or "row"; `textual`: every value came as text.
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        *,
        param: str,
        task: str | None = None,
        unit: str = "line",
        textual: bool = False,
        max_text: int = 1 << 20,
    ) -> None:
        check_columns(columns, task)
        self._columns = dict(columns)
        self._kinds, self._for_task = _kinds_of(task), f" for task {task}" if task else ""
        self._param, self._unit, self._textual, self._max_text = param, unit, textual, max_text
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._kind: Kind | None = None
        self._texts: list[list[str]] = []
        self._labels: list[str] = []
        self._scores: list[float] = []
        self._lines: list[int] = []
        self._notes: dict[str, str] = {}
        self._characters = 0

    def __len__(self) -> int:
        return len(self._lines)

    def note(self, key: str, text: str) -> None:
        """Remember, once a key, what was left out or changed."""
        if key in self._notes:
            return
        if len(self._notes) < _MAX_NAMED:
            self._notes[key] = text
        else:
            self._notes["\0more"] = "and more of the same"

    def add(self, line: int, record: Mapping[str, object]) -> None:
        """Check one record and append it."""
        plan = self._plan(line, tuple(record))
        if self._kind is None:
            if plan.kind not in self._kinds:
                raise self._unfit("wrong_row_kind", line, tuple(record), plan.source)
            self._kind = plan.kind
            self._texts = [[] for _ in TEXT_COLUMNS[plan.kind]]
        elif plan.kind != self._kind:
            expected, got = (" and ".join(columns_of(kind)) for kind in (self._kind, plan.kind))
            raise self._error(
                "mixed_row_kinds",
                line,
                None,
                f"{expected} as on {self._unit} {self._lines[0]} (one kind of row a file)",
                f"{got}",
            )
        for name in plan.unused:
            self.note(name, f"column {_shown(name)} is not used (first on {self._unit} {line})")
        if plan.chat:
            self._add_chat(line, record[plan.source[_CHAT]], plan.source[_CHAT])
        else:
            self._add_columns(line, record, plan)
        self._lines.append(line)

    def rows(self) -> TextRows:
        """What was collected; TrainingDataError when that is nothing."""
        if self._kind is None:
            raise TrainingDataError("no_rows", f"{self._param}: expected at least one row, got none", self._param)
        return TextRows(
            kind=self._kind,
            texts=self._texts,
            labels=self._labels if self._kind == "labelled" else None,
            scores=self._scores if self._kind in ("scored", "relevance") else None,
            lines=self._lines,
            notes=tuple(self._notes.values()),
        )

    def _add_columns(self, line: int, record: Mapping[str, object], plan: _Plan) -> None:
        for store, ours in zip(self._texts, TEXT_COLUMNS[plan.kind], strict=True):
            store.append(self._text(line, plan.source[ours], record[plan.source[ours]]))
        target = TARGET_COLUMN[plan.kind]
        if plan.kind == "labelled":
            self._labels.append(self._label(line, plan.source["label"], record[plan.source["label"]]))
        elif target:
            self._scores.append(self._number(line, plan.source[target], record[plan.source[target]]))

    def _add_chat(self, line: int, messages: object, column: str) -> None:
        """One user and one assistant turn as text and label; a system turn is the same for all and left out."""
        if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
            raise self._error("invalid_chat", line, column, "a list of messages (objects)", _got(messages))
        roles = [str(turn.get("role")) for turn in messages]
        turns = [turn for turn, role in zip(messages, roles, strict=True) if role != "system"]
        if (
            [role for role in roles if role != "system"] != ["user", "assistant"]
            or roles.count("system") > 1
            or "system" in roles[1:]
        ):
            expected = "one user and one assistant turn, after at most one system turn"
            raise self._error(
                "invalid_chat", line, column, expected, ", ".join(_short(role) for role in roles[:6]) or "no messages"
            )
        if "system" in roles:
            self.note("messages:system", f"system turns are not part of the text (first on {self._unit} {line})")
        for name in sorted({str(key) for turn in turns for key in turn} - {"role", "content"}):
            self.note(f"messages:{name}", f"{_shown(name)} of a message is not used (first on {self._unit} {line})")
        self._texts[0].append(self._text(line, f"{column}[user].content", turns[0].get("content")))
        self._labels.append(self._label(line, f"{column}[assistant].content", turns[1].get("content")))

    def _text(self, line: int, column: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._error("not_text", line, column, "text", _got(value))
        if "\0" in value:
            raise self._error(
                "nul", line, column, "text without NUL characters", f"one at character {value.index(chr(0)) + 1}"
            )
        if not visible(value):
            raise self._error(
                "empty_text",
                line,
                column,
                "text that is not empty",
                "nothing but whitespace" if value else "empty text",
            )
        if len(value) > self._max_text:
            raise self._error(
                "text_too_long", line, column, f"at most {self._max_text:,} characters", f"{len(value):,}"
            )
        self._characters += len(value)
        if self._characters > MAX_CHARACTERS:
            raise self._error(
                "file_too_large", line, column, f"at most {MAX_CHARACTERS:,} characters of text in all", "more"
            )
        return value

    def _label(self, line: int, column: str, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            self.note("label:int", f"labels that are whole numbers are read as text (first on {self._unit} {line})")
            value = str(value)
        if not isinstance(value, str):
            raise self._error("invalid_label", line, column, "a label (text or a whole number)", _got(value))
        if "\0" in value:
            raise self._error(
                "nul", line, column, "a label without NUL characters", f"one at character {value.index(chr(0)) + 1}"
            )
        if not visible(value):
            raise self._error("empty_label", line, column, "a label that is not empty", "an empty one")
        if len(value) > MAX_LABEL_CHARACTERS:
            raise self._error(
                "label_too_long",
                line,
                column,
                f"a label of at most {MAX_LABEL_CHARACTERS} characters",
                f"{len(value):,}",
            )
        return value

    def _number(self, line: int, column: str, value: object) -> float:
        number = value
        if self._textual and isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                number = value
        if not isinstance(number, (int, float)):
            raise self._error("invalid_score", line, column, "a number", _got(value))
        try:
            number = float(number)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error("invalid_score", line, column, "a finite number", _short(str(value)))
        return number

    def _plan(self, line: int, names: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(names)
        if plan is None:
            plan = self._make_plan(line, names)
            if len(self._plans) < _MAX_PLANS:
                self._plans[names] = plan
        return plan

    def _make_plan(self, line: int, names: tuple[str, ...]) -> _Plan:
        claimed = set(self._columns.values())
        source = {
            ours: ours for ours in _roles(None) if ours in names and ours not in claimed and ours not in self._columns
        }
        source |= {ours: theirs for ours, theirs in self._columns.items() if theirs in names}
        absent = sorted(theirs for theirs in claimed if theirs not in names)
        if absent:
            got = _listed(names)
            raise self._error(
                "missing_column",
                line,
                absent[0],
                f"column {_shown(absent[0])}, named in `columns`",
                got,
                param="columns",
            )
        fitting: list[Kind] = [kind for kind in TEXT_COLUMNS if set(columns_of(kind)) <= set(source)]
        best = [
            kind for kind in fitting if not any(set(columns_of(kind)) < set(columns_of(other)) for other in fitting)
        ]
        chat = _CHAT in source
        if not chat and not best:
            raise self._unfit("missing_column", line, names, source)
        if len(best) + chat > 1:
            raise self._error("ambiguous_row", line, None, "the columns of one kind of row", _listed(names))
        kind: Kind = "labelled" if chat else best[0]
        used = {source[_CHAT]} if chat else {source[ours] for ours in columns_of(kind)}
        return _Plan(kind, source, chat, tuple(name for name in names if name not in used))

    def _unfit(self, code: str, line: int, names: tuple[str, ...], source: Mapping[str, str]) -> TrainingDataError:
        """A row without a column that it should have: which those are, which of its own are read, and how to name
        others.
        """
        kinds = [self._kind] if self._kind else [kind for kind in self._kinds if kind != "plain"]
        nearest = max(kinds, key=lambda kind: len(set(columns_of(kind)) & set(source)) / len(columns_of(kind)))
        lacking = [name for name in columns_of(nearest) if name not in source]
        got = _listed(names) + ("" if self._kind else self._hint(names, source, kinds, lacking))
        if self._kind or len(self._kinds) == 1 or len(lacking) < len(columns_of(nearest)):
            return self._error(
                code, line, lacking[0], f"columns {' and '.join(columns_of(nearest))}{self._for_task}", got
            )
        options = "; ".join(" and ".join(columns_of(kind)) for kind in TEXT_COLUMNS if kind in self._kinds)
        chat = "; or messages" if "labelled" in self._kinds else ""
        return self._error(code, line, None, f"the columns of one kind of row{self._for_task} ({options}{chat})", got)

    def _hint(
        self, names: Sequence[str], source: Mapping[str, str], kinds: Sequence[Kind], lacking: Sequence[str]
    ) -> str:
        read = {source[ours]: ours for kind in kinds for ours in columns_of(kind) if ours in source}
        told = ", ".join(f"{_shown(theirs)} is read as {ours}" for theirs, ours in read.items()) or "none is read"
        spare = [name for name in names if name not in (*read, _CHAT) and len(name) <= _MAX_COMPARED][:_MAX_NAMED]
        found = _proposed(lacking, spare)
        mapping = json.dumps(
            {ours: read_as for ours, read_as in self._columns.items() if read_as in read} | found, ensure_ascii=False
        )
        return (f", of which {told}" if names else "") + (
            f"; others are named in `columns`, such as {mapping}" if found else ""
        )

    def _error(
        self, code: str, line: int, column: str | None, expected: str, got: str, *, param: str | None = None
    ) -> TrainingDataError:
        place = f"{self._unit} {line}" + (f", column {_shown(column)}" if column else "")
        return TrainingDataError(
            code, f"{place}: expected {expected}, got {got}", param or self._param, line=line, column=column
        )


def check_columns(columns: Mapping[str, str], task: str | None = None) -> None:
    """Raise TrainingDataError for a mapping that no row of the task, or no row at all, can be read by."""
    roles = _roles(task)
    for ours, theirs in columns.items():
        if ours not in roles:
            known = ", ".join(roles) + (f" for task {task}" if task else "")
            raise TrainingDataError(
                "invalid_columns", f"columns: expected names among {known}, got {_shown(ours)}", "columns"
            )
        if not isinstance(theirs, str) or not theirs:
            raise TrainingDataError(
                "invalid_columns",
                f"columns.{ours}: expected the name of a column of the file, got {_got(theirs)}",
                "columns",
            )
    if len(set(columns.values())) != len(columns):
        raise TrainingDataError(
            "invalid_columns", "columns: expected each column of the file once, got one twice", "columns"
        )


def _kinds_of(task: str | None) -> tuple[Kind, ...]:
    return _ALL_KINDS if task is None else KINDS[task]


def _roles(task: str | None) -> tuple[str, ...]:
    """What a column may be in the rows of a task."""
    kinds = _kinds_of(task)
    chat = [_CHAT] if "labelled" in kinds else []
    return tuple(dict.fromkeys([column for kind in kinds for column in columns_of(kind)] + chat))


def _proposed(lacking: Sequence[str], spare: Sequence[str]) -> dict[str, str]:
    """A column for each name that has none: those that are spelled like it first, then the others in their order."""
    found: dict[str, str] = {}
    for alike in (True, False):
        for ours in lacking:
            left = [name for name in spare if name not in found.values()]
            matches = get_close_matches(ours, left, 1, _ALIKE) if alike else left[:1]
            if matches and ours not in found:
                found[ours] = matches[0]
    return {ours: found[ours] for ours in lacking if ours in found}


def visible(text: str) -> bool:
    """Whether there is more in a text than whitespace and what has no form."""
    return any(character.isprintable() and not character.isspace() for character in text)


def _got(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {_short(str(value))}"
        case str():
            return f"the text {_shown(value)}" if value else "empty text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _shown(text: str) -> str:
    return repr(_short(text))


def _listed(names: Iterable[str]) -> str:
    shown = [_shown(name) for name in names]
    return (
        ("columns " + ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else ""))
        if shown
        else "no columns"
    )
