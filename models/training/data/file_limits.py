"""The limits of a training file, with errors that name the line or row at fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.training.errors import TrainingDataError, data_error

MAX_ROWS = 1_000_000
MAX_LINE_BYTES = 1 << 20
# Of a file read as columns, which are in memory at once; of Parquet uncompressed, as the file itself states.
MAX_TABLE_BYTES = 2 << 30
# Of a Parquet file read as records. The file states it: a first defence only, the texts read are counted too.
MAX_PARQUET_BYTES = 4 << 30
# Of a table of readings, each 8 bytes: a cell can be a bit of the file, or nothing at all.
_MAX_CELLS = MAX_TABLE_BYTES // 8
_MAX_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What one file may hold; `param` is the parameter that errors name, and `unit` what a row of it is called.

    `original` gives the lines of the file that the one that is read is a copy of.
    """

    param: str
    unit: str
    max_rows: int
    original: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None

    def original_lines(self, lines: NDArray[np.int64]) -> NDArray[np.int64]:
        """The lines [n] as the user's own file has them."""
        return lines if self.original is None else self.original(lines)

    def error(
        self, code: str, expected: str, got: str, *, line: int | None = None, column: str | None = None
    ) -> TrainingDataError:
        """An error of the file; `line` is one of the copy that is read."""
        line = None if line is None else int(self.original_lines(np.array([line]))[0])
        return data_error(self.param, code, expected, got, line=line, column=column, unit=self.unit)

    def require_bytes(self, size: int, most: int, what: str = "") -> None:
        """Raise TrainingDataError for more than `most` bytes."""
        if size > most:
            raise self.error("file_too_large", f"at most {most:,} bytes{what}", f"{size:,}")

    def require_rows(self, count: int) -> None:
        """Raise TrainingDataError for too many rows."""
        if count > self.max_rows:
            raise self.error("too_many_rows", f"at most {self.max_rows:,} rows", f"{count:,}")

    def require_cells(self, rows: int, columns: int) -> None:
        """Raise TrainingDataError for too many cells."""
        if rows * columns > _MAX_CELLS:
            raise self.error("file_too_large", f"at most {_MAX_CELLS:,} cells", f"{rows:,} rows of {columns:,}")

    def require_header(self, line: str) -> str:
        """The header of CSV with its line end. Raises TrainingDataError where it is empty, or nothing at all."""
        if not line.strip():
            got = "no rows below an empty first line" if line else "an empty file"
            raise self.error("no_rows", "a header and rows", got)
        return line

    def require_names(self, names: list[str]) -> list[str]:
        """The names of a CSV header. Raises TrainingDataError for too many, or one that is there twice."""
        self.require_width(len(names))
        names = name_unnamed(names)
        self.require_unique(names, line=1)
        return names

    def require_width(self, columns: int) -> None:
        """Raise TrainingDataError for too many columns."""
        if columns > _MAX_COLUMNS:
            raise self.error("wrong_columns", f"at most {_MAX_COLUMNS:,} columns", f"{columns:,}")

    def require_unique(self, names: list[str], line: int | None = None) -> None:
        """Raise TrainingDataError for a column that is there twice."""
        seen = set[str]()
        for name in names:
            if name in seen:
                raise self.error("duplicate_key", "each column once", "it twice", line=line, column=name)
            seen.add(name)


def name_unnamed(names: list[str]) -> list[str]:
    """The names, with those of pandas for empty ones, where several are empty: spreadsheets have such columns."""
    if names.count("") < 2:
        return names
    return [name or f"Unnamed: {at}" for at, name in enumerate(names)]
