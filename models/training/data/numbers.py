"""Numbers as people write them: decimal commas, marks between thousands, cells without a reading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from models.training.csv_options import CsvOptions
from models.training.errors import TrainingDataError, quote

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "#n/a", "#na", "#null!", "#div/0!", "#value!")
_MARK_NAMES = {",": "a comma", ".": "a point", " ": "a space", "'": "an apostrophe"}
_SPACES = "[ \u00a0\u202f]"
_EXPONENT = "(?:[eE][+-]?[0-9]+)?"
# What only a decimal comma explains: not three digits after it, or more than three (or a lone 0) before it.
_DECIMAL_COMMA = (
    rf"^[+-]?(?:[0-9]*,(?:[0-9]{{1,2}}|[0-9]{{4,}})|[0-9]{{4,}},[0-9]+|0,[0-9]+|[0-9]+,[0-9]+[eE][+-]?[0-9]+"
    rf"|[0-9]{{1,3}}(?:(?:\.|'|{_SPACES})[0-9]{{3}})+,[0-9]+){_EXPONENT}$"
)
_THOUSANDS_COMMA = rf"^[+-]?[0-9]{{1,3}}(?:,[0-9]{{3}})+(?:\.[0-9]+{_EXPONENT}|,[0-9]{{3}})$"
_EITHER = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
# With a decimal comma, points between three digits are of thousands; without one, only where there are two of them.
_POINTS = r"^[+-]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?$"
_TWO_POINTS = r"^[+-]?[0-9]{1,3}(?:\.[0-9]{3}){2,}$"
_MARKS = (",", "'", " ", "\u00a0", "\u202f")
_NUMBER = r"^[+-]?[0-9][0-9.,' \x{a0}\x{202f}]*$"
_MARKED = r"[0-9][,' \x{a0}\x{202f}][0-9]|\..*\."
_THOUSANDS_SPACE = rf"^[+-]?[0-9]{{1,3}}(?:{_SPACES}[0-9]{{3}})+(?:[.,][0-9]+)?$"
_THOUSANDS_QUOTE = r"^[+-]?[0-9]{1,3}(?:'[0-9]{3})+(?:[.,][0-9]+)?$"
_POINT_OF_EITHER = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The marks in numbers; `thousands` is empty where there are none."""

    decimal: str = "."
    thousands: str = ""
    na_values: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether a cast reads the numbers as they are."""
        return self.decimal == "." and not self.thousands

    @property
    def read_as(self) -> list[str]:
        """What a report tells of it."""
        read_as = ["decimal comma"] if self.decimal == "," else []
        return read_as + ([f"{_MARK_NAMES[self.thousands]} between thousands"] if self.thousands else [])

    @property
    def missing_numbers(self) -> list[float]:
        """The numbers among `na_values`; cells may write them in other ways, such as -9999.0 for -9999."""
        texts = (text.strip() for text in self.na_values)
        found = [_float_or_none(form) for text in texts for form in (text, self._unmarked(text))]
        return [number for number in found if number is not None]

    def _unmarked(self, text: str) -> str:
        bare = text.replace(self.thousands, "") if self.thousands else text
        return bare.replace(",", ".") if self.decimal == "," else bare

    def to_plain(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Texts as a cast to numbers reads them; null where there is no reading."""
        column = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(pc.utf8_lower(column), pa.array(MISSING, column.type))
        if self.na_values:
            missing = pc.or_kleene(missing, pc.is_in(column, pa.array(self.na_values, column.type)))
        column = pc.if_else(missing, pa.scalar(None, column.type), column)
        if self.thousands == " ":
            column = pc.replace_substring_regex(column, _SPACES, "")
        elif self.thousands:
            column = pc.replace_substring(column, self.thousands, "")
        return pc.replace_substring(column, ",", ".") if self.decimal == "," else column


