"""The order of the files of tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import pytest_collection_modifyitems


@dataclass(frozen=True)
class Item:
    """What the order depends on."""

    name: str
    path: Path
    markers: tuple[str, ...] = ()

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.markers else None


def test_files_that_start_processes_come_first_and_fast_ones_last() -> None:
    fast, slow, real = Path("a.py"), Path("b.py"), Path("c.py")
    items: list[Any] = [
        Item("1", fast),
        Item("2", slow, ("slow",)),
        Item("3", slow),
        Item("4", real),
        Item("5", real, ("real",)),
    ]
    pytest_collection_modifyitems(items)
    assert [item.name for item in items] == ["4", "5", "2", "3", "1"]
