"""A CSV file as plain CSV in UTF-8: itself where it is that, else a copy."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.csv_options import CsvOptions
from models.training.data.csv_dialect import Layout
from models.training.data.csv_encoding import find_encoding, read_parts, with_line_feeds
from models.training.data.file_format import BOM
from models.training.data.file_limits import MAX_LINE_BYTES
from models.training.errors import data_error

_SAMPLE_LINES = 200
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file in UTF-8 whose lines are a header and rows, as `delimiter` separates them.

    `dropped` are the lines of the original, counted from 1, that it lacks; `read_as` says how the original is written.
    """

    path: Path
    delimiter: str
    dropped: tuple[int, ...] = ()
    read_as: tuple[str, ...] = ()

    def original(self, lines: NDArray[np.int64]) -> NDArray[np.int64]:
        """The original's lines of lines of this file, both counted from 1."""
        # The k-th dropped line (from 0) has dropped[k] - 1 - k lines of this file before it.
        before = np.array(self.dropped, dtype=np.int64) - 1 - np.arange(len(self.dropped))
        return lines + np.searchsorted(before, lines - 1, side="right")


@contextmanager
def open_plain(path: Path, options: CsvOptions, names: Collection[str], param: str) -> Iterator[PlainFile]:
    """The file itself, or a plain copy of it while the context is open; `names` are some that its header has.

    Raises TrainingDataError for bytes that are not of the encoding asked for.
    """
    encoding = find_encoding(path, options)
    sample = _read_sample(path, encoding.codec, _SAMPLE_LINES + (options.skip_rows or 0))
    layout = Layout.find(sample, options, names)
    read_as = (*encoding.read_as, *layout.read_as)
    if encoding.is_plain and layout.is_plain:
        yield PlainFile(path, layout.delimiter, (), read_as)
        return
    with tempfile.TemporaryDirectory(prefix="sonde-csv-") as folder:
        copy = Path(folder) / "plain.csv"
        dropped = _write_plain(path, copy, encoding.codec, layout, param)
        yield PlainFile(copy, layout.delimiter, tuple(dropped), read_as)


def _read_sample(path: Path, codec: str, count: int) -> list[str]:
    """The first lines, without their ends."""
    with path.open("rb") as file:
        text = with_line_feeds(file.read(_SAMPLE_BYTES).removeprefix(BOM).decode(codec, "replace"))
    return text.removesuffix("\n").split("\n", count)[:count]


def _write_plain(path: Path, copy: Path, codec: str, layout: Layout, param: str) -> list[int]:
    """Copy the lines that are a header or rows; return the numbers of the others. Raises TrainingDataError."""
    dropped = list[int]()
    try:
        with path.open(encoding=codec, newline="") as file, copy.open("w", encoding="utf-8", newline="") as target:
            parts = read_parts(file)
            target.writelines(parts if layout.is_plain else _rows(parts, layout, dropped, param))
    except UnicodeError as error:  # UTF-16 without a byte order mark gives no byte
        byte = f"the byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else error
        got = f"{byte}; name its encoding in `csv`"
        raise data_error(param, "wrong_encoding", f"text in {codec}", got) from None
    return dropped


def _rows(parts: Iterator[str], layout: Layout, dropped: list[int], param: str) -> Iterator[str]:
    """The lines that are a header or rows, with their ends; the numbers of the others go to `dropped`."""
    kept = 0
    for number, line in enumerate(_lines(parts), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise data_error(param, "line_too_long", f"at most {MAX_LINE_BYTES:,} bytes", "more", line=number)
        text = line.removeprefix("\ufeff") if number == 1 else line
        comment = layout.comments.include(number, text)
        is_row = number > layout.skipped and not comment and bool(text.strip())
        kept += is_row
        if number <= layout.skipped or comment or (is_row and 1 < kept <= 1 + layout.units):
            dropped.append(number)
        else:
            yield layout.cut(text, is_header=is_row and kept == 1) + "\n"


def _lines(parts: Iterator[str]) -> Iterator[str]:
    """The lines of a text without their ends; of one that is too long the beginning, which is too long as well."""
    rest = ""
    for part in parts:
        *lines, rest = (rest + part).split("\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield rest
