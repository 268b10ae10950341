"""Errors of training, a branch of the one tree: each says what is wrong, under a stable code, and which parameter is
at fault.

SondeError
└── TrainingError             a job cannot be trained as asked
    ├── TrainingDataError     the file's rows cannot be used
    ├── LadderError           a rung of the debug ladder failed
    └── HyperparameterError   a hyperparameter is unknown, meaningless or out of range
"""

from __future__ import annotations

from models.errors import SondeError


class TrainingError(SondeError):
    """A job cannot be trained as asked; `code`, `message` and `param` become the job's `error`."""

    code = "training_error"

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


class TrainingDataError(TrainingError):
    """The file's rows cannot be used; `line` (1-based line, or row of a Parquet file) and `column` are None where
    there is no one place.
    """

    def __init__(
        self, code: str, message: str, param: str | None = None, *, line: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(code, message, param)
        self.line = line
        self.column = column


class CheckFailed(TrainingError):
    """A rung of the debug ladder failed; training on would be a waste of hours."""


class HyperparameterError(TrainingError):
    """A hyperparameter is unknown, meaningless or out of range."""
