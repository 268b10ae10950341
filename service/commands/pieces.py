"""What a command sends in one request: texts, or rows or tensors of an exported program."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from service.client import Client
from service.client.errors import BadInput
from service.commands.inputs import read_file, read_number, read_texts

# Below a service's default limit, so that files of any length go in pieces.
_AT_ONCE = 256
Rows = Annotated[
    Path | None,
    typer.Option("--rows", help="of an exported program: CSV with a header, or JSONL with a list on each line"),
]
Tensors = Annotated[
    Path | None, typer.Option("--inputs", help="of an exported program: JSON with a list of tensors, as the API has it")
]


@dataclass(frozen=True, slots=True)
class Piece:
    """The arguments of one call, and what each of its answers is about: a text, or a row by its number from 0."""

    arguments: dict[str, Any]
    texts: Sequence[str] | None = None
    first: int = 0

    def about(self, index: int) -> dict[str, str | int]:
        """The text or the row that an answer is about, by its name."""
        return {"row": self.first + index} if self.texts is None else {"text": self.texts[index]}


@dataclass(frozen=True, slots=True)
class Given:
    """What a command was given: `texts` as `read_texts` takes them, or a file of a program's rows or tensors."""

    texts: Sequence[str]
    file: Path | None
    column: str
    rows: Path | None = None
    inputs: Path | None = None

    def __post_init__(self) -> None:
        """Raise BadInput for inputs of two kinds."""
        found = {"texts": bool(self.texts or self.file), "--rows": bool(self.rows), "--inputs": bool(self.inputs)}
        if sum(found.values()) > 1:
            raise BadInput(f"expected one of {', '.join(found)}; got {' and '.join(n for n in found if found[n])}")

    @property
    def of_programs(self) -> bool:
        """Whether exported programs alone take it."""
        return self.rows is not None or self.inputs is not None

    @property
    def header(self) -> str:
        """The name of what each answer is about."""
        return "row" if self.of_programs else "text"

    def pieces(self, client: Client, model: str) -> Iterator[Piece]:
        """What goes in each request to a model. Raises BadInput."""
        if self.inputs is not None:
            yield Piece({"inputs": _read_tensors(self.inputs)})
        elif self.rows is not None:
            for at, rows in _cut(_read_rows(self.rows), _rows_at_once(client.model(model).signature)):
                yield Piece({"rows": rows}, first=at)
        else:
            for _, texts in _cut(read_texts(self.texts, self.file, self.column), _AT_ONCE):
                yield Piece({"texts": texts}, texts)


def _cut(values: list[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    for at in range(0, len(values), size):
        yield at, values[at : at + size]


def _rows_at_once(signature: Mapping[str, Any]) -> int:
    """Rows of one request to a model with this signature: as many as a program with a small batch takes."""
    size = next(iter(signature["inputs"][0].get("shape") or ()), None)
    most = size if isinstance(size, int) else signature.get("dimensions", {}).get(size, {}).get("maximum")
    return min(most or _AT_ONCE, _AT_ONCE)


def _read_rows(path: Path) -> list[list[float]]:
    """The rows of a program, as `Rows` says. Raises BadInput, which names line and column."""
    found = _cells_of_csv(path) if path.suffix.lower() == ".csv" else _lists_of_json(path)
    rows = [[read_number(path, line, at, cell) for at, cell in enumerate(cells, start=1)] for line, cells in found]
    if not rows:
        raise BadInput(f"{path}: expected rows of numbers, got none")
    return rows


def _cells_of_csv(path: Path) -> Iterator[tuple[int, Sequence[object]]]:
    reader = csv.reader(read_file(path).splitlines())
    try:
        _require_names(path, next(reader, []))
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise BadInput(f"{path}: expected CSV: {error}") from error


def _require_names(path: Path, header: Sequence[str]) -> None:
    """Raise BadInput for a row of numbers; columns that are numbered, as pandas writes them, have names."""
    if header and all(map(_is_number, header)) and list(header) != [str(at) for at in range(len(header))]:
        raise BadInput(f"{path}, line 1: expected the columns' names, got numbers; write a line of names above them")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _lists_of_json(path: Path) -> Iterator[tuple[int, Sequence[object]]]:
    for line, text in enumerate(read_file(path).splitlines(), start=1):
        if not text.strip():
            continue
        cells = _parse_json(f"{path}, line {line}", text)
        if not isinstance(cells, list):
            raise BadInput(f"{path}, line {line}: expected a list of numbers, got {type(cells).__name__}")
        yield line, cells


def _read_tensors(path: Path) -> list[dict[str, Any]]:
    """The tensors of a JSON file: a list, or an object that has it as `inputs`. Raises BadInput."""
    found = _parse_json(str(path), read_file(path))
    tensors = found.get("inputs") if isinstance(found, dict) else found
    if not isinstance(tensors, list) or not tensors or not all(isinstance(one, dict) for one in tensors):
        raise BadInput(f"{path}: expected a list of tensors, each with name, datatype, shape and data")
    return tensors


def _parse_json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: expected JSON: {error}") from error
