"""What all tests of the load generator share."""

from __future__ import annotations

from unittest.mock import Mock

import pytest


@pytest.fixture(autouse=True)
def no_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load generator collects garbage before it sends and unfreezes after: among all tests, that takes a second,
    and makes later collections take as long.
    """
    monkeypatch.setattr("service.bench.load.gc", Mock())
