"""The dialect of a CSV file: its separator, and the lines in it that are not rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

from models.counted import counted
from models.training.csv_options import CsvOptions
from models.training.errors import quote, shorten

# In the order in which they are preferred: numbers and texts have commas, too.
DELIMITERS = "\t;|,"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_COMMENT = "#"
# The line in which a spreadsheet writes its separator.
_DECLARED = re.compile(r"\"?sep=(.)\"?[,;]*", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
# Cells of a spreadsheet that begin as a comment does.
_ERRORS = frozenset(("#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"))
# Lines above the header are recognised where three later lines agree.
_LEAST_ROWS = 3
# What LabVIEW writes below each part of its header; the names of columns follow the last one.
_LABVIEW = "***End_of_Header***"
# The first cell of the title that Campbell's loggers write above the header. Below it, rows of units follow one.
_CAMPBELL, _CAMPBELL_WITH_UNITS = frozenset(("TOA5", "TOACI1")), "TOA5"
# The header is among the first 50 rows.
_LAST_HEADER = 50
# A column that loggers name and leave without cells.
_REMARK = re.compile(r"comments?|remarks?|notes?|bemerkung(en)?|kommentare?", re.IGNORECASE)
# Loggers write a row of units, and one of how each value was made, such as Avg.
_MOST_UNIT_ROWS = 2
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,' \u00a0\u202f]*(?:[eE][+-]?[0-9]+)?%?")
# Units have digits, too: m3/h.
_DATE_LIKE = re.compile(r"[0-9]{4}|[0-9]{1,2}[-./:][0-9]")
_EMPTY = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "#n/a"))


@dataclass(frozen=True, slots=True)
class Layout:
    """The number of lines above the header and of those of units below it, and which lines are comments.

    `width` is the number of cells where lines have separators beyond it, and None where they have none. `remark` says
    that the header's last column has no cells.
    """

    delimiter: str
    comments: Comments
    skipped: int = 0
    units: int = 0
    width: int | None = None
    remark: bool = False
    read_as: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        return not (self.skipped or self.units or self.comments.mark or self.width or self.remark)

    @classmethod
    def find(cls, sample: Sequence[str], options: CsvOptions, names: Collection[str] = ()) -> Layout:
        """The layout of a file by its first lines, without their ends; `names` are some that its header has."""
        below = [line for line in sample[options.skip_rows or 0 :] if line.strip()]
        declared = _DECLARED.fullmatch(below[0]) if below and options.skip_rows is None else None
        delimiter = options.delimiter or (declared[1] if declared else _find_delimiter(_without_marked(below, options)))
        comments = Comments.find(sample, delimiter, options)
        rows = [
            (number, _cells(line, delimiter))
            for number, line in enumerate(sample)
            if number >= (options.skip_rows or 0) and line.strip() and not comments.include(number + 1, line)
        ]
        first = int(declared is not None and len(rows) > 1)
        header = 0 if options.skip_rows is not None else first + _find_header([row for _, row in rows[first:]], names)
        skipped = rows[header][0] if rows and (header or options.skip_rows) else options.skip_rows or 0
        body = [row for _, row in rows[header:]]
        title = rows[header - 1][1][0] if header else ""
        units = _count_units(body, title) if options.units_row is None else int(options.units_row)
        width, remark = _find_width(body), _has_remark(body)
        read_as = [] if delimiter == "," else [_NAMES.get(delimiter, repr(delimiter))]
        read_as += [f"{counted(skipped, 'line')} above the header left out"] if skipped else []
        read_as += [f"lines that begin with {comments.mark} left out"] if comments.mark else []
        read_as += [f"a row of units left out ({shorten(', '.join(filter(None, row)))})" for row in body[1 : 1 + units]]
        read_as += ["a separator at the end of each row"] if width else []
        read_as += [f"left out {quote(body[0][-1].strip())}, which has no cells"] if remark else []
        return cls(delimiter, comments, skipped, units, width, remark, tuple(read_as))

    def cut(self, line: str, *, is_header: bool) -> str:
        """The line without separators beyond the last column."""
        if self.remark and is_header:
            line = line.rpartition(self.delimiter)[0]
        if self.width:
            beyond = count_separators(line, self.delimiter) + 1 - self.width
            empty = len(line) - len(line.rstrip(self.delimiter))
            line = line[: len(line) - max(min(beyond, empty), 0)]
        return line


@dataclass(frozen=True, slots=True)
class Comments:
    """Which lines are comments: all that begin with `mark`, or below the line `above` those that are no rows.

    `widths` are the numbers of separators that rows have; None where the job names the mark.
    """

    mark: str | None
    delimiter: str
    above: int = 0
    widths: frozenset[int] | None = None

    @classmethod
    def find(cls, sample: Sequence[str], delimiter: str, options: CsvOptions) -> Comments:
        """The comments of a file by its first lines."""
        if options.comment is not None:
            return cls(options.comment, delimiter)
        rows = [line for line in sample if line.strip() and not _is_comment(line, _COMMENT)]
        above = next((at for at, line in enumerate(sample) if line.strip() and not _is_comment(line, _COMMENT)), 0)
        marked = [at for at in range(above) if _is_comment(sample[at], _COMMENT)]
        # A header may begin with the mark. Then rows follow, which have numbers.
        if marked and _is_header(sample[marked[-1]], rows[0], delimiter):
            above = marked[-1]
        widths = frozenset(count_separators(line, delimiter) for line in [*rows, *sample[above : above + 1]])
        found = cls(_COMMENT, delimiter, above, widths)
        has_some = any(found.include(number, line) for number, line in enumerate(sample, start=1))
        return found if has_some else cls(None, delimiter)

    def include(self, number: int, line: str) -> bool:
        """Whether the line with this number, counted from 1, is a comment."""
        if self.mark is None or not _is_comment(line, self.mark):
            return False
        if self.widths is None or number <= self.above:
            return True
        separators = count_separators(line, self.delimiter)
        is_row = separators > 0 and separators in self.widths
        return not is_row and line.split(self.delimiter)[0].strip().strip('"').lower() not in _ERRORS


def _is_comment(line: str, mark: str) -> bool:
    return line.lstrip().startswith(mark)


def _without_marked(lines: Sequence[str], options: CsvOptions) -> Sequence[str]:
    """The lines that do not begin as comments do; all where none is left."""
    return [line for line in lines if not _is_comment(line, options.comment or _COMMENT)] or lines


def _is_header(line: str, row: str, delimiter: str) -> bool:
    """Whether a line with `#` names the cells of the row below it, some of which are numbers or dates."""
    like_data = any(_is_number(cell) or _DATE_LIKE.match(cell.strip()) for cell in _cells(row, delimiter))
    separators = count_separators(line, delimiter)
    return like_data and abs(separators - count_separators(row, delimiter)) <= int(separators > 0)


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def count_separators(line: str, delimiter: str) -> int:
    """The separators of a line outside of quotes."""
    return _QUOTED.sub("", line).count(delimiter)


def _find_delimiter(rows: Sequence[str]) -> str:
    """The separator that most rows have, each equally often; the comma where there is none."""

    def agreement(mark: str) -> int:
        counts = [count_separators(line, mark) for line in rows]
        common = max(set(counts), key=counts.count, default=0)
        return counts.count(common) if common else sum(count > 0 for count in counts) - len(rows)

    return max(DELIMITERS, key=agreement) if any(mark in line for line in rows for mark in DELIMITERS) else ","


def _find_header(rows: Sequence[Sequence[str]], names: Collection[str]) -> int:
    """The index of the header: it has the names; else the rows above it have other numbers of cells than later ones."""
    if ends := [at + 1 for at, row in enumerate(rows) if row[0].startswith(_LABVIEW)]:
        return min(ends[-1], len(rows) - 1)
    if len(rows) > 1 and rows[0][0] in _CAMPBELL:
        return 1
    wanted = {name.strip() for name in names}
    for at, row in enumerate(rows[:_LAST_HEADER]):
        if wanted and wanted <= {cell.strip() for cell in row}:
            return at
    widths = [(_filled(row), len(row)) for row in rows]
    for at, row in enumerate(rows[:_LAST_HEADER]):
        if len(row) > 1 and len(rows) - at > _LEAST_ROWS and _agree(widths[at:], len(row)):
            named = not any(map(_is_number, row))
            return at if named and len(row) not in map(len, rows[:at]) else 0
    return 0


def _agree(widths: Sequence[tuple[int, int]], count: int) -> bool:
    """Whether rows have this number of cells, and beyond them empty ones alone.

    `widths` are their numbers of cells up to the last one that is filled, and of all. A few rows may have one cell too
    many, a fault that reading names.
    """
    others = [most for filled, most in widths if not filled <= count <= most]
    return 2 * len(others) < len(widths) and all(one == count + 1 for one in others)


def _filled(row: Sequence[str]) -> int:
    """The number of cells up to the last one that is filled."""
    return next((at for at in range(len(row), 0, -1) if row[at - 1].strip()), 0)


def _count_units(body: Sequence[Sequence[str]], title: str) -> int:
    """The number of rows of units below the header, which the title above it may tell."""
    if title == _CAMPBELL_WITH_UNITS:  # unless a program took them out: rows of readings begin with a time or a number
        below = body[1 : 1 + _MOST_UNIT_ROWS]
        return len(list(takewhile(lambda row: not any(map(str.isdigit, row[0])), below)))
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
    width, widest = _filled(body[0]), max(map(len, body))
    if not width or widest == width or (widest == len(body[0]) == width + 1):
        return None
    return width if all(_filled(row) <= width <= len(row) for row in body[1:]) else None


def _has_remark(body: Sequence[Sequence[str]]) -> bool:
    """Whether the last name is one of remarks, which no row has a cell for."""
    if len(body) <= _LEAST_ROWS or not _REMARK.fullmatch(body[0][-1].strip()):
        return False
    return all(len(row) == len(body[0]) - 1 for row in body[1:])


def _has_units(body: Sequence[Sequence[str]]) -> bool:
    """Whether no cell of the first row is a number, where all filled cells of a column below it are."""
    if len(body) <= _LEAST_ROWS or len(body[0]) != len(body[1]):
        return False
    first, rest = [cell.strip() for cell in body[1]], body[2:]
    if all(map(_NUMBER.fullmatch, filter(None, first))) or any(map(_DATE_LIKE.search, first)):
        return False  # a row of readings, which is seen without its columns
    columns = [[row[at].strip() for row in rest if at < len(row)] for at in range(len(first))]
    numeric = [
        any(cell.lower() not in _EMPTY for cell in column)
        and all(cell.lower() in _EMPTY or _NUMBER.fullmatch(cell) for cell in column)
        for column in columns
    ]
    named = [cell for cell, is_number in zip(first, numeric, strict=True) if is_number]
    unlike = [cell for cell in named if cell.lower() not in _EMPTY and not _NUMBER.fullmatch(cell)]
    filled = zip(first, numeric, columns, strict=True)
    if any(cell and cell in column for cell, is_number, column in filled if not is_number):
        return False  # a text of rows, such as the name of a machine
    return bool(unlike) and not any(map(_NUMBER.fullmatch, named))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)
