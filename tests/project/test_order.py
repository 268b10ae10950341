"""Which files of tests are imported, and in which order they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_collection_modifyitems, pytest_ignore_collect


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


FAST = "not slow and not real"


@pytest.mark.parametrize(
    ("marks", "expression", "ignored"),
    [
        ("pytest.mark.slow", FAST, True),
        ("[pytest.mark.usefixtures('slow'), pytest.mark.real]", FAST, True),
        ("pytest.mark.usefixtures('slow')", FAST, None),
        ("pytest.mark.slower", FAST, None),
        ("pytest.mark.slow", "not long", None),
        ("pytest.mark.slow", "long", None),
        ("pytest.mark.slow", "not slow or long", None),
        ("pytest.mark.slow", "not (slow or long)", None),
        ("pytest.mark.slow", "", None),
    ],
)
def test_files_of_which_no_test_is_wanted_are_not_imported(
    tmp_path: Path, marks: str, expression: str, ignored: bool | None
) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(f"import pytest\n\npytestmark = {marks}\n")
    config: Any = SimpleNamespace(getoption={"markexpr": expression}.get)
    assert pytest_ignore_collect(path, config) is ignored
