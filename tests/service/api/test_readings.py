"""Readings and timestamps of a request: right ones become arrays, wrong ones an error that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.metadata import SensorSignature
from models.training.data.table import ColumnRoles, read_table
from service.api.readings import gap_warnings, missing_warnings, to_matrix, to_timestamps
from service.errors import InvalidRequest

COLUMNS = ("pressure", "flow")


@pytest.mark.parametrize(
    "rows",
    [[[1, 2.5], [-3, 1e15]], [{"pressure": 1, "flow": 2.5}, {"flow": 1e15, "pressure": -3}]],
    ids=["lists", "objects"],
)
def test_rows_and_objects_are_the_same(rows: list[Any]) -> None:
    made = to_matrix(rows, COLUMNS, "records")
    assert made.dtype == np.float64
    assert made.tolist() == [[1, 2.5], [-3, 1e15]]


def test_one_column() -> None:
    assert to_matrix([{"flow": 2}, {"flow": 3}], ("flow",), "records").tolist() == [[2], [3]]
    assert to_matrix([[2], [3]], ("flow",), "records").tolist() == [[2], [3]]


GOOD = [1.0, 2.0]


@pytest.mark.parametrize(
    ("row", "param", "why"),
    [
        ([1], "[2]", 'expected 2 numbers (pressure, flow), got 1; shape ["n", 2], dtype float64'),
        ([1, 2, 3], "[2]", "got 3"),
        ([], "[2]", "got 0"),
        ([1, "2"], "[2].flow", "expected a number (float64) or null, got a string"),
        ([True, 2], "[2].pressure", "got a boolean"),
        ([1, [2]], "[2].flow", "got a list of 1"),
        ([1, {"a": 1}], "[2].flow", "got an object"),
        ([1, float("inf")], "[2].flow", "expected a finite number"),
        ([1, -1.1e15], "[2].flow", "at most 1e+15"),
        (3, "[2]", "as a list or an object, got a number"),
        (None, "[2]", "got null"),
        ("ab", "[2]", "got a string"),
        ({"pressure": 1, "flow": 1, "heat": 1}, "[2].heat", "no such column; the model has pressure, flow"),
        ({"pressure": 1, "heat": 1}, "[2].heat", "no such column; the model has pressure, flow"),
    ],
)
def test_a_wrong_row_is_named(row: object, param: str, why: str) -> None:
    good: Any = {"pressure": 1.0, "flow": 2.0} if isinstance(row, dict) else GOOD
    with pytest.raises(InvalidRequest) as caught:
        to_matrix([good, good, row, good], COLUMNS, "series")
    assert caught.value.param == f"series{param}"
    assert why in caught.value.message


def test_null_and_an_absent_column_are_missing_values() -> None:
    nan = pytest.approx(np.nan, nan_ok=True)
    assert to_matrix([[1, None], [2, 3]], COLUMNS, "series").tolist() == [[1, nan], [2, 3]]
    rows = [{"pressure": 1}, {"flow": 3, "pressure": None}, {}]
    assert to_matrix(rows, COLUMNS, "series").tolist() == [[1, nan], [nan, 3], [nan, nan]]
    assert to_matrix([{"flow": 2}, {}], ("flow",), "records").tolist() == [[2], [nan]]


def _signature(kind: Any = "series") -> SensorSignature:
    return SensorSignature(kind, COLUMNS, 3, max_missing=0.5)


def test_missing_values_are_told_by_column() -> None:
    readings = to_matrix([[1, None], [2, 3], [3, None], [4, 5]], COLUMNS, "series")
    what = "the value before it, or the column's median where there is none"
    told = [f"flow: 2 of 4 values are missing; each was replaced by {what}"]
    assert missing_warnings(readings, _signature(), "series") == told
    assert "the column's median" in missing_warnings(readings, _signature("records"), "records")[0]
    assert missing_warnings(readings[1:2], _signature(), "series") == []


def test_too_many_missing_values_are_refused() -> None:
    readings = to_matrix([[None, None], [2, None]], COLUMNS, "series")
    with pytest.raises(InvalidRequest, match=r"series: 75% of the values are missing .* at most 50%"):
        missing_warnings(readings, _signature(), "series")


def test_long_names_of_columns_are_not_sent_back() -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_matrix([{"pressure": 1, "flow": 1, "x" * 100_000: 1}], COLUMNS, "records")
    assert caught.value.param == f"records[0].{'x' * 79}…"
    assert len(caught.value.message) < 200


def test_lists_and_objects_are_not_mixed() -> None:
    with pytest.raises(InvalidRequest, match="objects or lists throughout"):
        to_matrix([[1, 2], {"pressure": 1, "flow": 2}], COLUMNS, "records")


@pytest.mark.parametrize(
    ("values", "as_text"),
    [
        (["2026-11-23T10:00:00Z", "2026-11-23T11:01:00+01:00", "2026-11-23T10:02:00"], True),
        ([1795428000, 1795428060.0, 1795428120], False),
    ],
)
def test_timestamps_of_either_form(values: list[Any], as_text: bool) -> None:
    made = to_timestamps(values, 3, None)
    assert made.seconds.tolist() == [1795428000, 1795428060, 1795428120]
    assert made.as_text is as_text


def test_timestamps_go_on_by_the_period_or_their_own() -> None:
    text = to_timestamps(["2026-11-23T10:00:00Z", "2026-11-23T10:00:30.5Z"], 2, None)
    assert text.after(2, 60.0).timestamps == ["2026-11-23T10:01:30.500000Z", "2026-11-23T10:02:30.500000Z"]
    assert text.after(1, None).timestamps == ["2026-11-23T10:01:01Z"]
    assert to_timestamps([10, 20, 30, 70], 4, None).after(2, None).timestamps == [80.0, 90.0]


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (["1960-01-01", "1960-01-02"], ["1960-01-03T00:00:00Z", "1960-01-04T00:00:00Z"]),
        (["1969-12-31T23:59:58", "1969-12-31T23:59:59.5"], ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02.500000Z"]),
        (["9999-12-28", "9999-12-29"], ["9999-12-30T00:00:00Z", "9999-12-31T00:00:00Z"]),
    ],
)
def test_texts_go_on_as_texts_in_any_year_that_these_can_say(given: list[str], steps: list[str]) -> None:
    assert to_timestamps(given, 2, None).after(2, None).timestamps == steps


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["9999-12-30", "9999-12-31"], "step 1 would be after the year 9999, which ISO 8601 cannot say"),
        (["2026-11-23"], "how far apart the steps are is not known: send two or more, or none"),
        ([1795428000], "not known"),
    ],
)
def test_steps_that_have_no_time_are_refused(given: list[Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        to_timestamps(given, len(given), None).after(2, None)
    assert caught.value.param == "timestamps"
    assert len(to_timestamps([1795428000], 1, None).after(2, 60.0).timestamps) == 2, "the period tells"


@pytest.mark.parametrize(
    ("values", "before", "param", "why"),
    [
        ([1, 2], None, "timestamps", "expected 3, one a row of series, got 2"),
        ([1, 2, 2], None, "timestamps[2]", "repeats the one before"),
        ([1, 3, 2], None, "timestamps[2]", "is before the one before"),
        ([1, 2, 3], 1.0, "timestamps[0]", "repeats the last one of the call before"),
        ([1, 2, 3], 9.0, "timestamps[0]", "is before the last one of the call before"),
        ([1, "2026-11-23", 3], None, "timestamps[1]", "all of one form, got a string"),
        (["2026-11-23", 2, 3], None, "timestamps[1]", "as the first is, got a number"),
        (["2026-11-23", "soon", "b"], None, "timestamps[1]", "expected ISO 8601"),
        (["0001-01-01T00:00:00+14:00", "2026-11-23", "2026-11-24"], None, "timestamps[0]", "expected ISO 8601"),
        (["2026-11-23", "2026-11-24", "9999-12-31T23:59:59.999999"], None, "timestamps[2]", "expected ISO 8601"),
        (
            ["1960-01-02", "1960-01-01", "1960-01-03"],
            None,
            "timestamps[1]",
            "1960-01-01T00:00:00Z is before the one before",
        ),
        ([1, None, 3], None, "timestamps[1]", "got null"),
        ([1, True, 3], None, "timestamps[1]", "got a boolean"),
        ([1, 2, 1e999], None, "timestamps[2]", "expected Unix seconds"),
        ([-1, 2, 3], None, "timestamps[0]", "expected Unix seconds"),
    ],
)
def test_wrong_timestamps_are_named(values: list[Any], before: float | None, param: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_timestamps(values, 3, before)
    assert caught.value.param == param
    assert why in caught.value.message


def test_gaps_are_told() -> None:
    assert gap_warnings([0, 60, 120], 60) == []
    assert gap_warnings([0, 60, 1000, 1060], None) == []
    [warning] = gap_warnings([0, 60, 1000, 1060], 60)
    assert "timestamps[1] and [2] are 940 s apart" in warning


def test_a_gap_since_the_call_before_is_told() -> None:
    assert gap_warnings([60], 60, before=0) == []
    assert gap_warnings([1000], None, before=0) == []
    [warning] = gap_warnings([1000], 60, before=0)
    assert "the last timestamp of the call before and timestamps[0] are 1000 s apart" in warning
    [warning] = gap_warnings([1000, 9000], 60, before=0)
    assert "timestamps[0] and [1] are 8000 s apart" in warning


@pytest.mark.parametrize(
    ("given", "step", "then"),
    [
        (["2019-12-01", "2020-01-01", "2020-02-01"], "month", ["2020-03-01T00:00:00Z", "2020-04-01T00:00:00Z"]),
        (["1948-11", "1948-12", "1949-01"], "month", ["1949-02-01T00:00:00Z", "1949-03-01T00:00:00Z"]),
        ([20240131, 20240229, 20240331], "month", ["2024-04-30T00:00:00Z", "2024-05-31T00:00:00Z"]),
        (
            [f"2024-{day}" for day in ("11-27", "11-28", "11-29", "12-02", "12-03", "12-04", "12-05")],
            "business day",
            ["2024-12-06T00:00:00Z", "2024-12-09T00:00:00Z"],
        ),
        ([1, 11, 21], "10 s", [31.0, 41.0]),
    ],
)
def test_steps_follow_the_calendar_of_the_timestamps(given: list[Any], step: str, then: list[Any]) -> None:
    found = to_timestamps(given, len(given), None).after(2, None)
    assert (found.timestamps, found.step, found.warnings) == (then, step, [])


def test_steps_that_follow_no_calendar_are_fixed_and_warned_of() -> None:
    found = to_timestamps(["2024-01-01", "2024-01-03", "2024-01-04T07:00:00", "2024-01-09"], 4, None).after(1, 86400.0)
    assert (found.timestamps, found.step) == (["2024-01-10T00:00:00Z"], "86400 s")
    [warning] = found.warnings
    assert "not 86400 s apart" in warning


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (["2024/10/27", "2024/10/28"], 1729987200.0),
        (["2024/10/27 01:30 UTC", "2024/10/27 02:30 UTC"], 1729992600.0),
        (["2024-10-27 00:00:00 UTC", "2024-10-28 00:00:00 UTC"], 1729987200.0),
        (["1949-01", "1949-02"], -662688000.0),
        (["20241027", "20241028"], 1729987200.0),
        (["2024102701", "2024102702"], 1729990800.0),
        ([20241027, 20241028], 1729987200.0),
        ([1729987200, 1729990800], 1729987200.0),
        ([20241001, 20241099], 20241001.0),  # the second is no date, so these are seconds
    ],
)
def test_timestamps_are_read_in_requests_as_in_files(tmp_path: Path, given: list[Any], first: float) -> None:
    made = to_timestamps(given, 2, None)
    assert made.seconds[0] == first
    file = tmp_path / "rows.csv"
    file.write_text("t,a\n" + "".join(f"{one},1\n" for one in given))
    times = read_table(file, ColumnRoles(timestamp="t")).times
    assert times is not None
    assert times.tolist() == made.seconds.tolist()


@pytest.mark.parametrize("given", [["20240230", "20240301"], ["2024-13", "2025-01"], ["2024-01-01T00+01:00 UTC", "a"]])
def test_what_is_nearly_a_date_is_refused(given: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="expected ISO 8601") as caught:
        to_timestamps(given, 2, None)
    assert caught.value.param == "timestamps[0]"


@pytest.mark.parametrize("number", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_number_that_is_no_time_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequest, match=r"timestamps\[1\]: expected Unix seconds from 0 to"):
        to_timestamps([1.5, number], 2, None)
