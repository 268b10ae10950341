"""Readers of JSONL, CSV and Parquet: a stream of (line, record), never the whole file at once, and nothing is ever
unpickled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from models.training.errors import TrainingDataError

if TYPE_CHECKING:
    from _csv import Reader

Format = Literal["jsonl", "csv", "parquet"]
Record = tuple[int, dict[str, object]]
MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_PARQUET_BATCH = 512
# Stated by the file itself; a first defence only, the texts read are counted too.
_MAX_PARQUET_BYTES = 4 << 30


def find_format(path: Path, asked: str | None, param: str) -> Format:
    """The format asked for, or told by the name, or by the first bytes; TrainingDataError when the bytes are
    something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise TrainingDataError("file_not_found", f"{param}: the file is not there", param) from None
    if asked is not None and asked not in ("jsonl", "csv", "parquet"):
        raise TrainingDataError(
            "unknown_format", f"{param}: expected the format jsonl, csv or parquet, got {asked[:40]!r}", param
        )
    kind = _magic(start)
    if kind == "a Parquet file" and asked is None and path.suffix.lower() not in _SUFFIXES:
        return "parquet"
    by_content: Format = "jsonl" if start.removeprefix(_BOM).lstrip()[:1] in (b"{", b"[") else "csv"
    chosen = next((known for known in ("jsonl", "csv", "parquet") if known == asked), None) or _SUFFIXES.get(
        path.suffix.lower(), by_content
    )
    if start and kind != ("a Parquet file" if chosen == "parquet" else None):
        raise TrainingDataError(
            "wrong_format",
            f"{param}: expected {chosen}, got {kind or 'something else'} (told by its first bytes)",
            param,
        )
    return chosen


def _magic(start: bytes) -> str | None:
    if start.startswith(_PICKLES):
        return "a pickle, which is never opened"
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def read_jsonl(path: Path, *, max_line_bytes: int, param: str) -> Iterator[Record]:
    """One JSON object a line; blank lines are skipped, a byte order mark is tolerated, duplicate keys are refused."""
    with path.open("rb") as file:
        for number, line in _lines(file, max_line_bytes, param):
            if line.strip():
                yield number, _object(line.strip(), number, param)


def _lines(file: BinaryIO, max_line_bytes: int, param: str) -> Iterator[tuple[int, str]]:
    """Physical lines with their ends, each checked for size, UTF-8 and NUL before anything reads it."""
    number = 0
    while raw := file.readline(max_line_bytes + 2):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if len(raw.rstrip(b"\r\n")) > max_line_bytes:
            message = f"line {number}: expected at most {max_line_bytes:,} bytes, got more"
            raise TrainingDataError("line_too_long", message, param, line=number)
        if b"\0" in raw:
            message = f"line {number}: expected text, got a NUL byte (a binary file, or UTF-16?)"
            raise TrainingDataError("nul", message, param, line=number)
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            message = (
                f"line {number}: expected UTF-8, got the byte 0x{raw[error.start]:02x} at position {error.start + 1}"
            )
            raise TrainingDataError("not_utf8", message, param, line=number) from None


def _object(text: str, number: int, param: str) -> dict[str, object]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        value = _with_constants(text, number, param, error)
    if not isinstance(value, dict):
        hint = " (one object a line, not one array)" if isinstance(value, list) or text == "[" else ""
        message = f"line {number}: expected a JSON object, got {_json_name(value)}{hint}"
        raise TrainingDataError("not_an_object", message, param, line=number)
    # A colon for every key and none to spare: no key can have come twice. Otherwise look closely.
    if text.count(":") != _count_keys(value):
        _refuse_duplicates(text, number, param)
    return value


def _with_constants(text: str, number: int, param: str, error: orjson.JSONDecodeError) -> object:
    """NaN and Infinity are no JSON, but Python writes them; read them, so that the column they are in can be named."""
    if "NaN" in text or "Infinity" in text:
        try:
            return json.loads(text, parse_int=_whole)
        except (json.JSONDecodeError, RecursionError):
            pass  # the message below names the first fault
    hint = " (one object a line, not one array)" if text.startswith("[") else ""
    what = error.msg.split(":")[0]
    message = (
        f"line {number}: expected a JSON object, got text that is no JSON ({what}, at character {error.colno}){hint}"
    )
    raise TrainingDataError("invalid_json", message, param, line=number) from None


def _whole(digits: str) -> float:
    return int(digits) if len(digits) < 20 else float(digits)


