"""What the campaign's checks share: the figure that they report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """A function that keeps a check's figure for the table of `docs/reliability.md`."""
    return lambda text: record_property("figure", text)
