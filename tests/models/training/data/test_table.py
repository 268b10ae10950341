"""Tables of readings: how files are read, what is refused by line and column, segments, and the check of the data."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.sensors.model import Doubles
from models.training.checks.sensor_data import check_table
from models.training.csv_options import CsvOptions
from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import ColumnRoles, Table, read_table
from models.training.errors import TrainingDataError
from models.training.report import Finding


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, wanted: ColumnRoles = ColumnRoles()) -> TrainingDataError:  # noqa: B008 - it never changes
    with pytest.raises(TrainingDataError) as caught:
        read_table(path, wanted)
    return caught.value


def table(readings: Doubles, **more: object) -> Table:
    columns = tuple("abcdefgh"[: readings.shape[1]])
    return Table(columns, readings, np.arange(2, len(readings) + 2), **more)  # type: ignore[arg-type]


def found(x: Doubles, **more: object) -> dict[str, Finding]:
    """The findings of the data checks for readings, four fifths of them to train on."""
    runs, repairs = to_segments(table(x, **more), "series")
    train, held = divide_segments(runs, 1, 0.2)
    return {finding.check: finding for finding in check_table(train, held, repairs)}


def noise(rows: int = 800, columns: int = 2) -> Doubles:
    return np.random.default_rng(0).standard_normal((rows, columns)) + 5


def test_csv_parquet_and_jsonl_give_the_same_table(tmp_path: Path) -> None:
    text = "when;machine;p;t;bad\n2026-01-01 00:00:00;m1;1,5;2;0\n2026-01-01T00:00:01Z;m1;NaN;3e1;1\n".replace(
        "1,5", "1.5"
    )
    wanted = ColumnRoles(("p", "t"), "when", "machine", "bad")
    one = read_table(csv(tmp_path, text), wanted)
    np.testing.assert_array_equal(one.readings, [[1.5, 2.0], [np.nan, 30.0]])
    assert one.times is not None
    assert one.labels is not None
    assert (np.diff(one.times).tolist(), one.labels.tolist()) == ([1.0], [False, True])
    assert (one.groups, one.lines.tolist()) == (("m1", "m1"), [2, 3])
    rows = [
        {"when": 1767225600, "machine": "m1", "p": 1.5, "t": 2, "bad": 0},
        {"when": 1767225601000, "machine": "m1", "t": 30.0, "bad": True},
    ]
    (tmp_path / "file.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"p": [1.5, None], "t": [2, 30], "machine": ["m1", "m1"], "bad": [False, True]}
    stamps = pa.array([1767225600_000000, 1767225601_000000], pa.timestamp("us"))
    pq.write_table(pa.table(columns | {"when": stamps}), tmp_path / "file.parquet")
    for name in ("file.jsonl", "file.parquet"):
        other = read_table(tmp_path / name, wanted)
        np.testing.assert_array_equal(other.readings, one.readings)
        np.testing.assert_array_equal(other.times, one.times)
        np.testing.assert_array_equal(other.labels, one.labels)


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "says"),
    [
        ("a,b\n1,2\n3,x\n", "wrong_type", 3, "b", "expected a number, got 'x'"),
        ("a,b\n1,2\n\n3,x\n", "wrong_type", 4, "b", "line 4"),
        ("a;b\n1;2\n3;1,5 bar\n", "wrong_type", 3, "b", "expected a number, got '1,5 bar'"),
        ("t,b\n2026-11-01 00:00,1\n", "wrong_type", 2, "t", "times: name it in `timestamp`"),
        ("t,b\n01.11.2026,1\n", "wrong_type", 2, "t", "this looks like a column of times"),
        ("a,b\n1,inf\n", "not_finite", 2, "b", "expected a finite number"),
        (
            "a,b\n1,2\n3,-1.5e15\n",
            "too_large",
            3,
            "b",
            "expected a number of at most 1e+15 either way, got -1500000000000000.0",
        ),
        ("a,b\n1,2\n1,2,3\n", "ragged_row", 3, None, "expected 2 cells"),
        ("a,a\n1,2\n", "duplicate_key", 1, "a", "each column once"),
        ("a,b\n", "no_rows", None, None, "got none"),
        ("", "no_rows", None, None, "an empty file"),
        ("\na,b\n1,2\n", "no_rows", None, None, "empty first line"),
        ("a,b\n1,x\n3,\0\n", "nul", 3, None, "NUL byte"),
        ('a,b\n1,2\n3,"4\n', "invalid_csv", 3, None, "is a quote left open?"),
    ],
)
def test_what_is_no_number_is_named(
    tmp_path: Path, text: str, code: str, line: int | None, column: str | None, says: str
) -> None:
    error = refused(csv(tmp_path, text))
    assert (error.code, error.line, error.column) == (code, line, column)
    assert says in error.message


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a,b\r\n1,2\r\n3,4\r\n", [2, 3]),
        ("a,b\n1,2\n\n3,4", [2, 4]),
        ('"a","b"\n"1",2\n3,"4"\n', [2, 3]),
        ('a,b,"c\nd"\n1,2,\n3,4,5\n', [3, 4]),
        ('a,b\n1,"2\n"\n3,4\n', [2, 4]),
    ],
    ids=["returns", "blank line", "quotes", "break in the header", "break in a cell"],
)
def test_rows_keep_their_lines_whatever_reads_them(tmp_path: Path, text: str, lines: list[int]) -> None:
    read = read_table(csv(tmp_path, text), ColumnRoles(("a", "b")))
    assert (read.readings.tolist(), read.lines.tolist()) == ([[1.0, 2.0], [3.0, 4.0]], lines)


def test_a_key_that_comes_late_is_missing_before(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text('{"a": 1}\n' * 9000 + '{"b": 2, "a": 3}\n')
    read = read_table(path, ColumnRoles())
    assert (read.columns, read.readings[-1].tolist(), len(read)) == (("a", "b"), [3.0, 2.0], 9001)
    assert np.isnan(read.readings[:-1, 1]).all()


def test_objects_without_keys_are_rows_of_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("{}\n" * 5000 + '{"a": 1}\n')
    read = read_table(path, ColumnRoles())
    assert (len(read), read.lines[-1], read.readings[-1].tolist()) == (5001, 5001, [1.0])
    path.write_text("{}\n")
    assert refused(path).code == "wrong_columns"


@pytest.mark.parametrize("name", ["file.jsonl", "file.csv"])
def test_columns_without_end_are_refused(tmp_path: Path, name: str) -> None:
    names = [f"column {number}" for number in range(1001)]
    text = json.dumps(dict.fromkeys(names, 1)) if name == "file.jsonl" else ",".join(names) + "\n" + "1," * 1000 + "1\n"
    (tmp_path / name).write_text(text)
    error = refused(tmp_path / name)
    assert (error.code, "at most 1,000 columns, got 1,001" in error.message) == ("wrong_columns", True)


def test_text_of_parquet_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    binary = pa.array([b"a", b"caf\xe9"], pa.binary())
    columns = {"machine": pa.Array.from_buffers(pa.string(), 2, binary.buffers()), "a": [1.0, 2.0]}
    pq.write_table(pa.table(columns), tmp_path / "file.parquet")
    assert refused(tmp_path / "file.parquet", ColumnRoles(group="machine")).code == "invalid_parquet"


def test_times_groups_and_labels_that_are_none_are_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "t,a,y\nyesterday,1,maybe\n")
    assert "line 2, column 't': expected a timestamp" in refused(path, ColumnRoles(("a",), timestamp="t")).message
    assert "line 2, column 'y': expected 0 or 1" in refused(path, ColumnRoles(("a",), label="y")).message
    error = refused(path, ColumnRoles(("a",), group="machine"))
    assert (error.code, "expected a column 'machine', got 't', 'a', 'y'" in error.message) == ("missing_column", True)


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_unix_times_of_any_unit_are_read_and_told(tmp_path: Path, unit: int) -> None:
    written = [1767225600 * unit + second * unit + 123 * (unit // 1_000_000_000) for second in range(3)]
    read = [read_table(csv(tmp_path, "t,a\n" + "".join(f"{time},1\n" for time in written)), ColumnRoles(timestamp="t"))]
    name = {1: "s", 1_000: "ms", 1_000_000: "us", 1_000_000_000: "ns"}[unit]
    pq.write_table(pa.table({"t": pa.array(written, pa.timestamp(name)), "a": [1.0] * 3}), tmp_path / "file.parquet")
    for one in (*read, read_table(tmp_path / "file.parquet", ColumnRoles(timestamp="t"))):
        assert [place[:19] for place in map(str, to_segments(one, "series")[0].places(np.arange(3)))] == [
            "2026-01-01T00:00:00", "2026-01-01T00:00:01", "2026-01-01T00:00:02",
        ]  # fmt: skip


@pytest.mark.parametrize("time", ["1e21", "-62135596801", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_times_that_no_calendar_has_are_refused(tmp_path: Path, time: str) -> None:
    error = refused(csv(tmp_path, f"t,a\n2026-01-01,1\n{time},1\n"), ColumnRoles(timestamp="t"))
    assert (error.code, error.line, error.column) == ("wrong_type", 3, "t")
    assert "expected a timestamp within the years 1 to 9999" in error.message


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ms"), pa.date32(), pa.date64()])
def test_times_of_parquet_that_no_calendar_has_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    stamps = pa.array(
        [0, 10**9 if kind == pa.date32() else 10**15], pa.int32() if kind == pa.date32() else pa.int64()
    ).view(kind)
    pq.write_table(pa.table({"t": stamps, "a": [1.0, 2.0]}), tmp_path / "file.parquet")
    error = refused(tmp_path / "file.parquet", ColumnRoles(timestamp="t"))
    assert (error.code, error.line, error.column) == ("wrong_type", 2, "t")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.parquet").write_bytes(b"PAR1 and nothing more")
    assert refused(tmp_path / "file.parquet").code == "invalid_parquet"
    (tmp_path / "file.csv").write_bytes(b"a,b\n1,\xff\n")
    as_utf8 = refused(tmp_path / "file.csv", ColumnRoles(csv=CsvOptions(encoding="utf-8")))
    assert (as_utf8.code, as_utf8.line) == ("not_utf8", 2)


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5_000, 8))
    rows = "".join(",".join(row) + "\n" for row in np.char.mod("%.5f", x).tolist())
    path = csv(tmp_path, "a,b,c,d,e,f,g,h\n" + 20 * rows)
    start = time.process_time()
    assert read_table(path, ColumnRoles()).readings.shape == (100_000, 8)
    assert time.process_time() - start < 3


def test_groups_become_runs_and_silences_cut_them() -> None:
    times = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 100.0, 101.0, 101.0])
    groups = ("x", "x", "x", "y", "y", "y", "y", "y")
    runs, repairs = to_segments(table(noise(8), times=times, groups=groups), "series")
    assert runs.starts.tolist() == [0, 3, 5]
    assert (repairs.period_s, repairs.repeated, repairs.gaps) == (1.0, [9], [7])


def test_timestamps_that_go_backwards_are_refused() -> None:
    with pytest.raises(TrainingDataError, match=r"line 4: expected a timestamp after .* got one 1 s earlier") as caught:
        to_segments(table(noise(3), times=np.array([0.0, 2.0, 1.0])), "series")
    assert caught.value.code == "timestamps_backwards"


def test_what_is_missing_is_the_last_value_before_it_or_the_median() -> None:
    x = np.array([[np.nan], [1.0], [np.nan], [np.nan], [3.0], [3.0]])
    groups = ("x", "x", "x", "y", "y", "y")
    assert to_segments(table(x, groups=groups), "series")[0].readings.ravel().tolist() == [3.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    assert to_segments(table(x, groups=groups), "records")[0].readings.ravel().tolist() == [
        3.0,
        1.0,
        3.0,
        3.0,
        3.0,
        3.0,
    ]
    with pytest.raises(TrainingDataError, match="column 'a': expected numbers in most rows, got none in 60%"):
        to_segments(table(np.array([[np.nan]] * 3 + [[1.0]] * 2)), "series")


def test_the_later_part_is_held_out_and_no_run_crosses_the_cut() -> None:
    runs, _ = to_segments(table(noise(100)), "series")
    train, held = divide_segments(runs, 1, 0.2)
    assert (train.lines[-1], held.lines[0], len(train), len(held)) == (81, 82, 80, 20)
    groups = tuple(name for name in "uvwxyz" for _ in range(10))
    grouped, _ = to_segments(table(noise(60), groups=groups), "series")
    train, held = divide_segments(grouped, 6, 0.3)
    assert (len(train.starts), len(held.starts), len(held)) == (4, 2, 20)


@pytest.mark.parametrize("groups", [5, 6, 9])
def test_of_few_groups_one_is_held_out_however_small_the_share(groups: int) -> None:
    runs, _ = to_segments(
        table(noise(10 * groups), groups=tuple(str(row // 10) for row in range(10 * groups))), "series"
    )
    assert [len(part) for part in divide_segments(runs, groups, 0.05)] == [10 * (groups - 1), 10]


def test_labelled_anomalies_are_not_fitted_to() -> None:
    labels = np.array([False] * 4 + [True] * 2 + [False] * 4)
    runs, _ = to_segments(table(noise(10), labels=labels), "series")
    assert [len(part) for part in runs.normal()] == [4, 4]


def test_labels_and_small_groups_do_not_cut_records() -> None:
    labels = np.arange(300) % 4 == 0
    runs, _ = to_segments(table(noise(300), labels=labels), "records")
    np.testing.assert_array_equal(np.concatenate(runs.normal()), runs.readings[~labels])
    assert len(runs.normal()) == 1
    groups = tuple(f"{row // 10:03d}" for row in range(300))
    joined = to_segments(table(noise(300), groups=groups), "records")[0].normal()
    assert [len(part) for part in joined] == [70, 70, 70, 90], "whole groups, enough of them to be held out of a fit"
    assert len(to_segments(table(noise(300), groups=groups), "series")[0].normal()) == 30


def test_healthy_readings_pass_the_data_checks() -> None:
    findings = found(noise(), times=np.arange(800.0))
    assert {finding.status for finding in findings.values()} == {"ok"}


def units_jump() -> Doubles:
    x = noise()
    x[300:, 1] *= 1000
    return x


def still() -> Doubles:
    x = noise()
    x[:, 1] = 4.0
    return x


def holes() -> Doubles:
    x = noise()
    x[::5, 0] = np.nan
    return x


def moving() -> Doubles:
    x = noise()
    x[640:] += 20
    return x


@pytest.mark.parametrize(
    ("x", "check", "status", "says"),
    [
        (units_jump(), "unit_jumps", "fail", "'b' grows"),
        (still(), "constant_columns", "warn", "'b' has the same value"),
        (np.full((800, 2), 4.0), "constant_columns", "fail", "'a', 'b' have"),
        (holes(), "missing_values", "warn", "160 values are missing (10.0%), most in 'a' (160)"),
        (noise(60), "rows", "fail", "48 normal rows"),
        (np.repeat(noise(200), 4, axis=0), "stuck_rows", "warn", "75"),
        (moving(), "moved", "warn", "moved most"),
    ],
    ids=["units", "constant", "all constant", "missing", "few", "stuck", "moved"],
)
def test_what_is_broken_on_purpose_is_found(x: Doubles, check: str, status: str, says: str) -> None:
    finding = found(x)[check]
    assert (finding.status, says in finding.message) == (status, True), finding.message


def test_odd_timestamps_are_found() -> None:
    times = np.cumsum(np.random.default_rng(1).exponential(1.0, 800))
    assert found(noise(), times=times)["irregular_timestamps"].status == "warn"
    twice = np.repeat(np.arange(400.0), 2)
    assert found(noise(), times=twice)["repeated_timestamps"].status == "warn"


def lines(findings: Sequence[Finding]) -> list[int]:
    return [row for finding in findings for row in finding.rows]


def test_the_line_of_a_unit_jump_is_named() -> None:
    assert any(280 <= row <= 320 for row in lines([found(units_jump())["unit_jumps"]]))


def test_a_table_without_runs_long_enough_says_so() -> None:
    runs = Segments(("a",), noise(40, 1), np.arange(40), np.array([0]))
    findings = {finding.check: finding for finding in check_table(runs, runs, Imputation())}
    assert "at least 64" in findings["rows"].remedy
