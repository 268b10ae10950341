"""How a CSV file is written, where it does not show by itself."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator

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
    def _known_encoding(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            "".encode(name)  # codecs that are none of texts refuse it
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f"csv.encoding: expected the name of an encoding such as cp1252, got {name!r}") from None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (OSError, ValueError):
                raise ValueError(f"csv.timezone: expected a zone such as Europe/Berlin, got {name!r}") from None
        return name
