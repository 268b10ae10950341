"""The dialect of a CSV file: its encoding, its separator, and the lines in it that are not rows.

A file that is plain CSV in UTF-8 is read where it is. Another one is copied: as UTF-8, without those lines.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.training.csv_options import CsvOptions
from models.training.data.csv_encoding import find_encoding, has_lone_returns
from models.training.data.file_format import BOM
from models.training.data.file_limits import MAX_LINE_BYTES
from models.training.errors import data_error, quote, shorten

# In the order in which they are preferred: numbers and texts have commas, too.
DELIMITERS = "\t;|,"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_SAMPLE_LINES = 200
_SAMPLE_BYTES = 1 << 20
_COMMENT = "#"
# The line in which a spreadsheet writes its separator.
_DECLARED = re.compile(r"\"?sep=(.)\"?[,;]*", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
# Cells of a spreadsheet that begin as a comment does.
_ERRORS = frozenset(("#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"))
# Lines above the header are recognised where so many later lines agree.
_LEAST_ROWS = 3
# What LabVIEW writes below each part of its header; the names of columns follow the last one.
_LABVIEW = "***End_of_Header***"
# A column that loggers name and leave without cells.
_REMARK = re.compile(r"comments?|remarks?|notes?|bemerkung(en)?|kommentare?", re.IGNORECASE)
# Loggers write a row of units, and one of how each value was made, such as Avg.
_MOST_UNIT_ROWS = 2
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,' \u00a0\u202f]*(?:[eE][+-]?[0-9]+)?%?")
# Units have digits, too: m3/h.
_DATE_LIKE = re.compile(r"[0-9]{4}|[0-9]{1,2}[-./:][0-9]")
_EMPTY = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "#n/a"))


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
def plain(path: Path, options: CsvOptions, param: str) -> Iterator[PlainFile]:
    """The file itself, or a plain copy of it while the context is open.

    Raises TrainingDataError for bytes that are not of the encoding asked for.
    """
    encoding, read_as = find_encoding(path, options)
    with path.open("rb") as file:
        sample = _decode_sample(file.read(_SAMPLE_BYTES), encoding)
    layout = _Layout.find(sample, options)
    read_as = [*read_as, *layout.read_as]
    if encoding == "utf-8" and layout.is_plain and not has_lone_returns(path):
        yield PlainFile(path, layout.delimiter, (), tuple(read_as))
        return
    with tempfile.TemporaryDirectory(prefix="sonde-csv-") as folder:
        copy = Path(folder) / "plain.csv"
        dropped = _write_plain(path, copy, encoding, layout, param)
        yield PlainFile(copy, layout.delimiter, tuple(dropped), tuple(read_as))


@dataclass(frozen=True, slots=True)
class _Layout:
    """The number of lines above the header and of those of units below it, and which lines are comments.

    `width` is the number of cells where lines have separators beyond it, and None where they have none. `remark` says
    that the header's last column has no cells.
    """

    delimiter: str
    comments: _Comments
    skipped: int = 0
    units: int = 0
    width: int | None = None
    remark: bool = False
    read_as: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        return not (self.skipped or self.units or self.comments.mark or self.width or self.remark)

    @classmethod
    def find(cls, sample: Sequence[str], options: CsvOptions) -> _Layout:
        below = [line for line in sample[options.skip_rows or 0 :] if line.strip()]
        declared = _DECLARED.fullmatch(below[0].rstrip("\r\n")) if below and options.skip_rows is None else None
        delimiter = options.delimiter or (declared[1] if declared else _find_delimiter(_without_marked(below, options)))
        comments = _Comments.find(sample, delimiter, options)
        numbered = [
            (number, line)
            for number, line in enumerate(sample)
            if number >= (options.skip_rows or 0) and line.strip() and not comments.include(number + 1, line)
        ]
        rows = [line for _, line in numbered]
        first = int(declared is not None and len(rows) > 1)
        header = 0 if options.skip_rows is not None else first + _find_header(rows[first:], delimiter)
        skipped = numbered[header][0] if header or options.skip_rows else 0
        body = [_cells(line, delimiter) for line in rows[header:]]
        units = _count_units(body) if options.units_row is None else int(options.units_row)
        width, remark = _find_width(body), _has_remark(body)
        read_as = [] if delimiter == "," else [_NAMES.get(delimiter, repr(delimiter))]
        read_as += [f"{skipped} lines above the header left out"] if skipped else []
        read_as += [f"lines that begin with {comments.mark} left out"] if comments.mark else []
        read_as += [f"a row of units left out ({shorten(', '.join(filter(None, row)))})" for row in body[1 : 1 + units]]
        read_as += ["a separator at the end of each row"] if width else []
        read_as += [f"left out {quote(body[0][-1].strip())}, which has no cells"] if remark else []
        return cls(delimiter, comments, skipped, units, width, remark, tuple(read_as))


@dataclass(frozen=True, slots=True)
class _Comments:
    """Which lines are comments: all that begin with `mark`, or below the line `above` those that are no rows.

    `widths` are the numbers of separators that rows have; None where the job names the mark.
    """

    mark: str | None
    delimiter: str
    above: int = 0
    widths: frozenset[int] | None = None

    @classmethod
    def find(cls, sample: Sequence[str], delimiter: str, options: CsvOptions) -> _Comments:
        if options.comment is not None:
            return cls(options.comment, delimiter)
        rows = [line for line in sample if line.strip() and not _is_comment(line, _COMMENT)]
        above = next((at for at, line in enumerate(sample) if line.strip() and not _is_comment(line, _COMMENT)), 0)
        marked = [at for at in range(above) if _is_comment(sample[at], _COMMENT)]
        # A header may begin with the mark. Then rows follow, which have numbers.
        if marked and _is_header(sample[marked[-1]], rows[0], delimiter):
            above = marked[-1]
        widths = frozenset(_count(line, delimiter) for line in [*rows, *sample[above : above + 1]])
        found = cls(_COMMENT, delimiter, above, widths)
        has_some = any(found.include(number, line) for number, line in enumerate(sample, start=1))
        return found if has_some else cls(None, delimiter)

    def include(self, number: int, line: str) -> bool:
        """Whether the line with this number, counted from 1, is a comment."""
        if self.mark is None or not _is_comment(line, self.mark):
            return False
        if self.widths is None or number <= self.above:
            return True
        separators = _count(line, self.delimiter)
        is_row = separators > 0 and separators in self.widths
        return not is_row and line.split(self.delimiter)[0].strip().strip('"').lower() not in _ERRORS


def _decode_sample(content: bytes, encoding: str) -> list[str]:
    """The first lines, as a text file has them: `splitlines` would end them at form feeds, too."""
    text = content.removeprefix(BOM).decode(encoding, "replace")
    return list(islice(io.StringIO(text, newline=""), _SAMPLE_LINES))


def _is_comment(line: str, mark: str) -> bool:
    return line.lstrip().startswith(mark)


def _without_marked(lines: Sequence[str], options: CsvOptions) -> Sequence[str]:
    """The lines that do not begin as comments do; all where none is left."""
    return [line for line in lines if not _is_comment(line, options.comment or _COMMENT)] or lines


def _is_header(line: str, row: str, delimiter: str) -> bool:
    """Whether a line with `#` names the cells of the row below it, some of which are numbers or dates."""
    like_data = any(_is_number(cell) or _DATE_LIKE.match(cell.strip()) for cell in _cells(row, delimiter))
    return like_data and abs(_count(line, delimiter) - _count(row, delimiter)) <= int(_count(line, delimiter) > 0)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _count(line: str, delimiter: str) -> int:
    """The separators of a line outside of quotes."""
    return _QUOTED.sub("", line).count(delimiter)


def _find_delimiter(rows: Sequence[str]) -> str:
    """The separator that most rows have, each equally often; the comma where there is none."""

    def agreement(mark: str) -> int:
        counts = [_count(line, mark) for line in rows]
        common = max(set(counts), key=counts.count, default=0)
        return counts.count(common) if common else sum(count > 0 for count in counts) - len(rows)

    return max(DELIMITERS, key=agreement) if any(mark in line for line in rows for mark in DELIMITERS) else ","


def _find_header(rows: Sequence[str], delimiter: str) -> int:
    """The index of the header: the rows above it have other numbers of cells than all later ones."""
    if ends := [at + 1 for at, line in enumerate(rows) if line.startswith(_LABVIEW)]:
        return min(ends[-1], len(rows) - 1)
    cells = [_cells(line, delimiter) for line in rows]
    for start, names in enumerate(cells[:50]):
        count, later = len(names), cells[start:]
        if count > 1 and len(later) > _LEAST_ROWS and _agree(later, count):
            named = not any(map(_is_number, names))
            return start if named and count not in map(len, cells[:start]) else 0
    return 0


def _agree(rows: Sequence[Sequence[str]], count: int) -> bool:
    """Whether rows have so many cells; a few may have one too many, a fault that reading names."""
    others = [len(row) for row in rows if not _fits(row, count)]
    return 2 * len(others) < len(rows) and all(one == count + 1 for one in others)


def _fits(row: Sequence[str], count: int) -> bool:
    """Whether a row has so many cells, and beyond them empty ones alone."""
    return len(row) >= count and not any(map(str.strip, row[count:]))


def _count_units(body: Sequence[Sequence[str]]) -> int:
    """The number of rows of units below the header."""
    for count in range(min(_MOST_UNIT_ROWS, len(body) - 1), 0, -1):
        if all(_has_units([body[0], row, *body[1 + count :]]) for row in body[1 : 1 + count]):
            return count
    return 0


def _find_width(body: Sequence[Sequence[str]]) -> int | None:
    """The number of cells up to the last name, where only empty ones follow in each row; None where none do.

    One empty name is a column without a name.
    """
    if len(body) <= _LEAST_ROWS:
        return None
    header = [cell.strip() for cell in body[0]]
    width = max((at + 1 for at, name in enumerate(header) if name), default=0)
    widest = max(map(len, body))
    if not width or widest == width or (widest == len(header) == width + 1):
        return None
    return width if all(_fits(row, width) for row in body[1:]) else None


def _has_remark(body: Sequence[Sequence[str]]) -> bool:
    """Whether the last name is one of remarks, which no row has a cell for."""
    if len(body) <= _LEAST_ROWS or not _REMARK.fullmatch(body[0][-1].strip()):
        return False
    return all(len(row) == len(body[0]) - 1 for row in body[1:])


def _has_units(body: Sequence[Sequence[str]]) -> bool:
    """Whether no cell of the first row is a number, where all filled cells of a column below it are."""
    if len(body) <= _LEAST_ROWS or len(body[0]) != len(body[1]):
        return False
    first, rest = body[1], body[2:]
    columns = [[row[at].strip() for row in rest if at < len(row)] for at in range(len(first))]
    numeric = [
        any(cell.lower() not in _EMPTY for cell in column)
        and all(cell.lower() in _EMPTY or _NUMBER.fullmatch(cell) for cell in column)
        for column in columns
    ]
    named = [cell.strip() for cell, is_number in zip(first, numeric, strict=True) if is_number]
    unlike = [cell for cell in named if cell.lower() not in _EMPTY and not _NUMBER.fullmatch(cell)]
    filled = zip(map(str.strip, first), numeric, columns, strict=True)
    if any(cell and cell in column for cell, is_number, column in filled if not is_number):
        return False  # a text of rows, such as the name of a machine
    return bool(unlike) and not any(map(_NUMBER.fullmatch, named)) and not any(map(_DATE_LIKE.search, first))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _write_plain(path: Path, copy: Path, encoding: str, layout: _Layout, param: str) -> list[int]:
    """Copy the lines that are a header or rows; return the numbers of the others. Raises TrainingDataError."""
    dropped, kept = list[int](), 0
    with path.open(encoding=encoding, newline="") as file, copy.open("w", encoding="utf-8", newline="") as target:
        try:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 2), ""), start=1):
                if len(line.rstrip("\r\n")) > MAX_LINE_BYTES:
                    raise data_error(param, "line_too_long", f"at most {MAX_LINE_BYTES:,} bytes", "more", line=number)
                text = line.removeprefix("\ufeff") if number == 1 else line
                comment = layout.comments.include(number, text)
                is_row = number > layout.skipped and not comment and bool(text.strip())
                kept += is_row
                if number <= layout.skipped or comment or (is_row and 1 < kept <= 1 + layout.units):
                    dropped.append(number)
                else:
                    target.write(_plain_line(text, layout, is_header=is_row and kept == 1))
        except UnicodeError as error:  # UTF-16 without a byte order mark gives no byte
            byte = f"the byte 0x{error.object[error.start]:02x}" if isinstance(error, UnicodeDecodeError) else error
            got = f"{byte}; name its encoding in `csv`"
            raise data_error(param, "wrong_encoding", f"text in {encoding}", got) from None
    return dropped


def _plain_line(line: str, layout: _Layout, *, is_header: bool) -> str:
    """The line without separators beyond the last column; one that ends with a return alone ends with a line feed."""
    body = line.rstrip("\r\n")
    if layout.remark and is_header:
        body = body.rpartition(layout.delimiter)[0]
    if layout.width:
        beyond = _count(body, layout.delimiter) + 1 - layout.width
        empty = len(body) - len(body.rstrip(layout.delimiter))
        body = body[: len(body) - max(min(beyond, empty), 0)]
    return body + ("\n" if len(line) > len(line.rstrip("\r\n")) else "")
