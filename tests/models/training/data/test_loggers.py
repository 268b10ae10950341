"""Files as real loggers, historians and spreadsheets write them, whole: each is read, or refused in one answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import openpyxl
import pytest

from models.training.csv_options import CsvOptions
from models.training.data.segments import to_segments
from models.training.data.table import ColumnRoles, Table, find_faults, read_table
from models.training.errors import TrainingDataError

_START = datetime(2026, 3, 14, 22, tzinfo=UTC)
_COUNT = 80
_TIMES = [_START + timedelta(minutes=at) for at in range(_COUNT)]
# Two decimals, which no form of file loses.
PRESSURE = [round(4 + 0.25 * (at % 7), 2) for at in range(_COUNT)]
FLOW = [1230.5 + at % 11 for at in range(_COUNT)]


@dataclass(frozen=True)
class Log:
    """A file, the columns that it gives, and what `read_as` must tell; rows of `missing` have no pressure."""

    content: str
    columns: tuple[str, ...]
    timestamp: str | None = "time"
    read_as: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    encoding: str = "utf-8"
    options: CsvOptions = field(default_factory=CsvOptions)


def comma(value: float, form: str = ".2f") -> str:
    return format(value, form).replace(".", ",")


def lines(head: Iterable[str], row: Callable[[int], str], foot: Iterable[str] = (), newline: str = "\r\n") -> str:
    return newline.join([*head, *map(row, range(_COUNT)), *foot]) + newline


def when(at: int, form: str = "%Y-%m-%dT%H:%M:%S") -> str:
    return _TIMES[at].strftime(form)


def opc(at: int) -> str:
    flow, quality = (0.0, 0) if at in (30, 31) else (FLOW[at], 192)
    return f"{when(at)}Z;{'0,0' if at == 50 else comma(PRESSURE[at])};{68 if at == 50 else 195};{comma(flow)};{quality}"


_STOPPED = 'stopped ""hard""\nby hand'
_NAN = '"NAN"'
_SPACED = "1\xa02"
_LABVIEW = [
    "LabVIEW Measurement\t",
    "Separator\tTab",
    "Decimal_Separator\t,",
    "Time_Pref\tRelative",
    "***End_of_Header***\t",
    "\t",
    "Channels\t2\t\t",
    "Y_Unit_Label\tbar\tl/h\t",
    "X_Dimension\tTime\tTime\t",
    "X0\t0,0\t0,0\t",
    "***End_of_Header***\t\t\t",
    "X_Value\tpressure\tflow\tComment",
]

READ = {
    "Siemens panel, one tag": Log(
        lines(
            ['"TimeString";"VarValue";"Time_ms"'],
            lambda at: f'"{when(at, "%d.%m.%Y %H:%M:%S")}";{comma(PRESSURE[at])};{46095916666 + at * 694}',
        ),
        ("VarValue",),
        "TimeString",
        ("semicolon", "decimal comma", "day first", "left out 'Time_ms', which only counts up"),
    ),
    "Grafana for Excel": Log(
        lines(["sep=;", '"time";"pressure"'], lambda at: f"{int(_TIMES[at].timestamp() * 1000)};{PRESSURE[at]}"),
        ("pressure",),
        read_as=("semicolon",),
    ),
    "InfluxDB, nanoseconds": Log(
        lines(
            ["name,time,pressure"],
            lambda at: f"pump,{int(_TIMES[at].timestamp())}000000000,{PRESSURE[at]}",
            newline="\n",
        ),
        ("pressure",),
        options=CsvOptions(),
    ),
    "OPC qualities as numbers": Log(
        lines(["time;pressure;pressure.Quality;flow;flow.Quality"], opc),
        ("pressure", "flow"),
        read_as=("3 readings left out that are not good by 'pressure.Quality', 'flow.Quality'",),
        missing=(50,),
    ),
    "OPC qualities with details": Log(
        lines(
            ["time,pressure,pressure_Status"],
            lambda at: f'{when(at)},{PRESSURE[at]},"{"Bad, Sensor Failure" if at == 7 else "Good, Non-specific"}"',
        ),
        ("pressure",),
        read_as=("1 reading left out that is not good by 'pressure_Status'",),
        missing=(7,),
    ),
    "OPC UA status codes": Log(
        lines(
            ["time,pressure,pressure StatusCode"],
            lambda at: f"{when(at)},{PRESSURE[at]},{'0x808A0000' if at == 7 else '0x00000000'}",
        ),
        ("pressure",),
        read_as=("1 reading left out that is not good by 'pressure StatusCode'",),
        missing=(7,),
    ),
    "LabVIEW": Log(
        lines(_LABVIEW, lambda at: f"{comma(at / 10, '.6f')}\t{comma(PRESSURE[at], '.6f')}\t{comma(FLOW[at], '.6f')}"),
        ("pressure", "flow"),
        None,
        ("11 lines above the header left out", "left out 'Comment', which has no cells"),
    ),
    "Campbell TOA5": Log(
        lines(
            [
                '"TOA5","Site 1","CR1000","4711","Std.31","CPU:pump.CR1","5555","Table1"',
                '"TIMESTAMP","RECORD","pressure"',
                '"TS","RN","bar"',
                '"","","Avg"',
            ],
            lambda at: f'"{when(at, "%Y-%m-%d %H:%M:%S")}",{1000 + at},{_NAN if at == 5 else PRESSURE[at]}',
        ),
        ("pressure",),
        "TIMESTAMP",
        ("1 line above the header left out", "a row of units left out (TS, RN, bar)", "a row of units left out (Avg)"),
        missing=(5,),
    ),
    "Campbell TOA5, a title of as many cells": Log(
        lines(
            [
                '"TOA5","Site 1","CR1000","CR1000","Std.31","CPU:pump.CR1","Beta","Table1"',
                '"TIMESTAMP","RECORD","pressure","flow","T1","T2","T3","T4"',
                '"TS","RN","bar","l/h","C","C","C","C"',
                '"","","Avg","Avg","Smp","Smp","Smp","Smp"',
            ],
            lambda at: f'"{when(at, "%Y-%m-%d %H:%M:%S")}",{1000 + at},{PRESSURE[at]},{FLOW[at]},1,2,3,{_NAN}',
        ),
        ("pressure", "flow", "T1", "T2", "T3", "T4"),
        "TIMESTAMP",
        ("1 line above the header left out", "a row of units left out (TS, RN, bar, l/h, C, C, C, C)"),
    ),
    "Campbell TOACI1": Log(
        lines(
            ['"TOACI1","CR1000","Table1"', '"TMSTAMP","RECNBR","pressure"'],
            lambda at: f'"{when(at, "%Y-%m-%d %H:%M:%S")}",{1000 + at},{PRESSURE[at]}',
        ),
        ("pressure",),
        "TMSTAMP",
        ("1 line above the header left out", "left out 'RECNBR', which only counts up"),
    ),
    "titles of as many cells": Log(
        lines(["Device,testo 176", "Serial,4711", "time,pressure"], lambda at: f"{when(at)},{PRESSURE[at]}"),
        ("pressure",),
        read_as=("2 lines above the header left out",),
    ),
    "a Q of the reading before it": Log(
        lines(["time,P.Value,P.Q"], lambda at: f"{when(at)},{PRESSURE[at]},{0 if at == 7 else 192}"),
        ("P.Value",),
        read_as=("1 reading left out that is not good by 'P.Q'",),
        missing=(7,),
    ),
    "Testo with totals": Log(
        lines(
            ["Gerätename:;testo 176", "Messwerte:;80", "", "ID;Datum / Zeit;Druck [bar]"],
            lambda at: f"{at + 1};{when(at, '%d.%m.%Y %H:%M:%S')};{comma(PRESSURE[at])}",
            ["", "Min;;4,00", "Max;;5,50", "Mittelwert;;4,70"],
        ),
        ("Druck [bar]",),
        "Datum / Zeit",
        ("3 lines above the header left out", "3 rows at the end left out, which have no time"),
        encoding="cp1252",
    ),
    "German Excel with spare columns and rows": Log(
        lines(["Zeit;Druck (bar);;"], lambda at: f"{when(at, '%d.%m.%Y %H:%M')};{comma(PRESSURE[at])};;", [";;;"] * 4),
        ("Druck (bar)",),
        "Zeit",
        ("a separator at the end of each row", "4 empty rows at the end left out"),
        encoding="cp1252",
    ),
    "spare columns between others": Log(
        lines(["time,,pressure,,flow"], lambda at: f"{when(at)},,{PRESSURE[at]},,{FLOW[at]}"),
        ("pressure", "flow"),
        read_as=("left out 'Unnamed: 1', which is empty",),
    ),
    "French Excel": Log(
        lines(
            ["Date;Pression;Débit"],
            lambda at: (
                f"{when(at, '%d/%m/%Y %H:%M')};{comma(PRESSURE[at])};{comma(FLOW[at], '.1f').replace('12', _SPACED, 1)}"
            ),
        ),
        ("Pression", "Débit"),
        "Date",
        ("a space between thousands", "day first"),
        encoding="cp1252",
    ),
    "decimal commas in quotes": Log(
        lines(['"time","pressure"'], lambda at: f'"{when(at)}+00:00","{comma(PRESSURE[at])}"'),
        ("pressure",),
        read_as=("decimal comma",),
    ),
    "a sum at the end": Log(
        lines(["time,pressure"], lambda at: f"{when(at)},{PRESSURE[at]}", [f"Total,{sum(PRESSURE)}"]),
        ("pressure",),
        read_as=("1 row at the end left out, which has no time",),
    ),
    "the header again after a restart": Log(
        lines(["time,pressure"], lambda at: f"{when(at)},{PRESSURE[at]}" + ("\r\ntime,pressure" if at == 40 else "")),
        ("pressure",),
        read_as=("1 row left out that repeats the header",),
    ),
    "line ends of three kinds": Log(
        "".join(
            line + end
            for line, end in zip(
                lines(["time;pressure"], lambda at: f"{when(at)};{PRESSURE[at]}", newline="\n").split("\n")[:-1],
                ["\n", "\r\n", "\r"] * 27,
                strict=True,
            )
        ),
        ("pressure",),
        read_as=("semicolon",),
    ),
    "returns alone": Log(
        lines(["time,pressure"], lambda at: f"{when(at)},{PRESSURE[at]}", newline="\r"), ("pressure",)
    ),
    "two returns at each end": Log(
        lines(["time,pressure"], lambda at: f"{when(at)},{PRESSURE[at]}", newline="\r\r\n"), ("pressure",)
    ),
    "UTF-16 without a mark": Log(
        lines(["time\tpressure"], lambda at: f"{when(at)}\t{PRESSURE[at]}"),
        ("pressure",),
        read_as=("UTF-16", "tab"),
        encoding="utf-16-le",
    ),
    "UTF-16, the high byte first": Log(
        lines(["time\tpressure"], lambda at: f"{when(at)}\t{PRESSURE[at]}"),
        ("pressure",),
        read_as=("UTF-16", "tab"),
        encoding="utf-16-be",
    ),
    "spaces around cells": Log(lines(["time , pressure "], lambda at: f"{when(at)} , {PRESSURE[at]} "), ("pressure",)),
    "months by name, with spaces": Log(
        lines(["time,pressure"], lambda at: f"{when(at, '%d %b %Y %H:%M:%S')},{PRESSURE[at]}"),
        ("pressure",),
        read_as=("day first",),
    ),
    "C's form of times": Log(
        lines(["time,pressure"], lambda at: f"{when(at, '%a %b %d %H:%M:%S %Y')},{PRESSURE[at]}"),
        ("pressure",),
        options=CsvOptions(date_format="%a %b %d %H:%M:%S %Y"),
    ),
    "days of a spreadsheet, by their format": Log(
        lines(["time;pressure"], lambda at: f"{comma(46095 + 22 / 24 + at / 1440, '.8f')};{comma(PRESSURE[at])}"),
        ("pressure",),
        options=CsvOptions(date_format="excel"),
    ),
    "an offset without a colon": Log(
        lines(["time,pressure"], lambda at: f"{when(at)}+0000,{PRESSURE[at]}"), ("pressure",)
    ),
    "texts over two lines": Log(
        lines(["time,pressure,note"], lambda at: f'{when(at)},{PRESSURE[at]},"{_STOPPED if at == 7 else "ok"}"'),
        ("pressure",),
        options=CsvOptions(),
    ),
}


def read(tmp_path: Path, log: Log, columns: tuple[str, ...] = ()) -> Table:
    path = tmp_path / "log.csv"
    path.write_bytes(log.content.encode(log.encoding))
    return read_table(path, ColumnRoles(columns, log.timestamp, csv=log.options))


@pytest.mark.parametrize("name", READ)
def test_a_log_is_read_as_the_logger_meant_it(tmp_path: Path, name: str) -> None:
    log = READ[name]
    named = log.columns if name in ("InfluxDB, nanoseconds", "texts over two lines") else ()
    table = read(tmp_path, log, named)
    assert table.columns == log.columns
    expected = [float("nan") if at in log.missing else value for at, value in enumerate(PRESSURE)]
    assert table.readings[:, 0] == pytest.approx(expected, nan_ok=True)
    if table.times is not None:
        assert table.times == pytest.approx([each.timestamp() for each in _TIMES], abs=0.01)
    assert (table.times is None) == (log.timestamp is None)
    for read_as in log.read_as:
        assert read_as in table.read_as


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize(
    "cells",
    [
        ("14.03.2026;23:00", "14.03.2026;24:00", "15.03.2026;01:00"),
        ("14.03.2026 23:00;", "14.03.2026 24:00;", "15.03.2026 01:00;"),
        ("2026-03-14T23:00;", "2026-03-14T24:00;", "2026-03-15T01:00;"),
        ("2026/03/14 23:00:00;", "2026/03/14 24:00:00;", "2026/03/15 01:00:00;"),
        ("2026031423;", "2026031424;", "2026031501;"),
    ],
)
def test_an_hour_of_24_is_the_end_of_its_day(tmp_path: Path, cells: tuple[str, ...], zone: str | None) -> None:
    path = tmp_path / "log.csv"
    path.write_text("Datum;Uhrzeit;Last\n" + "".join(f"{cell};{at}\n" for at, cell in enumerate(cells)))
    times = read_table(path, ColumnRoles(timestamp="Datum", csv=CsvOptions(timezone=zone))).times
    assert times is not None
    assert np.diff(times).tolist() == [3600.0, 3600.0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("comment", ["", "# of pump 1"])
def test_lines_are_counted_as_an_editor_does(tmp_path: Path, end: str, comment: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(end.join(["a,b", "1,2", "", comment, "3,4", "5,x", ""]).encode())
    with pytest.raises(TrainingDataError, match="line 6, column 'b': expected a number, got 'x'"):
        read_table(path, ColumnRoles())
    path.write_bytes(path.read_bytes().replace(b"x", b"6"))
    assert read_table(path, ColumnRoles()).lines.tolist() == [2, 5, 6]


@pytest.mark.parametrize("quality", ["pump Q", "Q", "Q_C", "pump (q)"])
def test_a_flow_is_no_quality_by_its_symbol_alone(tmp_path: Path, quality: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"pump P,{quality}\n" + "".join(f"{at},{(192, 216, 64, 0)[at % 4]}\n" for at in range(8)))
    table = read_table(path, ColumnRoles())
    assert table.columns == ("pump P", quality)
    assert not np.isnan(table.readings).any()


@pytest.mark.parametrize(
    ("value", "quality"),
    [
        ("P.Value", "P.Q"),
        ("P", "P (q)"),
        ("P.PV", "P.PV_QC"),
        ("P (bar)", "P (bar) (QC)"),
        ("P (value)", "P [Q]"),
        ("Value", "Q"),
        ("P", "P Q"),
    ],
)
def test_a_q_of_the_name_before_it_is_of_quality(tmp_path: Path, value: str, quality: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{value},{quality}\n" + "".join(f"{at},{(192, 216, 64, 0)[at % 4]}\n" for at in (0, 2, 1, 3, 1)))
    table = read_table(path, ColumnRoles())
    assert table.columns == (value,)
    assert np.isnan(table.readings[:, 0]).tolist() == [False, True, False, True, False]


def test_the_header_comes_again_above_empty_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time,P\n2026-01-01,2\ntime,P\n2026-01-02,1\n,\n,\n")
    table = read_table(path, ColumnRoles(timestamp="time"))
    assert table.lines.tolist() == [2, 4]
    assert table.read_as == ("1 row left out that repeats the header", "2 empty rows at the end left out")


@pytest.mark.parametrize("title", ["TOA5", "TOACI1"])
@pytest.mark.parametrize("units", [(), ("TS,bar",), ("TS,bar", ",Avg")])
def test_readings_below_a_campbell_header_are_no_units(tmp_path: Path, title: str, units: tuple[str, ...]) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{when(at)},{PRESSURE[at]}" for at in range(4)]
    path.write_text("\n".join([f"{title},CR1000", "TIMESTAMP,pressure", *units, *rows]))
    table = read_table(path, ColumnRoles(timestamp="TIMESTAMP"))
    assert table.readings[:, 0].tolist() == PRESSURE[:4]
    assert table.lines.tolist() == [3 + len(units) + at for at in range(4)]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_may_have_a_long_header(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.csv"
    names = [f"a temperature of the column number {at}" for at in range(500)]
    path.write_text("\n".join([",".join(names), *([",".join("1" for _ in names)] * 2)]), encoding=encoding)
    assert read_table(path, ColumnRoles(columns=(names[-1],))).lines.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\na,b\na,b\n", r"got none \(2 rows left out that repeat the header\)"),
        ("a,b\n,\n", r"got none \(1 empty row at the end left out\)"),
        ("a,b\n\n\n", "got none"),
    ],
)
def test_a_file_without_readings_has_no_rows(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(TrainingDataError, match=f"expected rows of readings, {says}") as caught:
        read_table(path, ColumnRoles())
    assert caught.value.code == "no_rows"


@pytest.mark.parametrize("content", [b"a\0b\0", b"a\0b\0,c\n1,2\n3,4\n", b"\0a\0b,c\n1,2\n3,4\n"])
def test_text_with_nul_bytes_is_no_utf_16(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(TrainingDataError, match="line 1: expected text, got a NUL byte"):
        read_table(path, ColumnRoles())


@pytest.mark.parametrize(
    "content",
    [
        b"\n".join(b"," * (50 * at) + b"x" for at in range(1, 201)),
        b"a,b\n1,2" + b"\r" * 3_000_000,
        b"a,b\n1,2" + b"\n" * 3_000_000,
    ],
    ids=["a staircase", "returns", "line feeds"],
)
def test_strange_files_take_no_more_time_than_others(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    began = time.thread_time()
    with suppress(TrainingDataError):
        read_table(path, ColumnRoles())
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("skipped", [9, 900])
def test_more_lines_are_skipped_than_a_sample_has(tmp_path: Path, skipped: int) -> None:
    path = tmp_path / "log.csv"
    roles = ColumnRoles(csv=CsvOptions(skip_rows=skipped))
    path.write_text("x\n" * skipped + "a;b\n1;2\n")
    assert read_table(path, roles).lines.tolist() == [skipped + 2]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(TrainingDataError, match="expected a header and rows") as caught:
        read_table(path, roles)
    assert caught.value.code == "no_rows"


_WORDS = {20: "I/O Timeout", 60: "No Data", 61: "Infinity"}
REFUSED: dict[str, tuple[str, str | None, str, tuple[str, ...]]] = {
    "a historian's words": (
        lines(["time,F,P"], lambda at: f"{when(at)},{_WORDS.get(at, FLOW[at])},{'Bad Input' if at == 40 else 4}"),
        "time",
        "wrong_type",
        ('["I/O Timeout", "No Data", "Infinity"]', "line 42, column 'P'", '["Bad Input"]'),
    ),
    "Siemens archive, all tags": (
        lines(['"VarName";"TimeString";"VarValue"'], lambda at: f'"{"PT"[at % 2]}";"{when(at)}";{comma(PRESSURE[at])}'),
        "TimeString",
        "wrong_type",
        ("where each row has the value of one sensor, make a column of each sensor first",),
    ),
    "units in cells": (
        lines(['"time","P","T"'], lambda at: f"{when(at)},{PRESSURE[at]} bar,{FLOW[at]} °C"),
        "time",
        "wrong_type",
        ("line 2, column 'P'", "got '4.0 bar' (write numbers without their unit)", "line 2, column 'T'"),
    ),
    "a name that comes twice": (
        lines(["time,P,P"], lambda at: f"{when(at)},1,2"),
        "time",
        "duplicate_key",
        ("column 'P': expected each column once",),
    ),
    "zeros where the power failed": (
        lines(["time,P"], lambda at: f"{when(at)},{PRESSURE[at]}") + "\0" * 512,
        "time",
        "nul",
        ("line 82: expected text, got a NUL byte",),
    ),
    "the newest row first": (
        lines(["time,P"], lambda at: f"{when(_COUNT - 1 - at)},{PRESSURE[at]}"),
        "time",
        "timestamps_backwards",
        ("sort the rows by time",),
    ),
    "the time of day alone": (
        lines(["time,P"], lambda at: f"{when(at, '%H:%M:%S')},4"),
        "time",
        "wrong_type",
        ("expected a timestamp", "got '22:00:00'"),
    ),
    "rows cut short": (
        lines(
            ["time,P,F"],
            lambda at: f"{when(at)},{PRESSURE[at]}" + ("" if at in (9, 30) else ",x" if at == 50 else ",1"),
        ),
        "time",
        "ragged_row",
        ("line 11: expected 3 cells as in the header, got 2", "line 32", "line 52, column 'F'"),
    ),
    "faults of each kind": (
        lines(
            ["time,a,b,c,d"],
            lambda at: ",".join(
                (
                    when(at if at != 50 else 10),
                    "bad" if at == 10 else "4",
                    "1e99" if at == 20 else "5",
                    "-9999" if at == 30 else str(at % 5),
                    "" if at % 3 else "1",
                )
            ),
        ),
        "time",
        "wrong_type",
        (
            "line 12, column 'a': expected a number, got 'bad'",
            "line 22, column 'b': expected a number of at most",
            "column 'c' has -9999 1 time, first on line 32",
            "column 'd': expected numbers in most rows",
            "line 52: expected a timestamp after",
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_is_refused_with_all_of_its_faults(tmp_path: Path, name: str) -> None:
    content, timestamp, code, says = REFUSED[name]
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode())
    with pytest.raises(TrainingDataError) as caught:
        to_segments(read_table(path, ColumnRoles(timestamp=timestamp)), "series")
    assert caught.value.code == code
    for part in says:
        assert part in caught.value.message


def test_numbers_of_whole_days_are_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("day,a\n46095,1\n46096,2\n46097,1\n")
    read_as = read_table(path, ColumnRoles(timestamp="day")).read_as
    assert read_as == ("numbers as seconds (for days of a spreadsheet, set `date_format` to excel)",)


@pytest.mark.parametrize("cells", [[100, 150, 192], [0, 1, 2], [192, 193.5, 192]])
def test_numbers_that_are_no_codes_of_quality_are_readings(tmp_path: Path, cells: list[float]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("T,Q\n" + "".join(f"{at},{cell}\n" for at, cell in enumerate(cells)))
    assert read_table(path, ColumnRoles()).columns == ("T", "Q")
    path.write_text("T,Q\n1,192\n2,0\n")
    assert read_table(path, ColumnRoles(("T", "Q"))).readings[:, 0].tolist() == [1, 2], "asked for by name"


def test_a_name_that_is_given_with_spaces_is_found_with_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time, a, b\n2026-01-01,1,2\n2026-01-02,3,4\n")
    assert read_table(path, ColumnRoles((" a", "b"), "time")).columns == (" a", "b")


def test_rows_of_which_none_can_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "1,2,3\n" * 200)
    with pytest.raises(TrainingDataError, match="line 2: expected 2 cells as in the header, got 3") as caught:
        read_table(path, ColumnRoles())
    assert caught.value.message.endswith("; and 79 more"), "the reading ends with the hundredth"
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(TrainingDataError, match="line 2: expected 2 cells"):
        find_faults(path, ColumnRoles())


def test_a_workbook_with_spare_columns_and_totals_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    sheet.append(["time", None, "pressure", None, "flow"])
    for at in range(_COUNT):
        sheet.append([_TIMES[at].replace(tzinfo=None), None, PRESSURE[at], None, FLOW[at]])
    sheet.append(["Sum", None, sum(PRESSURE)])
    book.save(tmp_path / "log.xlsx")
    table = read_table(tmp_path / "log.xlsx", ColumnRoles(timestamp="time"))
    assert table.columns == ("pressure", "flow")
    assert table.readings[:, 1].tolist() == FLOW


def test_berlins_doubled_hour_is_read_from_a_panels_file(tmp_path: Path) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    local = [(start + timedelta(minutes=10 * at)).astimezone(zone) for at in range(18)]
    path = tmp_path / "log.csv"
    path.write_text("Zeit;a\n" + "".join(f"{each:%d.%m.%Y %H:%M};{at % 4},5\n" for at, each in enumerate(local)))
    table = read_table(path, ColumnRoles(timestamp="Zeit", csv=CsvOptions(timezone="Europe/Berlin")))
    assert table.times is not None
    assert table.times.tolist() == [each.timestamp() for each in local]
    assert json.dumps(table.read_as).count("an hour that comes twice") == 1


def test_a_long_number_is_no_code_of_quality(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"T,Q\n1,192\n2,{'9' * 5000}\n")
    with pytest.raises(TrainingDataError, match="line 3, column 'Q': expected a finite number"):
        read_table(path, ColumnRoles())


def test_a_cell_too_many_does_not_hide_the_header_below_a_title(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{when(at)},{PRESSURE[at]}" + (",7" if at == 9 else "") for at in range(20)]
    path.write_text("\n".join(["Pump 3", "time,pressure", *rows, ""]))
    with pytest.raises(TrainingDataError, match="line 12: expected 2 cells"):
        read_table(path, ColumnRoles(timestamp="time"))