def _count_keys(value: object) -> int:
    """Keys of an object and of everything in it; orjson has already limited the depth."""
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count


def _refuse_duplicates(text: str, number: int, param: str) -> None:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in items:
            if key in seen:
                message = f"line {number}, column {key[:60]!r}: expected each key once, got it twice"
                raise TrainingDataError("duplicate_key", message, param, line=number, column=key)
            seen[key] = value
        return seen

    try:
        json.loads(text, object_pairs_hook=pairs, parse_int=float)
    except RecursionError:
        raise TrainingDataError(
            "invalid_json", f"line {number}: expected a flat object, got deep nesting", param, line=number
        ) from None


def _json_name(value: object) -> str:
    return {list: "an array", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def read_csv(path: Path, *, max_line_bytes: int, param: str) -> Iterator[Record]:
    """A header and rows, separated by comma, semicolon or tab (told by the header); a record is named by its first
    line.
    """
    with path.open("rb") as file:
        lines = _lines(file, max_line_bytes, param)
        first = next(lines, None)
        if first is None:
            return
        header_line = first[1]
        delimiter = max(",;\t", key=header_line.count)

        def texts() -> Iterator[str]:
            yield header_line
            for _, line in lines:
                yield line

        # Python's own limit of 128 KiB is below that of a line; it ends a quote that is left open, too.
        csv.field_size_limit(MAX_LINE_BYTES)
        reader = csv.reader(texts(), delimiter=delimiter, strict=True)
        yield from _records(reader, param)


def _records(reader: Reader, param: str) -> Iterator[Record]:
    header: list[str] | None = None
    start = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"line {start}: expected CSV, got a record that cannot be read ({error}); is a quote left open?"
            raise TrainingDataError("invalid_csv", message, param, line=start) from None
        if header is None:
            header = _header(cells, param)
        elif cells:
            if len(cells) != len(header):
                hint = "; texts with a separator in them need quotes" if len(cells) > len(header) else ""
                message = f"line {start}: expected {len(header)} cells as in the header, got {len(cells)}{hint}"
                raise TrainingDataError("ragged_row", message, param, line=start)
            yield start, dict(zip(header, cells, strict=True))
        start = reader.line_num + 1


def _header(cells: list[str], param: str) -> list[str]:
    twice = (
        next((name for name in cells if cells.count(name) > 1), None) if len(cells) <= 1000 else "a thousand columns"
    )
    if twice is not None:
        message = f"line 1, column {twice[:60]!r}: expected each column once, got it twice"
        raise TrainingDataError("duplicate_key", message, param, line=1, column=twice)
    return cells


def read_parquet(path: Path, *, wanted: frozenset[str], max_rows: int, param: str) -> Iterator[Record]:
    """The wanted columns of a Parquet file, a few hundred rows at a time; other columns come back as None, unread."""
    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _check_parquet(file, names, max_rows, param)
            read = [name for name in names if name in wanted]
            unread = dict.fromkeys(name for name in names if name not in wanted)
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=read):
                columns = {
                    name: _values(batch.column(index), number, name, param)
                    for index, name in enumerate(batch.schema.names)
                }
                for index in range(batch.num_rows):
                    number += 1
                    yield number, {name: columns[name][index] for name in columns} | unread
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise TrainingDataError(
            "invalid_parquet", f"{param}: expected a Parquet file, got one that cannot be read ({text})", param
        ) from None


def _check_parquet(file: pq.ParquetFile, names: list[str], max_rows: int, param: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"column {twice[:60]!r}: expected each column once, got it twice"
        raise TrainingDataError("duplicate_key", message, param, column=twice)
    if file.metadata.num_rows > max_rows:
        raise TrainingDataError(
            "too_many_rows", f"{param}: expected at most {max_rows:,} rows, got {file.metadata.num_rows:,}", param
        )
    size = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
    if size > _MAX_PARQUET_BYTES:
        message = f"{param}: expected at most {_MAX_PARQUET_BYTES:,} bytes uncompressed, got {size:,}"
        raise TrainingDataError("file_too_large", message, param)


def _values(column: pa.Array, before: int, name: str, param: str) -> list[object]:
    """Python values of a column; a text that is no UTF-8 is named."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        for index in range(len(column)):
            try:
                column[index].as_py()
            except UnicodeDecodeError:
                line = before + index + 1
                message = f"row {line}, column {name!r}: expected UTF-8, got other bytes"
                raise TrainingDataError("not_utf8", message, param, line=line, column=name) from None
        raise
    return values
