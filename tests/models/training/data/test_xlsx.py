"""Workbooks whose XML says other than what a spreadsheet program writes."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from pathlib import Path

import openpyxl
import pytest

from models.training.data.file_limits import MAX_ROWS, FileLimits
from models.training.data.xlsx import read_sheet
from models.training.errors import TrainingDataError

ROWS: list[list[object]] = [["a", "b"], [1, 2], [3, 4]]
SHEET = "xl/worksheets/sheet1.xml"
LIMITS = FileLimits("training_file", "row", MAX_ROWS, None)
FAR = '<row r="9999999999"><c r="A9999999999"><v>1</v></c></row>'


def workbook(directory: Path, *edits: tuple[str, str], rows: list[list[object]] = ROWS) -> Path:
    """A workbook whose sheet's XML has some parts replaced."""
    book, path = openpyxl.Workbook(), directory / "file.xlsx"
    for row in rows:
        book.worksheets[0].append(row)
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for old, new in edits:
        assert old.encode() in parts[SHEET], parts[SHEET]
        parts[SHEET] = parts[SHEET].replace(old.encode(), new.encode(), 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def cells(path: Path) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = read_sheet(path, LIMITS)[0].to_pylist()
    return found


@pytest.mark.parametrize("stated", ["A1", "A1:B2", "A1:XFD1048576", "A1:B99999999999999", "C7:D9"])
def test_all_cells_are_read_whatever_size_the_sheet_states(tmp_path: Path, stated: str) -> None:
    path = workbook(tmp_path, ('<dimension ref="A1:B3"', f'<dimension ref="{stated}"'))
    assert cells(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_cells_are_read_by_their_columns_in_any_order(tmp_path: Path) -> None:
    first, second = '<c r="A2" t="n"><v>1</v></c>', '<c r="B2" t="n"><v>2</v></c>'
    assert cells(workbook(tmp_path, (first + second, second + first)))[0] == {"a": "1", "b": "2"}


def test_a_row_beyond_the_last_one_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="expected rows up to 1,048,576"):
        read_sheet(workbook(tmp_path, ("</sheetData>", f"{FAR}</sheetData>")), LIMITS)


def test_cells_beyond_the_header_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []

    def noting(cells: list[object]) -> bool:
        widths.append(len(cells))
        return any(cell is not None for cell in cells)

    monkeypatch.setattr("models.training.data.xlsx._has_content", noting)
    read_sheet(workbook(tmp_path, ("</sheetData>", '<row r="4"><c r="ZZZ4"><v>1</v></c></row></sheetData>')), LIMITS)
    assert widths[1:] == [2, 2, 2]


def test_a_duration_is_text(tmp_path: Path) -> None:
    path = workbook(tmp_path, rows=[["a"], [timedelta(hours=36)]])
    assert cells(path) == [{"a": "1 day, 12:00:00"}]


def test_entities_are_not_read(tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("secret")
    head = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><worksheet'
    path = workbook(tmp_path, ("<worksheet", head), ("<v>1</v>", "<v>&x;</v>"))
    with pytest.raises(TrainingDataError, match="undefined entity"):
        read_sheet(path, LIMITS)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_no_workbook(tmp_path: Path, method: int) -> None:
    (path := tmp_path / "file.xlsx").touch()
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("[Content_Types].xml", bytes(range(256)) * 100)
    content = bytearray(path.read_bytes())
    content[60:80] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(TrainingDataError, match="expected an XLSX workbook"):
        read_sheet(path, LIMITS)


def test_an_encrypted_archive_is_no_workbook(tmp_path: Path) -> None:
    path = workbook(tmp_path)
    head, *directory = path.read_bytes().split(b"PK\x01\x02")
    path.write_bytes(b"PK\x01\x02".join([head, *(part[:4] + bytes([part[4] | 1]) + part[5:] for part in directory)]))
    with pytest.raises(TrainingDataError, match="encrypted"):
        read_sheet(path, LIMITS)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rows_whose_numbers_do_not_rise_are_refused(tmp_path: Path, number: int) -> None:
    """openpyxl leaves them out, and a job would train on fewer rows than the file has."""
    row = f'<row r="{number}"><c r="A{number}"><v>1</v></c></row></sheetData>'
    with pytest.raises(TrainingDataError, match=f"rows whose numbers rise, got row {number} after row 3"):
        read_sheet(workbook(tmp_path, ("</sheetData>", row)), LIMITS)
