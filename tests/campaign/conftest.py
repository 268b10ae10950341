"""What the campaign's checks share: their size, and the figure that they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
Figure = Callable[[str], None]


class Size:
    """The size of a check: small in the suite, full in the campaign (`--full`)."""

    def __init__(self, *, full: bool) -> None:
        self.full = full

    def of(self, small: T, full: T) -> T:
        """One of two numbers."""
        return full if self.full else small


@pytest.fixture
def size(pytestconfig: pytest.Config) -> Size:
    return Size(full=pytestconfig.getoption("--full"))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """A function that keeps a check's figure for the table of `docs/reliability.md`."""
    return lambda text: record_property("figure", text)
