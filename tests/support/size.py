"""The size of a check: small in the suite, full in the campaign."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class Size:
    """Chooses between the numbers of the suite and those of the campaign (`--full`)."""

    def __init__(self, *, full: bool) -> None:
        self.full = full

    def of(self, small: T, full: T) -> T:
        """One of two numbers."""
        return full if self.full else small
