"""Files as loggers, historians and spreadsheets write them: each is read as it was meant, or refused in one answer."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from models.training.csv_options import CsvOptions
from models.training.data import xlsx
from models.training.data.table import ColumnRoles, Table, find_faults, read_table
from models.training.errors import TrainingDataError

_START = 1730023200.0  # 2024-10-27 10:00 UTC
_HOUR = 3600.0
PRESSURE = [1.25, 1.5, 1.75, 1234.5, 2.25]


@dataclass(frozen=True)
class Written:
    """A file, and how it is to be read: the pressures above, an hour apart, unless something else is said."""

    text: str
    read_as: tuple[str, ...] = ()
    encoding: str = "utf-8"
    options: CsvOptions = field(default_factory=CsvOptions)
    zone_hours: float = 0.0
    lines: tuple[int, ...] = (2, 3, 4, 5, 6)
    columns: tuple[str, ...] = ("pressure",)
    timestamp: str = "time"


def rows(
    time: str = "%Y-%m-%dT%H:%M:%S",
    number: str = "{:.2f}",
    *,
    header: str = "time,pressure",
    mark: str = ",",
    decimal: str = ".",
    end: str = "",
    newline: str = "\n",
    wrap: str = "{}",
) -> str:
    """Five rows below a header."""
    lines = [header]
    for at, value in enumerate(PRESSURE):
        moment = datetime.fromtimestamp(_START + at * _HOUR, UTC)
        shown = number.format(value).translate(str.maketrans(".", decimal))
        lines.append(mark.join([moment.strftime(time), wrap.format(shown)]) + end)
    return newline.join(lines) + newline


def serial(number: float) -> str:
    return f"{25569 + (_START + number * _HOUR) / 86400:.6f}"


SEMI = "time;pressure"
GERMAN: dict[str, Any] = {"header": SEMI, "mark": ";", "decimal": ","}
FILES = {
    "plain": Written(rows()),
    "semicolon": Written(rows(header=SEMI, mark=";"), ("semicolon",)),
    "tab": Written(rows(header="time\tpressure", mark="\t"), ("tab",)),
    "vertical bar": Written(rows(header="time|pressure", mark="|"), ("vertical bar",)),
    "byte order mark": Written(rows(), encoding="utf-8-sig"),
    "utf-16": Written(rows(header="time\tpressure", mark="\t"), ("UTF-16", "tab"), encoding="utf-16"),
    "carriage returns": Written(rows(newline="\r\n")),
    "decimal comma": Written(rows(**GERMAN), ("semicolon", "decimal comma")),
    "decimal comma in quotes": Written(rows(decimal=",", wrap='"{}"'), ("decimal comma",)),
    "German": Written(rows("%d.%m.%Y %H:%M", **GERMAN), ("semicolon", "decimal comma", "day first"), zone_hours=0.0),
    "German thousands": Written(
        rows(number="{:,.2f}", **{**GERMAN, "decimal": ","}).replace("1,234", "1.234"),
        ("semicolon", "decimal comma", "a point between thousands"),
    ),
    "English thousands": Written(rows(number='"{:,.2f}"'), ("a comma between thousands",)),
    "Swiss thousands": Written(
        rows(number="{:,.2f}", header=SEMI, mark=";").replace("1,234", "1'234"),
        ("semicolon", "an apostrophe between thousands"),
    ),
    "French thousands": Written(
        rows(number="{:,.2f}", header=SEMI, mark=";", decimal=";")
        .replace(",", "\u202f")
        .replace(";", ",")
        .replace("time,", "time;")
        .replace("00,", "00;")
        .replace(":00;", ":00;"),
        ("semicolon", "decimal comma", "a space between thousands"),
    ),
    "exponents": Written(rows(number="{:.3E}")),
    "cp1252": Written(
        rows(header="time;Druck Behälter", mark=";", decimal=","),
        ("cp1252, since it is not UTF-8", "semicolon", "decimal comma"),
        encoding="cp1252",
        columns=("Druck Behälter",),
    ),
    "lines above the header": Written(
        "Logger 4711\nSite: North\n\n" + rows(), ("3 lines above the header left out",), lines=(5, 6, 7, 8, 9)
    ),
    "comments": Written(
        "# made by a logger\n" + rows().replace("time,pressure\n", "time,pressure\n# begins\n"),
        ("lines that begin with # left out",),
        lines=(4, 5, 6, 7, 8),
    ),
    "units": Written(
        rows().replace("time,pressure\n", "time,pressure\n,m3/h\n"),
        ("a row of units left out (m3/h)",),
        lines=(3, 4, 5, 6, 7),
    ),
    "units with a name for the time": Written(
        rows().replace("time,pressure\n", "time,pressure\nUTC,[m³/h]\n"),
        ("a row of units left out (UTC, [m³/h])",),
        lines=(3, 4, 5, 6, 7),
    ),
    "separators at the end": Written(rows(header="time,pressure,", end=",")),
    "separators at the end of rows alone": Written(rows(end=","), ("a separator at the end of each row",)),
    "day first with slashes": Written(rows("%d/%m/%Y %H:%M:%S"), ("day first",)),
    "month first": Written(rows("%m/%d/%Y %I:%M %p"), ("month first",)),
    "two digits for the year": Written(rows("%d.%m.%y %H:%M"), ("day first",)),
    "seconds since 1970": Written(rows("%s")),
    "serial dates": Written(
        "time,pressure\n" + "".join(f"{serial(at)},{value}\n" for at, value in enumerate(PRESSURE)),
        ("a spreadsheet's serial dates",),
    ),
    "a zone": Written(rows(), ("Europe/Berlin",), options=CsvOptions(timezone="Europe/Berlin"), zone_hours=-1.0),
    "times that name their zone": Written(
        rows("%Y-%m-%dT%H:%M:%S+00:00"), ("Europe/Berlin",), options=CsvOptions(timezone="Europe/Berlin")
    ),
    "a format of dates": Written(
        rows("%Y%m%d-%H.%M"), ("dates as %Y%m%d-%H.%M",), options=CsvOptions(date_format="%Y%m%d-%H.%M")
    ),
    "a spreadsheet's words for nothing": Written(rows().replace("1.75", "#N/A").replace("2.25", "#DIV/0!")),
    "pandas' index": Written(
        "\n".join(f"{'' if at == 0 else at - 1},{line}" for at, line in enumerate(rows().splitlines())) + "\n"
    ),
    "months by name": Written(rows("%d-%b-%y %H:%M:%S"), ("day first",)),
    "pandas' index of times": Written(rows("%Y-%m-%d %H:%M:%S+00:00", header=",pressure"), timestamp="Unnamed: 0"),
    "separators in quotes": Written(rows(header='time,"pressure, tank 1"'), columns=("pressure, tank 1",)),
}


def read(tmp_path: Path, written: Written) -> Table:
    path = tmp_path / "file.csv"
    path.write_bytes(written.text.encode(written.encoding))
    return read_table(path, ColumnRoles(written.columns, written.timestamp, csv=written.options))


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_as_it_was_meant(tmp_path: Path, name: str) -> None:
    written = FILES[name]
    table = read(tmp_path, written)
    expected = [
        float("nan") if name.startswith("a spreadsheet's words") and value in (1.75, 2.25) else value
        for value in PRESSURE
    ]
    assert table.readings[:, 0] == pytest.approx(expected, nan_ok=True, rel=1e-3)
    assert table.times is not None
    first = _START + written.zone_hours * _HOUR
    assert table.times == pytest.approx(first + np.arange(5) * _HOUR, abs=0.05)
    assert table.read_as == written.read_as
    assert tuple(table.lines) == written.lines


@pytest.mark.parametrize(
    ("text", "options", "code", "says"),
    [
        ("a;b\n1,234;1\n2,345;2\n3,456;3\n4,567;4\n", CsvOptions(), "ambiguous_numbers", "set `decimal`"),
        ('a;b\n1,5;"1,234.5"\n', CsvOptions(), "ambiguous_numbers", "a decimal comma in '1,5'"),
        ("t,a\n01/02/2024,1\n01/02/2024,2\n", CsvOptions(), "ambiguous_dates", "set `dayfirst`"),
        ("t,a\n24/01/15,1\n24/01/16,2\n", CsvOptions(), "ambiguous_dates", "could begin with the year"),
        ("t,a\n31/02/2024,1\n", CsvOptions(), "wrong_type", "line 2, column 't'"),
        ("# made\nt,a\n2024-01-01,1\n2024-01-02,x\n2024-01-03,1\n2024-01-04,1\n", CsvOptions(), "wrong_type", "line 4"),
        ("t,a\n2024-01-01,\xff\n", CsvOptions(encoding="ascii"), "wrong_encoding", "text in ascii"),
        ("a,b\n1,x\ny,2\n", CsvOptions(), "wrong_type", "line 2, column 'b': expected a number, got 'x'"),
        ("a,b\n1,2\n2,1.2345.6\n", CsvOptions(), "wrong_type", "or say in `csv` how numbers are written"),
        ("n,v\n" + "T1,1\nP2,2\n" * 9, CsvOptions(), "wrong_type", "make a column of each sensor first"),
        ("t,a\n1-Nov-26,1\n2-Nvo-26,2\n", CsvOptions(), "wrong_type", "line 3, column 't'"),
        (",a\n2026-11-01,1\n", CsvOptions(), "missing_column", "the first one, without a name, is 'Unnamed: 0'"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_set(
    tmp_path: Path, text: str, options: CsvOptions, code: str, says: str
) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles(timestamp=None if text[0] in "an" else "t", csv=options))
    assert caught.value.code == code
    assert says in caught.value.message


WORDS = ["good", "bad", "Good"]
SCADA = """Plant South;Unit 3

