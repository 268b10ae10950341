"""Timestamps as people write them: day or month first, a local time of day, a spreadsheet's serial dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

from models.counted import counted
from models.sensors.timestamps import from_iso, parser_of, require_in_calendar, to_seconds
from models.training.csv_options import CsvOptions
from models.training.errors import TrainingDataError, quote

EXCEL = "excel"
_EXCEL_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001  (a local time)
# Serial dates of the years 1982 to 2064, written with a time of day.
_SERIAL = re.compile(r"[3-5][0-9]{4}[.,][0-9]+|[3-5][0-9]{4}")
_LEAST_SERIAL = 3
# Days need four digits for a minute. Seconds since a start, such as 30000.5, rarely have as many.
_FINE_SERIAL = re.compile(r"[0-9]{5}[.,][0-9]{4,}")
_PARTS = re.compile(
    r"(?P<a>[0-9]{1,4})(?P<mark>[ ./-])(?P<b>[0-9]{1,2}|[A-Za-z]{3})(?P=mark)(?P<c>[0-9]{4}|[0-9]{2})"
    r"(?:[ T,]+(?P<hour>[0-9]{1,2})[:.](?P<minute>[0-9]{2})"
    r"(?:[:.](?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?)?"
)
_MONTHS, _NOON, _END_OF_DAY = 12, 12, 24
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Two-digit years from here on are of the last century.
_PIVOT = 70


# Of a cell: a local time, one that names its zone, or seconds since 1970.
Parser = Callable[[str], datetime | float]


@dataclass(frozen=True, slots=True)
class DateColumn:
    """A column's timestamps in seconds since 1970, one a row, and how they were read."""

    seconds: list[float]
    read_as: list[str]


