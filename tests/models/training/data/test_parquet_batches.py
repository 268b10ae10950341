"""Parquet files that decode to far more than they are: refused before the memory is taken."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.training.data import file_reader, parquet_batches
from models.training.data.dataset import read_rows
from models.training.data.parquet_batches import to_python
from models.training.data.table import ColumnRoles, read_table
from models.training.errors import TrainingDataError

_MIB = 1 << 20
# Reads the file under an eighth of the bounds in a process of its own; prints the error and the growth in bytes.
_MEASURED = """
import resource, sys
from pathlib import Path
from models.training.data import file_reader, parquet_batches
from models.training.data.dataset import read_rows
from models.training.data.table import ColumnRoles, read_table
from models.training.errors import TrainingDataError
file_reader.MAX_TABLE_BYTES, file_reader.MAX_PARQUET_BYTES = 256 << 20, 512 << 20
if sys.argv[3] == "lies":
    parquet_batches._declared_sizes = lambda *_: (0, 0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
try:
    read_rows(Path(sys.argv[2])) if sys.argv[1] == "rows" else read_table(Path(sys.argv[2]), ColumnRoles())
except TrainingDataError as error:
    print(error.code, peak() - before)
"""


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


def _write(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path, compression="zstd", store_schema=False)
    return path


def _long_text(path: Path) -> Path:
    return _write(path, pa.table({"text": _repeated("x" * (16 * _MIB), 300)}))


def _many_texts(path: Path) -> Path:
    return _write(path, pa.table({"text": _repeated("x" * _MIB, 2_000)}))


def _long_turns(path: Path) -> Path:
    turns = pa.array([[{"role": "user", "content": "x" * (16 * _MIB)}, {"role": "assistant", "content": "a"}]])
    table = pa.table({"messages": turns})
    return _write(path, pa.concat_tables([table] * 8).combine_chunks())


def _many_columns(path: Path) -> Path:
    column = pa.array([1.0] * 100_000)
    return _write(path, pa.table({f"v{index}": column for index in range(400)}))


def _long_list(path: Path) -> Path:
    values = pa.array([1.0]).take(pa.array([0] * 5_000_000, pa.int32()))
    rows = [pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)] * 8
    tables = [pa.table({f"v{index}": row for index, row in enumerate(rows)})]
    with pq.ParquetWriter(path, tables[0].schema, compression="zstd", store_schema=False) as writer:
        for table in tables:
            writer.write_table(table)
    return path


_BOMBS = pytest.mark.parametrize(
    ("reader", "make", "code"),
    [
        ("rows", _long_text, "file_too_large"),
        ("rows", _many_texts, "file_too_large"),
        ("rows", _long_turns, "text_too_long"),
        ("table", _long_text, "file_too_large"),
        ("table", _many_texts, "file_too_large"),
        ("table", _many_columns, "file_too_large"),
        ("table", _long_list, "file_too_large"),
    ],
)


@pytest.mark.slow
@_BOMBS
def test_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, make: Callable[[Path], Path], code: str
) -> None:
    monkeypatch.setattr(file_reader, "MAX_TABLE_BYTES", 256 * _MIB)
    monkeypatch.setattr(file_reader, "MAX_PARQUET_BYTES", 512 * _MIB)
    path = make(tmp_path / "bomb.parquet")
    with pytest.raises(TrainingDataError) as caught:
        read_rows(path) if reader == "rows" else read_table(path, ColumnRoles())
    assert caught.value.code == code


@pytest.mark.long
@pytest.mark.parametrize("footer", ["honest", "lies"])
@_BOMBS
def test_bombs_are_refused_before_they_take_memory(
    tmp_path: Path, reader: str, make: Callable[[Path], Path], code: str, footer: str
) -> None:
    path = make(tmp_path / "bomb.parquet")
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, reader, str(path), footer],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found, growth = run.stdout.split() if run.stdout else ("none", "0")
    assert found == code, run.stderr
    assert int(growth) < 768 * _MIB


@pytest.mark.slow
def test_growth_beyond_the_bound_is_a_memory_error_and_the_limit_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr(parquet_batches, "_MAX_GROWTH_BYTES", 256 * _MIB)
    bytearray(512 * _MIB)  # which the machine has
    with pytest.raises(MemoryError), parquet_batches._limited_growth():
        bytearray(512 * _MIB)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.slow
def test_a_footer_that_declares_too_much_is_refused_before_a_batch_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reader, "MAX_TABLE_BYTES", 256 * _MIB)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("a batch is read"))
    with pytest.raises(TrainingDataError, match="bytes decoded"):
        read_table(_many_columns(tmp_path / "bomb.parquet"), ColumnRoles())


def test_a_memory_error_of_pyarrow_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "rows.parquet", pa.table({"text": ["a"]}))

    def fail() -> None:
        raise pa.ArrowMemoryError("malloc of size 1073741824 failed")

    monkeypatch.setattr(parquet_batches, "_limited_growth", fail)
    with pytest.raises(TrainingDataError, match=r"at most 4,294,967,296 bytes decoded") as caught:
        read_rows(path)
    assert caught.value.code == "file_too_large"


def test_equal_texts_are_one_object() -> None:
    texts = to_python(pa.array(["a", "b", None, "a"]).dictionary_encode())
    assert texts == ["a", "b", None, "a"]
    assert texts[0] is texts[3]


def test_rows_are_the_same_from_every_encoding(tmp_path: Path) -> None:
    texts = [f"text {index % 700} é" for index in range(2000)]
    for name, encoding in (("plain", False), ("dictionary", True)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"text": texts}), path, use_dictionary=encoding, row_group_size=900)
        assert read_rows(path).texts == [texts]


def test_tables_are_the_same_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {
        "g": pa.array(["a", "b"] * 50),
        "v": pa.array(range(100)),
        "c": pa.array(["x"] * 100).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=30)
    roles = ColumnRoles(columns=("v",), group="g", label=None)
    whole = read_table(tmp_path / "t.parquet", roles)
    monkeypatch.setattr("models.training.data.file_reader._PARQUET_TABLE_ROWS", 7)
    parts = read_table(tmp_path / "t.parquet", roles)
    assert parts.groups == whole.groups == ("a", "b") * 50
    assert parts.readings.tolist() == whole.readings.tolist() == [[float(value)] for value in range(100)]
