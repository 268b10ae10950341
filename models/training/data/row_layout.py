"""The layout of a file's rows: their kind, and the source of each column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from models.training.data.rows import TEXT_COLUMNS, RowKind, columns_of
from models.training.errors import TrainingDataError, data_error, quote, shorten

CHAT_COLUMN = "messages"
# The columns of images.
IMAGE, LABEL = "image", "label"
# The kinds of rows that a task takes.
TASK_KINDS: dict[str, tuple[RowKind, ...]] = {
    "classification": ("labelled",),
    "anomaly": ("plain", "labelled"),
    "embedding": ("pairs", "triplets", "scored"),
    "rerank": ("relevance",),
}
# Codes of errors of the columns, which say nothing of a row's values.
COLUMN_FAULTS = {"missing_column", "wrong_row_kind", "ambiguous_row"}
_MAX_NAMED = 20
# Proposals compare short names alone: the time grows with the square of their length.
_MAX_COMPARED = 60
# "lable" is 0.8 like "label".
_SIMILARITY = 0.75
_MAX_LAYOUTS = 1000


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How rows with one set of columns are read; `source` maps our columns to the file's."""

    kind: RowKind
    source: Mapping[str, str]
    is_chat: bool
    unused: tuple[str, ...]


class LayoutFinder:
    """Finds layouts for one task or any; `columns` maps our names to the file's."""

    def __init__(self, columns: Mapping[str, str], task: str | None, *, param: str, unit: str) -> None:
        check_columns(columns, task)
        self.kinds = _kinds_of_task(task)
        self._columns = dict(columns)
        self._for_task = f" for task {task}" if task else ""
        self._error = partial(data_error, param, unit=unit)
        self._missing_error = partial(data_error, "columns", "missing_column", unit=unit)
        self._layouts: dict[tuple[str, ...], RowLayout] = {}

    def find(self, line: int, record: Mapping[str, object], expected: RowKind | None) -> RowLayout:
        """The layout of a record by its columns; `expected` is the kind of the rows before it."""
        names = tuple(record)
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._make_layout(line, record, expected)
            if len(self._layouts) < _MAX_LAYOUTS:
                self._layouts[names] = layout
        return layout

    def _make_layout(self, line: int, record: Mapping[str, object], expected: RowKind | None) -> RowLayout:
        names = tuple(record)
        source = self._map_columns(line, names)
        candidates = [(kind, columns_of(kind)) for kind in _largest_kinds(source)]
        if CHAT_COLUMN in source:
            candidates.append(("labelled", (CHAT_COLUMN,)))
        if not candidates:
            raise self.wrong_columns("missing_column", line, record, source, expected)
        # Columns of another task do not matter where those of the job's task are there.
        ours = [(kind, columns) for kind, columns in candidates if kind in self.kinds]
        if not ours and len(candidates) > 1:
            raise self.wrong_columns("wrong_row_kind", line, record, source, expected)
        candidates = ours or candidates
        if len(candidates) > 1:
            raise self._error("ambiguous_row", "the columns of one kind of row", _list_columns(names), line=line)
        kind, columns = candidates[0]
        used = {source[column] for column in columns}
        unused = tuple(name for name in names if name not in used)
        return RowLayout(kind, source, columns == (CHAT_COLUMN,), unused)

    def _map_columns(self, line: int, names: tuple[str, ...]) -> dict[str, str]:
        """Our columns to the file's: as `columns` maps them, else by the same name."""
        mapped = set(self._columns.values())
        absent = min(mapped - set(names), default=None)
        if absent is not None:
            expected = f"column {quote(absent)}, named in `columns`"
            raise self._missing_error(expected, _list_columns(names), line=line, column=absent)
        same = [name for name in _columns_of_task(None) if name in names and name not in mapped]
        return {name: name for name in same if name not in self._columns} | self._columns

    def wrong_columns(
        self,
        code: str,
        line: int,
        record: Mapping[str, object],
        source: Mapping[str, str],
        expected: RowKind | None = None,
    ) -> TrainingDataError:
        """The error of a record without the columns of a kind, with a proposal of `columns`."""
        names = tuple(record)
        chat_column = next((name for name, value in record.items() if _is_chat(value)), None)
        if chat_column is not None and "labelled" in self.kinds and not expected:
            mapping = json.dumps({CHAT_COLUMN: chat_column}, ensure_ascii=False)
            got = (
                f"{_list_columns(names)}, of which {quote(chat_column)} is one: name it in `columns`, such as {mapping}"
            )
            return self._error(code, f"a chat in column {CHAT_COLUMN}", got, line=line, column=chat_column)
        kinds = [expected] if expected else [kind for kind in self.kinds if kind != "plain"]
        nearest = max(kinds, key=lambda kind: len(set(columns_of(kind)) & set(source)) / len(columns_of(kind)))
        columns = columns_of(nearest)
        lacking = [name for name in columns if name not in source]
        got = _list_columns(names) + ("" if expected else self._mapping_hint(names, source, kinds, lacking))
        if expected or len(self.kinds) == 1 or len(lacking) < len(columns):
            wanted = f"columns {' and '.join(columns)}{self._for_task}"
            return self._error(code, wanted, got, line=line, column=lacking[0])
        options = "; ".join(" and ".join(columns_of(kind)) for kind in TEXT_COLUMNS if kind in self.kinds)
        chat = f"; or {CHAT_COLUMN}" if "labelled" in self.kinds else ""
        return self._error(code, f"the columns of one kind of row{self._for_task} ({options}{chat})", got, line=line)

    def _mapping_hint(
        self, names: Sequence[str], source: Mapping[str, str], kinds: Sequence[RowKind], lacking: Sequence[str]
    ) -> str:
        """Which columns are read as what, and a proposal of `columns` for those that are lacking."""
        read = {source[ours]: ours for kind in kinds for ours in columns_of(kind) if ours in source}
        listed = ", ".join(f"{quote(theirs)} is read as {ours}" for theirs, ours in read.items()) or "none is read"
        spare = [name for name in names if name not in (*read, CHAT_COLUMN) and len(name) <= _MAX_COMPARED]
        proposed = _propose_columns(lacking, spare[:_MAX_NAMED])
        if len(proposed) < len(lacking):
            proposed = {}  # the rest would be lacking
        kept = {ours: theirs for ours, theirs in self._columns.items() if theirs in read}
        example = json.dumps(kept | proposed, ensure_ascii=False)
        hint = f", of which {listed}" if names else ""
        return hint + (f"; others are named in `columns`, such as {example}" if proposed else "")


