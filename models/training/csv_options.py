"""How a CSV file is written, where it does not show by itself."""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Python's codecs of other things than files of text.
_NO_FILES = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7")
_Mark = Annotated[str, Field(min_length=1, max_length=1)]
_Text = Annotated[str, Field(min_length=1, max_length=64)]


class CsvOptions(BaseModel):
    """What is left out is found in the file; where that is not safe, the job is refused and says what to set.

    `decimal` and `thousands` are the marks of numbers. `date_format` is a format of Python's strptime, or "excel" for
    days since 1899-12-30. `timezone` is the zone of timestamps that name none, such as Europe/Berlin; UTC without it.
    `na_values` are cells that mean no reading, beside the usual ones; an empty list says that all numbers are readings.
    `skip_rows` is the number of lines above the header, and `units_row` says whether a line of units follows it. Lines
    that begin with `comment` are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: _Mark | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal[",", ".", " ", "'"] | None = None
    encoding: _Text | None = None
    date_format: _Text | None = None
    dayfirst: bool | None = None
    timezone: _Text | None = None
    na_values: tuple[_Text, ...] | None = Field(None, max_length=100)
    skip_rows: Annotated[int, Field(ge=0, le=1000)] | None = None
    units_row: bool | None = None
    comment: _Mark | None = None

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            known = codecs.lookup(name).name
            if known not in _NO_FILES:
                "".encode(name)  # codecs that are none of texts refuse it
                return known
        except LookupError:
            pass
        raise ValueError(f"csv.encoding: expected the name of an encoding such as cp1252, got {name!r}")

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, mark: str | None) -> str | None:
        if mark is not None and (not mark.isascii() or mark.isalnum() or mark in '"\r\n\0'):
            raise ValueError(f"csv.delimiter: expected an ASCII mark such as ; or a tab, got {mark!r}")
        return mark

    @field_validator("date_format")
    @classmethod
    def _check_date_format(cls, form: str | None) -> str | None:
        try:
            if form not in (None, "excel"):
                datetime.strptime("", form)  # noqa: DTZ007
        except re.error:
            raise ValueError(f"csv.date_format: expected each directive once, got {form!r}") from None
        except ValueError:
            pass  # the text is no date
        return form

    @model_validator(mode="after")
    def _require_two_marks(self) -> CsvOptions:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(f"csv: expected different marks in decimal and thousands, got {self.decimal!r} in both")
        return self

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (OSError, ValueError):
                raise ValueError(f"csv.timezone: expected a zone such as Europe/Berlin, got {name!r}") from None
        return name