Time;TT101.PV;TT101.Quality;PT102.PV;PT102.Quality;Remark
;degC;;bar;;
2026-11-02 00:00;60.1;Good;4.1;GOOD;
2026-11-02 00:01;60.2;Good;0.0;Bad;
2026-11-02 00:02;60.3;Uncertain;4.2;Good;
2026-11-02 00:03;60.4;Good;4.3;;
"""


@pytest.mark.parametrize("columns", [(), ("PT102.PV", "TT101.PV")])
def test_readings_that_are_not_good_are_missing(tmp_path: Path, columns: tuple[str, ...]) -> None:
    path = tmp_path / "scada.csv"
    path.write_text(SCADA)
    table = read_table(path, ColumnRoles(columns, "Time"))
    by_name = dict(zip(table.columns, table.readings.T.tolist(), strict=True))
    assert set(by_name) == {"TT101.PV", "PT102.PV"}
    assert by_name["TT101.PV"] == pytest.approx([60.1, 60.2, math.nan, 60.4], nan_ok=True)
    assert by_name["PT102.PV"] == pytest.approx([4.1, math.nan, 4.2, 4.3], nan_ok=True)
    assert any(one.startswith("2 readings left out that are not good by") for one in table.read_as)
    assert ("left out 'Remark', which is empty" in table.read_as) == (not columns)


@pytest.mark.parametrize(
    ("header", "words", "is_reading"),
    [
        ("valve", ["good", "bad"], True),  # no name of a quality
        ("valve status", ["open", "shut"], True),  # no words of one
        ("flow quality", ["bad", "bad"], True),  # never good
        ("flow quality", ["good", "bad"], False),
    ],
)
def test_only_names_and_words_of_quality_make_a_column_of_it(
    tmp_path: Path, header: str, words: list[str], is_reading: bool
) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"flow,{header}\n1,{words[0]}\n2,{words[1]}\n")
    if is_reading:
        with pytest.raises(TrainingDataError, match="expected a number, got"):
            read_table(path, ColumnRoles())
    else:
        assert read_table(path, ColumnRoles()).columns == ("flow",)


@pytest.mark.parametrize(
    ("header", "columns", "is_found"),
    [
        ("day,time,flow,quality", (), True),
        ("day,time,flow,pressure,pressure quality", (), True),
        ("day,time,flow,pressure,quality", ("pressure",), True),
        ("day,time,flow,pressure,status", (), False),  # perhaps a label
    ],
)
def test_a_word_alone_is_a_quality_after_the_first_readings(
    tmp_path: Path, header: str, columns: tuple[str, ...], is_found: bool
) -> None:
    path = tmp_path / "file.csv"
    names = header.split(",")
    rows = [",".join(["2026-11-02", f"00:0{at}", *["1.5"] * (len(names) - 3), word]) for at, word in enumerate(WORDS)]
    path.write_text("\n".join([header, *rows]))
    if is_found:
        table = read_table(path, ColumnRoles(columns, "day"))
        assert table.columns == (columns or tuple(names[2:-1]))
        assert np.isnan(table.readings[:, -1]).tolist() == [False, True, False]
    else:
        with pytest.raises(TrainingDataError, match="labels in `timestamp`, `group` and `label`"):
            read_table(path, ColumnRoles(timestamp="day"))


def test_a_months_name_leaves_no_choice_of_the_day(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("t,a\n02-Nov-26,1\n03-Nov-26,2\n")
    found = [read_table(path, ColumnRoles(timestamp="t", csv=CsvOptions(dayfirst=first))) for first in (None, False)]
    assert found[0].times is not None
    assert found[1].times is not None
    assert found[0].times.tolist() == found[1].times.tolist()


def test_all_columns_faults_come_in_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("t,a,b,c\n2024-01-01,x,1,1\nnoon,1,y,1\n")
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles(timestamp="t"))
    for place in ("line 2, column 'a'", "line 3, column 'b'", "line 3, column 't'"):
        assert place in caught.value.message


def test_faults_are_looked_for_in_the_same_dialect(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a;b\n1,5;1,5\n2,5;x\n3,5;y\n")
    [fault] = find_faults(path, ColumnRoles())
    assert (fault.column, fault.line) == ("b", 3)


def sentinel_file(tmp_path: Path, sentinel: str) -> Path:
    path = tmp_path / "file.csv"
    values = [str(20 + at % 7) for at in range(100)]
    values[40] = values[41] = sentinel
    path.write_text("a\n" + "\n".join(values) + "\n")
    return path


@pytest.mark.parametrize("sentinel", ["-9999", "65535", "-999.9", "32767"])
def test_numbers_that_stand_for_nothing_are_refused_until_said(tmp_path: Path, sentinel: str) -> None:
    path = sentinel_file(tmp_path, sentinel)
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles())
    assert (caught.value.code, caught.value.line) == ("sentinel", 42)
    assert f'na_values: ["{sentinel}"]' in caught.value.message
    table = read_table(path, ColumnRoles(csv=CsvOptions(na_values=(sentinel,))))
    assert np.flatnonzero(np.isnan(table.readings[:, 0])).tolist() == [40, 41]
    with pytest.raises(TrainingDataError, match="far from all other values"):
        read_table(path, ColumnRoles(csv=CsvOptions(na_values=("bad",))))
    kept = read_table(path, ColumnRoles(csv=CsvOptions(na_values=())))
    assert kept.readings[40, 0] == float(sentinel)


def test_a_number_within_the_range_of_the_others_is_a_reading(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n" + "\n".join(str(9000 + at * 37 % 2000) for at in range(100)) + "\n9999\n")
    assert read_table(path, ColumnRoles()).readings[-1, 0] == 9999


def test_counters_among_the_sensors_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(",meter,heat\n" + "".join(f"{at},{at * 1.5},{at % 5}\n" for at in range(100)))
    table = read_table(path, ColumnRoles())
    assert table.columns == ("heat",)
    assert table.read_as == ("left out '', which only counts up", "left out 'meter', which only counts up")
    assert read_table(path, ColumnRoles(("meter",))).columns == ("meter",), "asked for by name"


def _berlin(tmp_path: Path, hours: list[str]) -> Table:
    path = tmp_path / "file.csv"
    path.write_text("time,a\n" + "".join(f"{hour},{at % 3}\n" for at, hour in enumerate(hours)))
    return read_table(path, ColumnRoles(timestamp="time", csv=CsvOptions(timezone="Europe/Berlin")))


def test_the_hour_that_comes_twice_is_told_apart_by_the_order_of_rows(tmp_path: Path) -> None:
    hours = ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"]
    table = _berlin(tmp_path, [f"2024-10-27 {hour}" for hour in hours])
    assert table.times is not None
    assert np.diff(table.times).tolist() == [1800.0] * 5
    assert "4 times of an hour that comes twice, taken in the order of the rows" in table.read_as


def test_the_hour_that_is_left_out_is_told(tmp_path: Path) -> None:
    table = _berlin(tmp_path, [f"2024-03-31 {hour}" for hour in ("01:30", "02:30", "03:45")])
    assert table.times is not None
    assert np.diff(table.times).tolist() == [3600.0, 900.0]
    assert "1 time of an hour that the clock left out, taken as an hour later" in table.read_as


def workbook(tmp_path: Path, rows: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(row)
    path = tmp_path / "file.xlsx"
    book.save(path)
    return path


def test_a_workbook_is_read_as_a_csv_is(tmp_path: Path) -> None:
    start = datetime(2024, 10, 27, 10)  # noqa: DTZ001  (a workbook has no zones)
    readings: list[list[object]] = [[start + timedelta(hours=at), value, None] for at, value in enumerate(PRESSURE)]
    path = workbook(tmp_path, [[], ["time", "pressure", "heat"], *readings, [None, None, None]])
    table = read_table(path, ColumnRoles(("pressure",), "time"))
    assert table.readings[:, 0].tolist() == PRESSURE
    assert table.times is not None
    assert table.times.tolist() == (_START + np.arange(5) * _HOUR).tolist()
    assert table.lines.tolist() == [3, 4, 5, 6, 7]


def test_a_wrong_cell_of_a_workbook_is_named_by_its_row(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["a", "b"], [1, 2], [3, "bad"]])
    with pytest.raises(TrainingDataError, match="row 3, column 'b': expected a number, got 'bad'"):
        read_table(path, ColumnRoles())


def test_an_archive_that_is_no_workbook_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(TrainingDataError, match="expected an XLSX workbook"):
        read_table(path, ColumnRoles())
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(TrainingDataError, match="no ZIP archive"):
        read_table(path, ColumnRoles())
    path = workbook(tmp_path, [["a"], [1]])
    monkeypatch.setattr(xlsx, "_MAX_BYTES", 1000)
    with pytest.raises(TrainingDataError, match="at most 1,000 bytes unpacked"):
        read_table(path, ColumnRoles())


@pytest.mark.parametrize(
    ("cells", "options", "says"),
    [
        ("1.234,5;1.5", CsvOptions(), "a point that is not between thousands in '1.5'"),
        ("1.234.567;1.5", CsvOptions(), "a point that is not between thousands in '1.5'"),
        ("1 234;12 5", CsvOptions(), "a space that is not between thousands in '12 5'"),
        ("1,5;1.234", CsvOptions(), "a point that could be decimal or between thousands in '1.234'"),
        ("2;1.5", CsvOptions(thousands="."), "a point that is not between thousands in '1.5'"),
        ("2;1,5", CsvOptions(thousands=","), "a comma that is not between thousands in '1,5'"),
        ("2;1.234", CsvOptions(decimal=","), "a point that could be decimal or between thousands in '1.234'"),
    ],
)
def test_marks_never_make_another_number_of_a_cell(tmp_path: Path, cells: str, options: CsvOptions, says: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"a;b\n{cells}\n{cells}\n{cells}\n")
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles(csv=options))
    assert caught.value.code == "ambiguous_numbers"
    assert says in caught.value.message


@pytest.mark.parametrize(("cell", "asked"), [("-9999.00", "-9999"), ("2147483647", "2147483647")])
def test_a_sentinel_is_found_in_each_way_to_write_it(tmp_path: Path, cell: str, asked: str) -> None:
    path = sentinel_file(tmp_path, cell)
    with pytest.raises(TrainingDataError, match=rf'na_values: \["{asked}"\]'):
        read_table(path, ColumnRoles())
    table = read_table(path, ColumnRoles(csv=CsvOptions(na_values=(asked,))))
    assert np.flatnonzero(np.isnan(table.readings[:, 0])).tolist() == [40, 41]


def test_a_sentinel_of_a_parquet_file_is_missing_where_the_job_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"a": [1.0, -9999.0, 2.0]}), path)
    table = read_table(path, ColumnRoles(csv=CsvOptions(na_values=("-9999",))))
    assert np.isnan(table.readings[:, 0]).tolist() == [False, True, False]


def test_all_sentinels_of_a_column_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n" + "\n".join(str(20 + at % 7) for at in range(100)) + "\n-999\n-9999\n65535\n")
    with pytest.raises(TrainingDataError, match=r'na_values: \["65535", "-9999", "-999"\]'):
        read_table(path, ColumnRoles())


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("a,b\n1,5\n#N/A,6\n3,7\n", ("a", "b"), [2, 3, 4]),
        ("a\n1\n#DIV/0!\n3\n", ("a",), [2, 3, 4]),
        ("tag,b\n#1,5\n#2,6\n#3,7\n", ("b",), [2, 3, 4]),
        ("sep=;\na;b\n1,5;2\n2,5;3\n3,5;4\n4,5;5\n", ("a", "b"), [3, 4, 5, 6]),
        ("sep=,\r\na,b\r\n1,2\r\n2,3\r\n", ("a", "b"), [3, 4]),
        ("#time,b\n1,5\n# stopped\n3,7\n", ("#time", "b"), [2, 4]),
        ("# kiln 4, north\na,b\n1,5\n3,7\n", ("a", "b"), [3, 4]),
        ("Logger\x0c4711\n\na,b\n1,5\n2,6\n3,7\n", ("a", "b"), [4, 5, 6]),
        ('msg,b\n"x;, y",1\n"x;",2\n"x;, y, z",3\n', ("b",), [2, 3, 4]),
    ],
)
def test_no_row_and_no_header_is_taken_for_something_else(
    tmp_path: Path, text: str, columns: tuple[str, ...], lines: list[int]
) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text, newline="")
    named = ("b",) if columns == ("b",) else ()
    table = read_table(path, ColumnRoles(named))
    assert table.columns == columns
    assert table.lines.tolist() == lines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n0,5\n1,5\n2,5\n3,5\n", "line 2: expected 1 cell as in the header, got 2"),
        ("pump,a\nA,Bad\nA,1\nA,2\nA,3\n", "line 2, column 'a'"),
    ],
)
def test_a_row_is_no_header_and_no_row_of_units(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    with pytest.raises(TrainingDataError, match=says):
        read_table(path, ColumnRoles(("a",)))


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "idna"},
        {"encoding": "punycode"},
        {"encoding": "undefined"},
        {"encoding": "zlib"},
        {"delimiter": "\0"},
        {"delimiter": "é"},
        {"date_format": "%Y%Y"},
        {"decimal": ",", "thousands": ","},
    ],
)
def test_options_that_no_file_has_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected"):
        CsvOptions(**options)


@pytest.mark.parametrize(
    ("time", "options", "code"),
    [
        ("2024-01-01", CsvOptions(encoding="utf-16"), "wrong_encoding"),
        ("01.01.0001 00:00", CsvOptions(timezone="Asia/Tokyo"), "wrong_type"),
    ],
)
def test_what_an_option_cannot_read_is_an_error_of_the_file(
    tmp_path: Path, time: str, options: CsvOptions, code: str
) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"t,a\n{time},1\n")
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, ColumnRoles(timestamp="t", csv=options))
    assert caught.value.code == code


def test_seconds_since_a_start_are_no_serial_dates(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("t,a\n30000.0,1\n30000.5,2\n30001.0,3\n")
    table = read_table(path, ColumnRoles(timestamp="t"))
    assert table.times is not None
    assert table.times.tolist() == [30000.0, 30000.5, 30001.0]
