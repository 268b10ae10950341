"""A file without a header is refused where its first row would be lost, and one whose names are numbers is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.training.checks.data import check_data
from models.training.data.table import ColumnRoles, find_faults, read_table
from models.training.errors import TrainingDataError
from tests.support.check_rows import healthy, parts, troubles

ROWS = [[f"{row}.5", str(row * 7 % 11)] for row in range(12)]


def table_of(path: Path, header: str, rows: list[list[str]], separator: str = ",") -> Path:
    lines = [*([header] if header else []), *(separator.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "separator"),
    [
        (ROWS, ","),
        ([[f"2026-11-01T00:{at:02}:00", *row] for at, row in enumerate(ROWS)], ","),
        ([[f"01.11.2026 00:{at:02}", row[0].replace(".", ","), row[1]] for at, row in enumerate(ROWS)], ";"),
        ([["pump-1", *row] for row in ROWS], ","),
        ([["-1e3", ".5"], ["-2e3", ".7"], ["-2e3", ".9"]], "\t"),
        ([["1", "2"], ["3", "5"], ["4", "9"]], ","),
    ],
    ids=["numbers", "times", "decimal commas", "a text that returns", "exponents", "two integers"],
)
def test_a_first_row_in_place_of_names_is_refused(tmp_path: Path, rows: list[list[str]], separator: str) -> None:
    path = table_of(tmp_path / "rows.csv", "", rows, separator)
    with pytest.raises(TrainingDataError, match=r"line 1: expected the columns' names, got a row \(") as caught:
        read_table(path, ColumnRoles())
    assert caught.value.code == "no_header"
    assert "no_header" in [fault.code for fault in find_faults(path, ColumnRoles())]


@pytest.mark.parametrize("header", ["0,1", "a,1.5", "flow,2026-11-01", ",pressure", "4,5.5"])
def test_names_that_have_numbers_are_names(tmp_path: Path, header: str) -> None:
    named = ("4", "5.5") if header == "4,5.5" else None  # the job names these columns itself
    roles = ColumnRoles() if named is None else ColumnRoles(columns=named)
    table = read_table(table_of(tmp_path / "rows.csv", header, ROWS), roles)
    assert len(table) == len(ROWS)


def test_hours_and_years_are_names(tmp_path: Path) -> None:
    rows = [[f"{row * column % 7}.5" for column in range(1, 25)] for row in range(12)]
    names = ",".join(str(hour) for hour in range(1, 25))
    assert len(read_table(table_of(tmp_path / "rows.csv", names, rows), ColumnRoles())) == 12


def test_a_column_called_like_its_cells_is_told() -> None:
    train, held_out = parts(healthy())
    found = troubles(check_data(train, held_out, columns={"text": "Where is it?", "label": "pin"}))["header"]
    assert "The column for label is called 'pin'" in found.message
    assert found.rows[0] == 1
    assert "header" not in troubles(check_data(train, held_out, columns={"text": "said", "label": "meant"}))
