"""Errors of training: one branch of the product's exception tree, with stable codes.

SondeError
└── TrainingError             a job cannot be trained as asked
    ├── TrainingDataError     the file's rows cannot be used
    ├── CheckFailed           a check of the data, the model or the training failed
    └── HyperparameterError   a hyperparameter is unknown, meaningless or out of range
"""

from __future__ import annotations

from collections.abc import Sequence

from models.errors import SondeError

_QUOTED = 60
_MAX_NAMED = 20


class TrainingError(SondeError):
    """A job cannot be trained; `code`, `message` and `param` become the job's `error`."""

    code = "training_error"

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


class TrainingDataError(TrainingError):
    """The file's rows cannot be used.

    `line` (1-based; of a Parquet file the row) and `column` are None where the fault is not in one place.
    """

    def __init__(
        self, code: str, message: str, param: str | None = None, *, line: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(code, message, param)
        self.line = line
        self.column = column

    def add(self, others: Sequence[str]) -> None:
        """Name other faults of the same file in the message, the first few in full."""
        if others:
            more = f"; and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
            self.message = "; ".join([self.message, *others[:_MAX_NAMED]]) + more


class CheckFailed(TrainingError):
    """A check failed; to go on training would waste hours."""


class HyperparameterError(TrainingError):
    """A hyperparameter is unknown, meaningless or out of range."""


def data_error(
    param: str,
    code: str,
    expected: str,
    got: str,
    *,
    line: int | None = None,
    column: str | None = None,
    unit: str = "line",
) -> TrainingDataError:
    """An error at a line (or row) and column, else `param`: what was expected, what came."""
    places = [f"{unit} {line}"] if line is not None else []
    places += [f"column {quote(column)}"] if column is not None else []
    where = ", ".join(places) or param
    return TrainingDataError(code, f"{where}: expected {expected}, got {got}", param, line=line, column=column)


def shorten(text: str, limit: int = _QUOTED) -> str:
    """At most `limit` characters of a text from a file."""
    return text if len(text) <= limit else text[:limit] + "…"


def quote(text: str) -> str:
    """A text from a file in quotes, shortened for messages."""
    return repr(shorten(text))
