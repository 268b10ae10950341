"""Text files of one endless line, row or header, and tables of cells that take no bytes: refused within bounds."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.training.data import file_limits
from models.training.data.dataset import read_rows
from models.training.data.table import ColumnRoles, read_table
from models.training.errors import TrainingDataError

_MIB = 1 << 20
_LINE_BYTES = 150 * _MIB
_MAX_GROWTH_BYTES = 100 * _MIB
Endless = tuple[Path, set[str]]  # a file, and the codes of the errors that it may end in


def _write(path: Path, *parts: bytes) -> Path:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
    return path


def _endless(path: Path, start: bytes, item: bytes, end: bytes = b"") -> Path:
    part = item * (_MIB // len(item))
    return _write(path, start, *[part] * (_LINE_BYTES // len(part)), end)


def _parquet(path: Path, rows: int, **cells: str) -> Path:
    """A file whose rows are alike, so that it takes no room."""
    indices = pa.array([0] * rows, pa.int32())
    columns = {name: pa.DictionaryArray.from_arrays(indices, [cell]) for name, cell in cells.items()}
    pq.write_table(pa.table(columns), path)
    return path


FILES: dict[str, tuple[Callable[[Path], Path], set[str]]] = {
    "a line of CSV": (lambda at: _endless(at / "a.csv", b"text,label\n", b"x"), {"line_too_long"}),
    "a cell of CSV": (lambda at: _endless(at / "a.csv", b'text,label\n"', b"x\n", b'",a\n'), {"invalid_csv"}),
    "a header of CSV": (lambda at: _endless(at / "a.csv", b"", b"column,"), {"line_too_long", "wrong_columns"}),
    "a line of CSV in UTF-16": (
        lambda at: _endless(at / "a.csv", "\ufefftext,label\n".encode("utf-16-le"), "x".encode("utf-16-le")),
        {"line_too_long", "wrong_format"},
    ),
    "many columns of CSV": (
        lambda at: _write(at / "a.csv", b",".join(b"%d" % at for at in range(100_000)) + b"\n"),
        {"wrong_columns"},
    ),
    "a row of JSONL": (lambda at: _endless(at / "a.jsonl", b'{"text": "', b"x", b'"}\n'), {"line_too_long"}),
    "a list in JSONL": (lambda at: _endless(at / "a.jsonl", b'{"text": [', b"1,", b"1]}\n"), {"line_too_long"}),
    "a cell of Parquet": (
        lambda at: _parquet(at / "a.parquet", 100, text="x" * (2 * _MIB), label="a"),
        {"line_too_long", "text_too_long"},
    ),
    "members of gzip": (lambda at: _write(at / "a.jsonl", *[gzip.compress(b"\0" * _MIB)] * 1000), {"wrong_format"}),
    "members of gzip in CSV": (
        lambda at: _write(at / "a.csv", *[gzip.compress(b"\0" * _MIB)] * 1000),
        {"wrong_format"},
    ),
}
TABLES: dict[str, Callable[[Path], Path]] = {
    "keys that other rows lack": lambda at: _write(
        at / "a.jsonl", b"{%b}\n" % b",".join(b'"%d":1' % one for one in range(999)), b"{}\n" * 25_000
    ),
    "bits": lambda at: _bits(at / "a.parquet"),
}


def _bits(path: Path) -> Path:
    bits = pa.array([True] * 62_500)
    pq.write_table(pa.table({f"v{index}": bits for index in range(500)}), path, compression="zstd")
    assert path.stat().st_size < 2 * _MIB
    return path


@pytest.fixture(scope="module", params=FILES)
def endless(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endless]:
    """A file for both readers: to write it takes longest."""
    make, codes = FILES[request.param]
    path = make(tmp_path_factory.mktemp("endless"))
    yield path, codes
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["rows", "table"])
def test_an_endless_line_is_refused_within_bounds(endless: Endless, reader: str) -> None:
    path, codes = endless
    code = _measure(lambda: read_rows(path) if reader == "rows" else read_table(path, ColumnRoles()))
    assert code in codes


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_cells_that_take_no_bytes_are_counted(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A sixteenth of the cells would still take 128 MiB as float64.
    monkeypatch.setattr(file_limits, "_MAX_CELLS", file_limits._MAX_CELLS // 16)
    path = TABLES[name](tmp_path)
    assert _measure(lambda: read_table(path, ColumnRoles())) == "file_too_large"


def _measure(read: Callable[[], object]) -> str:
    """The code of the error that reading ends in, within bounds of time and memory."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, began = _memory("VmRSS"), time.thread_time()
    with pytest.raises(TrainingDataError) as caught:
        read()
    assert _memory("VmHWM") - before < _MAX_GROWTH_BYTES
    assert time.thread_time() - began < 20
    return caught.value.code


def _memory(name: str) -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
