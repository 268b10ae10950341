"""Batches of a Parquet file within a bound on their decoded bytes.

A file of 1 KB can decode to many gigabytes: one value of 16 MB repeated by a dictionary, or a run of a billion equal
numbers. The footer's sizes are checked first. They may be false. So text stays encoded until its decoded size is
counted, and the process may not grow beyond a bound while a batch is read.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_BYTES = 64 << 20
# What a batch may take beyond the process's memory before it: compressed columns, pages and decoded values.
_MAX_GROWTH_BYTES = 4 << 30
_STATM = Path("/proc/self/statm")
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


class DecodedTooLarge(Exception):
    """The file holds more decoded bytes than the bound."""


@contextmanager
def open_encoded(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file so that its columns of text come as dictionaries and indices, each value once."""
    with _limited_growth():
        schema = pq.read_schema(path)
        text = [field.name for field in schema if _is_text(field.type)]
        file = pq.ParquetFile(path, read_dictionary=text, pre_buffer=False)
    with file:
        yield file


def read_batches(file: pq.ParquetFile, columns: Sequence[str], rows: int, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows, fewer where values are long.

    Raises DecodedTooLarge where the columns would take more than `max_bytes` in all, and MemoryError for a batch beyond
    the bound of growth.
    """
    wide, longest = _declared_sizes(file, columns)
    if wide > max_bytes:
        raise DecodedTooLarge
    rows = max(1, min(rows, _BATCH_BYTES // max(longest, 1)))
    batches = file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)
    total = 0
    while True:
        with _limited_growth():
            batch = next(batches, None)
        if batch is None:
            return
        total += sum(_decoded_bytes(column) for column in batch.columns)
        if total > max_bytes:
            raise DecodedTooLarge
        yield batch


def to_python(column: pa.Array) -> list[object]:
    """The values of a column, where equal texts are one object. Raises UnicodeDecodeError."""
    if not pa.types.is_dictionary(column.type):
        values: list[object] = column.to_pylist()
        return values
    used = pc.unique(column.indices)
    texts = dict(zip(used.to_pylist(), column.dictionary.take(used).to_pylist(), strict=True))
    return [texts[index] for index in column.indices.to_pylist()]


def longest_text(column: pa.Array) -> int:
    """The bytes of the longest text of a column that came as a dictionary; 0 for other columns."""
    if not (pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)):
        return 0
    return int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def decoded(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the types of the file's own schema."""
    pairs = zip(batch.columns, schema, strict=True)
    columns = [column if column.type == field.type else column.cast(field.type) for column, field in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _is_text(kind: pa.DataType) -> bool:
    types = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_kind(kind) for is_kind in types)


def _declared_sizes(file: pq.ParquetFile, columns: Sequence[str]) -> tuple[int, int]:
    """Bytes of the columns' values by their number and width, and of the longest nested column of text.

    Lists of text are not read as dictionaries, and each of their values may be as long as the column.
    """
    wide = longest = 0
    for index in range(file.metadata.num_columns):
        column = file.metadata.schema.column(index)
        if column.path.split(".")[0] not in columns and column.path not in columns:
            continue
        for group in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(group).column(index)
            wide += chunk.num_values * _WIDTHS.get(chunk.physical_type, column.length)
            if column.max_repetition_level or "." in column.path:
                longest = max(longest, chunk.total_uncompressed_size)
    return wide, longest


def _decoded_bytes(column: pa.Array) -> int:
    """The bytes of a column after its dictionary is decoded."""
    if not (pa.types.is_dictionary(column.type) and _is_text(column.type.value_type)):
        return int(column.nbytes)
    lengths = pc.cast(pc.binary_length(column.dictionary), pa.int64()).take(column.indices)
    return int(column.indices.nbytes + (pc.sum(lengths).as_py() or 0))


@contextmanager
def _limited_growth() -> Iterator[None]:
    """Let the process's address space grow by no more than a bound; an allocation beyond it is a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if not _STATM.exists():  # no Linux: the footer's sizes have to do
        yield
        return
    pages = int(_STATM.read_text().split()[0])
    limit = pages * resource.getpagesize() + _MAX_GROWTH_BYTES
    if soft != resource.RLIM_INFINITY and soft <= limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