class DateError(ValueError):
    """A cell that is no timestamp; `row` is its index."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def read_dates(texts: Sequence[str], options: CsvOptions, param: str) -> DateColumn:
    """Read a column. Raises DateError for a cell that is no timestamp.

    Raises TrainingDataError where it could be day or month that comes first and `options` does not decide.
    """
    zone: tzinfo = UTC if options.timezone is None else ZoneInfo(options.timezone)
    read_as = [] if options.timezone is None else [options.timezone]
    parse, how = _choose(texts, options, param)
    moments = []
    for row, text in enumerate(texts):
        try:
            moments.append(parse(text.strip()))
        except (ValueError, OverflowError):
            raise DateError(row) from None
    seconds, changed = _localise(moments, zone)
    return DateColumn(seconds, [*how, *read_as, *changed])


def _choose(texts: Sequence[str], options: CsvOptions, param: str) -> tuple[Parser, list[str]]:
    """The parser of a column, and what to tell of it."""
    if options.date_format is not None and options.date_format != EXCEL:
        form = options.date_format
        return (lambda text: datetime.strptime(text, form)), [f"dates as {form}"]  # noqa: DTZ007  (a local time)
    filled = [text.strip() for text in texts if text.strip()]
    serial = len(filled) >= _LEAST_SERIAL and all(map(_SERIAL.fullmatch, filled))
    if options.date_format == EXCEL or (serial and any(map(_FINE_SERIAL.fullmatch, filled))):
        return _from_serial, ["a spreadsheet's serial dates"]
    if serial:
        return parser_of(texts), ["numbers as seconds (for days of a spreadsheet, set `date_format` to excel)"]
    found = [_PARTS.fullmatch(text) for text in filled[:1]]
    if not found or found[0] is None or len(found[0]["a"]) > 2:
        parse = parser_of(texts)
        if options.timezone is None:
            return parse, []
        return (_read_iso if parse is to_seconds else _local(parse)), []
    day_first = _is_day_first(filled, options, param)
    return (lambda text: _from_parts(text, day_first=day_first)), ["day first" if day_first else "month first"]


def _is_day_first(filled: Sequence[str], options: CsvOptions, param: str) -> bool:
    if options.dayfirst is not None:
        return options.dayfirst
    parts = [match for text in filled if (match := _PARTS.fullmatch(text)) is not None]
    first, last = (sum(a[part] != b[part] for a, b in pairwise(parts)) for part in "ac")
    if last > first and all(len(match["c"]) == 2 for match in parts):
        message = f"{param}: {quote(filled[0])} could begin with the year; set `date_format` or `dayfirst` in `csv`"
        raise TrainingDataError("ambiguous_dates", message, param)
    if any(match["b"].isalpha() for match in parts):
        return True
    if any(int(match["a"]) > _MONTHS for match in parts) or all(match["mark"] == "." for match in parts):
        return True
    if any(int(match["b"]) > _MONTHS for match in parts):
        return False
    # In the order of time only one of the two goes forward, unless all rows are of one day.
    forward = [_goes_forward(filled, day_first=day_first) for day_first in (True, False)]
    if forward[0] != forward[1]:
        return forward[0]
    message = f"{param}: {quote(filled[0])} could begin with the day or the month; set `dayfirst` in `csv`"
    raise TrainingDataError("ambiguous_dates", message, param)


def _goes_forward(filled: Sequence[str], *, day_first: bool) -> bool:
    try:
        moments = [_from_parts(text, day_first=day_first) for text in filled]
    except ValueError:
        return False
    return all(earlier <= later for earlier, later in pairwise(moments))


def _from_parts(text: str, *, day_first: bool) -> datetime:
    match = _PARTS.fullmatch(text)
    if match is None:
        raise ValueError(f"no date: {text[:60]}")
    by_name = match["b"].isalpha()
    day, month = (match["a"], _month(match["b"])) if day_first or by_name else (match["b"], match["a"])
    year = int(match["c"])
    if len(match["c"]) == 2:
        year += 1900 if year >= _PIVOT else 2000
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= _NOON:
            raise ValueError(f"no hour of a half day: {text[:60]}")
        hour = hour % _NOON + (_NOON if match["half"] in "pP" else 0)
    micros = int((match["fraction"] or "0").ljust(6, "0")[:6])
    minute, second = int(match["minute"] or 0), int(match["second"] or 0)
    at_end = hour == _END_OF_DAY and not (minute or second or micros)
    moment = datetime(year, int(month), int(day), 0 if at_end else hour, minute, second, micros)  # noqa: DTZ001  (local)
    return moment + timedelta(days=int(at_end))


def _month(text: str) -> int:
    """The number of a month, which may be written as Nov."""
    return _MONTH_NAMES.index(text.lower()) + 1 if text.isalpha() else int(text)


def _from_serial(text: str) -> datetime:
    # A serial date has some 5 digits of a day's fraction in a millisecond: more is rounding.
    return _EXCEL_EPOCH + timedelta(milliseconds=round(float(text.replace(",", ".")) * 86_400_000))


def _local(parse: Callable[[str], float]) -> Parser:
    """A parser of times in UTC as one of the same times in another zone."""
    return lambda text: datetime.fromtimestamp(parse(text), UTC).replace(tzinfo=None)


def _read_iso(text: str) -> datetime | float:
    """ISO 8601, which may name its zone; numbers since 1970."""
    try:
        return from_iso(text.replace("/", "-"))
    except ValueError:
        return to_seconds(text)


def _localise(moments: Sequence[datetime | float], zone: tzinfo) -> tuple[list[float], list[str]]:
    """Times as seconds since 1970, and what to tell of the hours that a change of the clock lost or doubled.

    Of an hour that comes twice, a time is the second one where the first would not be after the row before.
    """
    seconds, lost, doubled = list[float](), 0, 0
    for moment in moments:
        if isinstance(moment, float) or moment.tzinfo is not None:
            seconds.append(moment if isinstance(moment, float) else moment.timestamp())
            continue
        early, late = (moment.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
        lost, doubled = lost + (early > late), doubled + (early < late)
        second = early < late and seconds and early <= seconds[-1] < late
        try:
            seconds.append(require_in_calendar(late if second else early))
        except ValueError:
            raise DateError(len(seconds)) from None
    twice = f"{counted(doubled, 'time')} of an hour that comes twice, taken in the order of the rows"
    left_out = f"{counted(lost, 'time')} of an hour that the clock left out, taken as an hour later"
    return seconds, [*([twice] if doubled else []), *([left_out] if lost else [])]
