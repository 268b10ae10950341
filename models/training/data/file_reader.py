"""The reader of JSONL, CSV, Parquet and XLSX: records for texts, columns for readings.

Nothing is unpickled. Columns of CSV are read by pyarrow. Where pyarrow refuses a file, the records are read line by
line, so that the error names the line at fault.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.counted import counted
from models.training.data.file_format import BOM, Format
from models.training.data.file_limits import MAX_LINE_BYTES, MAX_PARQUET_BYTES, MAX_ROWS, MAX_TABLE_BYTES, FileLimits
from models.training.data.json_parser import parse_object
from models.training.data.parquet_batches import (
    DecodedTooLarge,
    decoded,
    longest_text,
    open_encoded,
    read_batches,
    to_python,
)
from models.training.data.xlsx import read_sheet
from models.training.errors import TrainingDataError, data_error

if TYPE_CHECKING:
    from _csv import Reader

Record = tuple[int, dict[str, object]]
_AS_UTF_8 = "save the file as UTF-8 (in Excel: CSV UTF-8)"
_PARQUET_BATCH_ROWS = 512
_PARQUET_TABLE_ROWS = 16_384
_COLUMNS_BATCH_ROWS = 4096
# The column of lines beside those of the records; no name of a file is likely to be the same.
_LINES = "\0lines"


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Columns of text, or of Parquet's types; `lines` [n] are lines, or rows of Parquet."""

    table: pa.Table
    lines: NDArray[np.int64]
    unit: str
    read_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads one file within its limits; `param` is the parameter that errors name.

    `on_fault` takes the error of a row, which is then left out; without it, the first such error is raised.
    `delimiter` separates the cells of CSV, by default what the header shows. `original` gives the lines of the file
    that this one is a copy of.
    """

    path: Path
    format: Format
    param: str = "training_file"
    max_rows: int = MAX_ROWS
    max_line_bytes: int = MAX_LINE_BYTES
    on_fault: Callable[[TrainingDataError], None] | None = None
    delimiter: str | None = None
    original: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None

    @property
    def unit(self) -> str:
        """What a record is found by: its first line, or its row."""
        return "row" if self.format in ("parquet", "xlsx") else "line"

    @property
    def limits(self) -> FileLimits:
        """What the file may hold."""
        return FileLimits(self.param, self.unit, self.max_rows, self.original)

    def records(self, wanted: Collection[str] = ()) -> Iterator[Record]:
        """Stream (line, record); of Parquet only `wanted` columns are read, others are None.

        Raises TrainingDataError for the first line that cannot be read.
        """
        formats: dict[Format, Callable[[], Iterator[Record]]] = {
            "jsonl": self._jsonl_records,
            "csv": self._csv_records,
            "parquet": lambda: self._parquet_records(wanted),
            "xlsx": self._xlsx_records,
        }
        for count, record in enumerate(formats[self.format](), start=1):
            if count > self.max_rows:
                raise self.limits.error("too_many_rows", f"at most {self.max_rows:,} rows", "more", line=record[0])
            yield record

    def columns(self) -> FileColumns:
        """Read all columns. Raises TrainingDataError for the first faulty line, or no rows."""
        self.limits.require_bytes(self.path.stat().st_size, MAX_TABLE_BYTES)
        if self.format == "parquet":
            found = self._parquet_columns()
        elif self.format == "xlsx":
            table, lines = read_sheet(self.path, self.limits)
            found = FileColumns(table, np.array(lines, dtype=np.int64), self.unit)
        else:
            found = (self._csv_columns() if self.format == "csv" else None) or self._record_columns()
        if not len(found.lines):
            raise self.limits.error("no_rows", "rows of readings", "none")
        return found

    # Lines: JSONL and CSV

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        """Physical lines with their ends, each checked for size, NUL and UTF-8."""
        number = 0
        while raw := file.readline(self.max_line_bytes + 2):
            number += 1
            if number == 1:
                raw = raw.removeprefix(BOM)
            if len(raw.rstrip(b"\r\n")) > self.max_line_bytes:
                raise self.limits.error("line_too_long", f"at most {self.max_line_bytes:,} bytes", "more", line=number)
            if b"\0" in raw:
                raise self.limits.error("nul", "text", "a NUL byte (a binary file, or UTF-16?)", line=number)
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                got = f"the byte 0x{raw[error.start]:02x} at position {error.start + 1}; {_AS_UTF_8}"
                raise self.limits.error("not_utf8", "UTF-8", got, line=number) from None

    def _jsonl_records(self) -> Iterator[Record]:
        """One object a line; blank lines are skipped."""
        with self.path.open("rb") as file:
            for number, line in self._lines(file):
                if text := line.strip():
                    try:
                        record = parse_object(text, number, self.param)
                    except TrainingDataError as error:
                        self._leave_out(error)
                        continue
                    yield number, record

    def _csv_records(self) -> Iterator[Record]:
        """Rows below a header, which shows whether comma, semicolon or tab separates cells."""
        with self.path.open("rb") as file:
            lines = self._lines(file)
            header = self.limits.require_header(next(lines, (1, ""))[1])
            reader = _csv_reader(chain([header], (line for _, line in lines)), self._delimiter(header))
            start, names = 1, list[str]()
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    got = f"a record that cannot be read ({error}); is a quote left open?"
                    raise self.limits.error("invalid_csv", "CSV", got, line=start) from None
                if cells is None:
                    return
                if not names:
                    names = self.limits.require_names(cells)
                elif cells:
                    try:
                        record = self._csv_record(names, cells, start)
                    except TrainingDataError as error:
                        self._leave_out(error)
                    else:
                        yield start, record
                start = reader.line_num + 1

    def _leave_out(self, error: TrainingDataError) -> None:
        if self.on_fault is None:
            raise error
        self.on_fault(error)

    def _csv_record(self, names: list[str], cells: list[str], line: int) -> dict[str, object]:
        if len(cells) != len(names):
            hint = "; texts with a separator in them need quotes" if len(cells) > len(names) else ""
            expected, got = f"{counted(len(names), 'cell')} as in the header", f"{len(cells)}{hint}"
            raise self.limits.error("ragged_row", expected, got, line=line)
        return dict(zip(names, cells, strict=True))

    def _csv_columns(self) -> FileColumns | None:
        """Columns of text by pyarrow; None where it refuses the file or a row has two lines."""
        with self.path.open("rb") as file:
            start = file.readline(self.max_line_bytes).removeprefix(BOM)
        header = self.limits.require_header(start.decode("utf-8", "replace"))
        try:
            names = self.limits.require_names(next(_csv_reader([header], self._delimiter(header))))
            types = dict.fromkeys(names, pa.string())
            table = pyarrow.csv.read_csv(
                self.path,
                parse_options=pyarrow.csv.ParseOptions(delimiter=self._delimiter(header)),
                convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False),
            )
            lines = _find_lines(self.path)
            if table.column_names != names or lines is None or len(lines) != table.num_rows + 1:
                return None
        except (pa.ArrowException, csv.Error, UnicodeDecodeError):
            return None
        self.limits.require_rows(table.num_rows)
        self.limits.require_cells(table.num_rows, table.num_columns)
        return FileColumns(table, self.limits.original_lines(lines[1:]), self.unit)

    def _record_columns(self) -> FileColumns:
        """Columns of text from records; a key that a record lacks is null there."""
        records, names, tables, rows = self.records(), set[str](), [pa.table({_LINES: pa.array([], pa.int64())})], 0
        while batch := list(islice(records, _COLUMNS_BATCH_ROWS)):
            found = dict.fromkeys(name for _, record in batch for name in record)
            self.limits.require_width(len(names := names | set(found)))
            self.limits.require_cells(rows := rows + len(batch), len(names))
            cells = {name: [_cell(record.get(name)) for _, record in batch] for name in found}
            columns = {name: pa.array(column, pa.string()) for name, column in cells.items()}
            tables.append(pa.table({**columns, _LINES: [line for line, _ in batch]}))
        table = pa.concat_tables(tables, promote_options="default")
        lines = self.limits.original_lines(table.column(_LINES).to_numpy())
        return FileColumns(table.drop_columns(_LINES), lines, self.unit)

    def _xlsx_records(self) -> Iterator[Record]:
        table, lines = read_sheet(self.path, self.limits)
        yield from zip(lines, table.to_pylist(), strict=True)

    # Parquet

    @contextmanager
    def _open_parquet(self, max_bytes: int) -> Iterator[pq.ParquetFile]:
        """The file, its limits checked; what pyarrow then refuses becomes an error of the file."""
        try:
            with open_encoded(self.path) as file:
                self.limits.require_unique(file.schema_arrow.names)
                groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
                self.limits.require_rows(max(file.metadata.num_rows, sum(group.num_rows for group in groups)))
                size = sum(group.total_byte_size for group in groups)
                self.limits.require_bytes(size, max_bytes, " uncompressed")
                yield file
        except (DecodedTooLarge, MemoryError):
            expected = f"at most {max_bytes:,} bytes decoded"
            raise data_error(self.param, "file_too_large", expected, "more") from None
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            got = f"one that cannot be read ({text})"
            raise data_error(self.param, "invalid_parquet", "a Parquet file", got) from None

    def _parquet_records(self, wanted: Collection[str]) -> Iterator[Record]:
        with self._open_parquet(MAX_PARQUET_BYTES) as file:
            names: list[str] = file.schema_arrow.names
            unread = dict.fromkeys(name for name in names if name not in wanted)
            read, number = [name for name in names if name in wanted], 0
            for batch in read_batches(file, read, _PARQUET_BATCH_ROWS, MAX_PARQUET_BYTES):
                columns = zip(batch.schema.names, batch.columns, strict=True)
                cells = {name: self._values(column, number, name) for name, column in columns}
                for index in range(batch.num_rows):
                    number += 1
                    yield number, {name: column[index] for name, column in cells.items()} | unread

    def _parquet_columns(self) -> FileColumns:
        with self._open_parquet(MAX_TABLE_BYTES) as file:
            schema: pa.Schema = pq.read_schema(self.path).remove_metadata()
            self.limits.require_cells(file.metadata.num_rows, len(schema.names))
            read = read_batches(file, schema.names, _PARQUET_TABLE_ROWS, MAX_TABLE_BYTES)
            table = pa.Table.from_batches([decoded(self._with_short_cells(batch), schema) for batch in read], schema)
            table.validate(full=True)
            self.limits.require_rows(table.num_rows)
            self.limits.require_cells(table.num_rows, table.num_columns)
        return FileColumns(table, np.arange(1, table.num_rows + 1), self.unit)

    def _with_short_cells(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch. Raises TrainingDataError for a text that is longer than a line of JSONL or CSV may be."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if (longest := longest_text(column)) > MAX_LINE_BYTES:
                got = f"{longest:,} bytes"
                raise self.limits.error("line_too_long", f"cells of at most {MAX_LINE_BYTES:,} bytes", got, column=name)
        return batch

    def _values(self, column: pa.Array, before: int, name: str) -> list[object]:
        """Python values of a column; a text that is no UTF-8 is named by its row."""
        try:
            values = to_python(column)
        except UnicodeDecodeError:
            row = before + 1 + next(index for index in range(len(column)) if not _is_utf8(column[index]))
            raise self.limits.error("not_utf8", "UTF-8", "other bytes", line=row, column=name) from None
        return values

    def _delimiter(self, header: str) -> str:
        return self.delimiter or max(",;\t", key=header.count)


def _csv_reader(lines: Iterable[str], delimiter: str) -> Reader:
    # Python's own limit of a cell, 128 KiB, is below that of a line; this one ends a quote that is left open, too.
    csv.field_size_limit(MAX_LINE_BYTES)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _find_lines(path: Path) -> NDArray[np.int64] | None:
    """The numbers of the lines that are not empty; None where a row may have two, or a line a NUL byte."""
    numbers, before, quotes = [np.array([], dtype=np.int64)], 1, 0
    with path.open("rb") as file:
        while part := file.read(1 << 20) + file.readline():
            if b"\0" in part or (b"\r" in part and part.count(b"\r") != part.count(b"\r\n")):
                return None
            part = part.replace(b"\r", b"").removesuffix(b"\n")
            # Of n line feeds, the ends of lines but the last one; a line is empty where it ends as it begins.
            ends = np.append(np.flatnonzero(np.frombuffer(part, np.uint8) == ord("\n")), len(part))
            numbers.append(before + np.flatnonzero(np.diff(ends, prepend=-1) > 1))
            before, quotes = before + len(ends), quotes + part.count(b'"')
    return np.concatenate(numbers) if quotes % 2 == 0 else None


def _cell(value: object) -> str | None:
    """A JSON value as a cell of CSV has it."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _is_utf8(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True
