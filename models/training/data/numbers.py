"""Numbers as people write them: decimal commas, marks between thousands, cells without a reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from models.training.csv_options import CsvOptions
from models.training.errors import TrainingDataError, quote

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "#n/a", "#na", "#null!", "#div/0!", "#value!")
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
_MARKED = r"[0-9][,' \x{a0}\x{202f}][0-9]|\..*\."
_THOUSANDS_SPACE = rf"^[+-]?[0-9]{{1,3}}(?:{_SPACES}[0-9]{{3}})+(?:[.,][0-9]+)?$"
_THOUSANDS_QUOTE = r"^[+-]?[0-9]{1,3}(?:'[0-9]{3})+(?:[.,][0-9]+)?$"


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The marks in numbers; `thousands` is empty where there are none."""

    decimal: str = "."
    thousands: str = ""
    na_values: tuple[str, ...] = ()

    @property
    def read_as(self) -> list[str]:
        """What a report tells of it."""
        told = ["decimal comma"] if self.decimal == "," else []
        names = {",": "a comma", ".": "a point", " ": "a space", "'": "an apostrophe"}
        return told + ([f"{names[self.thousands]} between thousands"] if self.thousands else [])

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
    columns = [column for column in columns if pc.any(pc.match_substring_regex(column, _MARKED)).as_py()]
    if options.decimal is not None or options.thousands is not None:
        decimal = options.decimal or ("," if options.thousands == "." else ".")
        return NumberFormat(decimal, options.thousands or "", na_values)
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