def find_number_format(columns: Sequence[pa.ChunkedArray], options: CsvOptions, param: str) -> NumberFormat:
    """The format of the texts of some columns; where no cell has a mark that could be read in two ways, the plain one.

    Raises TrainingDataError where they could be read in two ways and `options` does not decide.
    """
    na_values = options.na_values or ()
    if options.decimal is not None or options.thousands is not None:
        decimal = options.decimal or ("," if options.thousands == "." else ".")
        chosen = NumberFormat(decimal, options.thousands or "", na_values)
    else:
        chosen = _find_marks(columns, na_values, param)
        if chosen.is_plain:
            return chosen
    _require_fitting(columns, chosen, param)
    return chosen


def _find_marks(columns: Sequence[pa.ChunkedArray], na_values: tuple[str, ...], param: str) -> NumberFormat:
    columns = [column for column in columns if cast_plain(column) is None and _has_marks(column)]
    decimal_comma, thousands_comma = _first(columns, _DECIMAL_COMMA), _first(columns, _THOUSANDS_COMMA)
    if decimal_comma and thousands_comma:
        raise _ambiguous(param, f"a decimal comma in {quote(decimal_comma)}, one between thousands in", thousands_comma)
    either = _first(columns, _EITHER)
    if either and not decimal_comma and not thousands_comma:
        raise _ambiguous(param, "a comma that could be decimal or between thousands in", either)
    decimal = "," if decimal_comma else "."
    found = {
        ",": thousands_comma,
        ".": _first(columns, _POINTS if decimal_comma else _TWO_POINTS),
        " ": _first(columns, _THOUSANDS_SPACE),
        "'": _first(columns, _THOUSANDS_QUOTE),
    }
    return NumberFormat(decimal, next((mark for mark, cell in found.items() if cell), ""), na_values)


def cast_plain(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Texts as float64, where each is a number with no mark but a decimal point; else None."""
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowException:
        return None


def _has_marks(column: pa.ChunkedArray) -> bool:
    if not any(pc.any(pc.match_substring(column, mark)).as_py() for mark in (*_MARKS, ".")):
        return False
    return bool(pc.any(pc.match_substring_regex(column, _MARKED)).as_py())


def _require_fitting(columns: Sequence[pa.ChunkedArray], chosen: NumberFormat, param: str) -> None:
    """Refuse cells that the marks would make other numbers: with points between thousands, 1.5 would be 15."""
    if chosen.thousands:
        mark = _SPACES if chosen.thousands == " " else re.escape(chosen.thousands)
        groups = rf"^[+-]?[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+(?:[{chosen.decimal}][0-9]*)?{_EXPONENT}$"
        for column in map(pc.utf8_trim_whitespace, columns):
            marked = pc.and_(pc.match_substring_regex(column, mark), pc.match_substring_regex(column, _NUMBER))
            if (at := pc.index(pc.and_not(marked, pc.match_substring_regex(column, groups)), True).as_py()) >= 0:
                what = f"{_MARK_NAMES[chosen.thousands]} that is not between thousands in"
                raise _ambiguous(param, what, column[at].as_py())
    elif chosen.decimal == ",":
        for column in map(pc.utf8_trim_whitespace, columns):
            pointed = column.filter(pc.match_substring(column, "."))
            if len(pointed) and pc.all(pc.match_substring_regex(pointed, _POINT_OF_EITHER)).as_py():
                what = "beside decimal commas, a point that could be decimal or between thousands in"
                raise _ambiguous(param, what, pointed[0].as_py())


def _float_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _first(columns: Sequence[pa.ChunkedArray], pattern: str) -> str | None:
    """The first cell that a pattern matches."""
    for column in columns:
        at = pc.index(pc.match_substring_regex(pc.utf8_trim_whitespace(column), pattern), pa.scalar(True)).as_py()
        if at >= 0:
            cell: str = column[at].as_py()
            return cell
    return None


def _ambiguous(param: str, what: str, cell: str) -> TrainingDataError:
    message = f"{param}: {what} {quote(cell)}; set `decimal` and `thousands` in `csv`"
    return TrainingDataError("ambiguous_numbers", message, param)
