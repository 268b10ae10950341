"""Timestamps in two columns: a day, and the time of day beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest

from models.training.data.table import ColumnRoles, find_faults, read_table
from models.training.errors import TrainingDataError

START = datetime(2026, 3, 1, 0, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "Datum;Uhrzeit;Druck\n01.03.2026;00:30:00;4,06\n01.03.2026;00:31:00;4,1\n",
        "Datum;Druck;Uhrzeit\n2026-03-01;4,06;0:30\n2026-03-01;4,1;0:31\n",
        "Datum;Uhrzeit;Druck\n1.3.26 00:00;12:30 AM;4,06\n1.3.26 00:00;12:31 AM;4,1\n",
    ],
)
def test_a_time_of_day_belongs_to_the_day_beside_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    for columns in ((), ("Druck",)):
        found = read_table(path, ColumnRoles(columns, timestamp="Datum"))
        assert found.columns == ("Druck",)
        assert found.times is not None
        assert found.times.tolist() == [START, START + 60]
        assert "the time of day from 'Uhrzeit'" in found.read_as


def test_a_workbook_has_days_as_midnights(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("readings", 0)
    sheet.append(["Datum", "Uhrzeit", "Druck"])
    for minute in (30, 31):
        moment = datetime(2026, 3, 1, 0, minute)  # noqa: DTZ001  (as Excel has it)
        sheet.append([moment.replace(minute=0), moment.time(), 4.1])
    book.save(tmp_path / "file.xlsx")
    found = read_table(tmp_path / "file.xlsx", ColumnRoles(timestamp="Datum"))
    assert found.times is not None
    assert found.times.tolist() == [START, START + 60]


@pytest.mark.parametrize("text", ["d;t;u;a\n1.3.26;0:30;0:31;4\n2.3.26;0:30;0:31;4\n", "d;t;a\n1.3.26 0:30;0:31;4\n"])
def test_a_time_of_day_that_fits_nowhere_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(TrainingDataError, match="column 't': expected a number"):
        read_table(path, ColumnRoles(timestamp="d"))


def test_a_column_that_is_missing_is_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("Datum;Uhrzeit;Druck\n01.03.2026;00:30:00;4,06\n01.03.2026;00:31:00;4,1\n")
    assert [fault.code for fault in find_faults(path, ColumnRoles(timestamp="Zeit"))] == ["missing_column"]


def test_a_word_among_numbers_may_stand_for_no_reading(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n1\n---\n2\n")
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles())
    assert caught.value.message.endswith('no reading, add it to `na_values` in `csv`: ["---"])')
