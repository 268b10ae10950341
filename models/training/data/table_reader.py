"""CSV, Parquet and JSONL to columns of cells, fast: a hundred thousand rows in well under a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.training.data.readers import MAX_LINE_BYTES, Record, find_format, read_csv, read_jsonl
from models.training.errors import TrainingDataError

MAX_ROWS = 1_000_000
# Of a file, or of a Parquet file uncompressed (as it states itself).
_MAX_BYTES = 2 << 30
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Cells:
    """Columns as they are in the file: arrow arrays of text (CSV) or of what the file has, and the line of each row."""

    columns: dict[str, pa.Array]
    lines: NDArray[np.int64]
    unit: str


def read_cells(path: Path, *, param: str, max_rows: int = MAX_ROWS) -> Cells:
    """All columns of a file. Raises TrainingDataError for the first line that cannot be read."""
    chosen = find_format(path, None, param)
    if path.stat().st_size > _MAX_BYTES:
        raise TrainingDataError(
            "file_too_large", f"{param}: expected at most {_MAX_BYTES:,} bytes, got {path.stat().st_size:,}", param
        )
    readers: dict[str, Callable[[Path, str, int], Cells]] = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}
    cells = readers[chosen](path, param, max_rows)
    if not len(cells.lines):
        raise TrainingDataError("no_rows", f"{param}: expected rows of numbers, got none", param)
    return cells


def _csv(path: Path, param: str, max_rows: int) -> Cells:
    """By arrow; where arrow cannot read it, the slow reader says which line it was."""
    header, delimiter = _header(path, param)
    texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    try:
        table = pyarrow.csv.read_csv(
            path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter), convert_options=texts
        )
    except pa.ArrowException as error:
        for _ in read_csv(path, max_line_bytes=MAX_LINE_BYTES, param=param):
            pass
        text = str(error).splitlines()[0][:200]
        raise TrainingDataError(
            "invalid_csv", f"{param}: expected CSV, got a file that cannot be read ({text})", param
        ) from None
    _require_rows(table.num_rows, max_rows, param)
    return Cells({name: _whole(table.column(name)) for name in header}, _csv_lines(path, table.num_rows, param), "line")


def _header(path: Path, param: str) -> tuple[list[str], str]:
    """The names in the first line, and what separates them; none twice."""
    with path.open("rb") as file:
        first = file.readline(_HEADER_BYTES).decode("utf-8", "replace").removeprefix("\ufeff")
    if not first.strip():
        raise TrainingDataError(
            "no_rows", f"{param}: expected a header and rows of numbers, got an empty first line", param
        )
    names = next(iter(_names(path, param)))
    return names, max(",;\t", key=first.count)


def _names(path: Path, param: str) -> Iterator[list[str]]:
    for _, record in read_csv(path, max_line_bytes=MAX_LINE_BYTES, param=param):
        yield list(record)
    raise TrainingDataError("no_rows", f"{param}: expected rows of numbers below the header, got none", param)


def _csv_lines(path: Path, rows: int, param: str) -> NDArray[np.int64]:
    """Row i is line i + 2, unless there are blank lines, or cells with line breaks in them."""
    breaks, last = 0, b"\n"
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            breaks, last = breaks + part.count(b"\n"), part[-1:]
    if breaks + (last != b"\n") == rows + 1:
        return np.arange(2, rows + 2)
    return np.array([line for line, _ in read_csv(path, max_line_bytes=MAX_LINE_BYTES, param=param)], dtype=np.int64)


def _parquet(path: Path, param: str, max_rows: int) -> Cells:
    try:
        with pq.ParquetFile(path) as file:
            names: list[str] = list(file.schema_arrow.names)
            _require_once(names, param)
            _require_rows(file.metadata.num_rows, max_rows, param)
            size = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
            if size > _MAX_BYTES:
                raise TrainingDataError(
                    "file_too_large",
                    f"{param}: expected at most {_MAX_BYTES:,} bytes uncompressed, got {size:,}",
                    param,
                )
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = f"{param}: expected a Parquet file, got one that cannot be read ({text})"
        raise TrainingDataError("invalid_parquet", message, param) from None
    return Cells({name: _whole(table.column(name)) for name in names}, np.arange(1, table.num_rows + 1), "row")


def _jsonl(path: Path, param: str, max_rows: int) -> Cells:
    """Objects of one level; a key that a line lacks is missing there."""
    records: list[Record] = []
    for record in read_jsonl(path, max_line_bytes=MAX_LINE_BYTES, param=param):
        records.append(record)
        _require_rows(len(records), max_rows, param)
    names = dict.fromkeys(name for _, record in records for name in record)
    columns = {name: pa.array([_text(record.get(name)) for _, record in records], pa.string()) for name in names}
    return Cells(columns, np.array([line for line, _ in records], dtype=np.int64), "line")


def _text(value: object) -> str | None:
    """A JSON value as a cell of CSV would have it."""
    if value is None or isinstance(value, str):
        return value
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _require_rows(count: int, most: int, param: str) -> None:
    if count > most:
        raise TrainingDataError(
            "too_many_rows", f"{param}: expected at most {most:,} rows, got {count:,} or more", param
        )


def _require_once(names: Sequence[str], param: str) -> None:
    twice = (
        next((name for name in names if list(names).count(name) > 1), None)
        if len(names) <= 1000
        else "a thousand columns"
    )
    if twice is not None:
        raise TrainingDataError(
            "duplicate_key", f"column {twice[:60]!r}: expected each column once, got it twice", param, column=twice
        )