def check_columns(columns: Mapping[str, str], task: str | None = None) -> None:
    """Raise TrainingDataError for a mapping that fits no row of the task."""
    known = _columns_of_task(task)
    for ours, theirs in columns.items():
        if ours not in known:
            among = ", ".join(known) + (f" for task {task}" if task else "")
            raise data_error("columns", "invalid_columns", f"names among {among}", quote(ours))
        if not isinstance(theirs, str) or not theirs:
            message = f"columns.{ours}: expected the name of a column of the file, got {describe_value(theirs)}"
            raise TrainingDataError("invalid_columns", message, "columns")
    if len(set(columns.values())) != len(columns):
        raise data_error("columns", "invalid_columns", "each column of the file once", "one twice")


def check_image_columns(columns: Mapping[str, str]) -> None:
    """Raise TrainingDataError for a mapping of other columns than those of images."""
    for name in columns:
        if name not in (IMAGE, LABEL):
            raise data_error("columns", "invalid_columns", f"names among {IMAGE}, {LABEL} for images", quote(name))


def describe_value(value: object) -> str:
    """A value as error messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {shorten(str(value))}"
        case str():
            return f"the text {quote(value)}" if value else "empty text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def _is_chat(value: object) -> bool:
    """Whether a value is a list of messages with roles."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def _largest_kinds(source: Mapping[str, str]) -> list[RowKind]:
    """Kinds whose columns are all there, without those whose columns another one has and more."""
    fitting = {kind: set(columns_of(kind)) for kind in TEXT_COLUMNS if set(columns_of(kind)) <= set(source)}
    return [kind for kind, columns in fitting.items() if not any(columns < other for other in fitting.values())]


def _kinds_of_task(task: str | None) -> tuple[RowKind, ...]:
    return tuple(TEXT_COLUMNS) if task is None else TASK_KINDS[task]


def _columns_of_task(task: str | None) -> tuple[str, ...]:
    """Every column that rows of a task, or any rows, may have."""
    kinds = _kinds_of_task(task)
    chat = [CHAT_COLUMN] if "labelled" in kinds else []
    return tuple(dict.fromkeys([column for kind in kinds for column in columns_of(kind)] + chat))


def _propose_columns(lacking: Sequence[str], spare: Sequence[str]) -> dict[str, str]:
    """A spare column for each lacking one: first one spelled like it, else the next."""
    found: dict[str, str] = {}
    for alike in (True, False):
        for ours in lacking:
            left = [name for name in spare if name not in found.values()]
            matches = get_close_matches(ours, left, 1, _SIMILARITY) if alike else left[:1]
            if matches and ours not in found:
                found[ours] = matches[0]
    return {ours: found[ours] for ours in lacking if ours in found}


def _list_columns(names: Iterable[str]) -> str:
    shown = [quote(name) for name in names]
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return "columns " + ", ".join(shown[:10]) + more if shown else "no columns"
