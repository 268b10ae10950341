"""Checks of a training file without a job: all faults at once, and the data checks of each task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.training.errors import HyperparameterError, TrainingDataError
from models.training.file_check import check_file
from models.training.report import Report
from tests.support.image_files import archive, discs

EXAMPLES = Path(__file__).parents[3] / "examples" / "data"


def check(path: Path, content: str, task: str = "classification", **hyperparameters: object) -> Report:
    path.write_text(content, encoding="utf-8")
    return check_file(path, task, hyperparameters, {})


def faults(report: Report) -> list[tuple[str, tuple[int, ...]]]:
    return [(finding.check, finding.rows) for finding in report.findings if finding.status == "fail"]


def test_every_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    rows = ['{"text": "", "label": "a"}', "no json", '{"text": "b", "label": ""}', '{"query": "x"}', '{"text": "c"}']
    found = faults(check(tmp_path / "x.jsonl", "\n".join(['{"text": "a", "label": "x"}', *rows])))
    assert [rows for _, rows in found] == [(2,), (3,), (4,), (5,), (6,)]
    assert [code for code, _ in found][:3] == ["empty_text", "invalid_json", "empty_label"]


def test_a_csv_row_of_another_length_does_not_hide_the_next_fault(tmp_path: Path) -> None:
    found = faults(check(tmp_path / "x.csv", "text,label\na,x,y\n,x\nb,y\n"))
    assert found == [("ragged_row", (2,)), ("empty_text", (3,))]


def test_a_first_row_with_a_fault_does_not_break_the_search(tmp_path: Path) -> None:
    content = '{"text": "", "label": "a"}\n{"sentence1": "a", "sentence2": "b", "score": 1}\n'
    assert [rows for _, rows in faults(check(tmp_path / "x.jsonl", content))] == [(1,), (2,)]


@pytest.mark.parametrize("header", ["message,intent", "text,intent", "anchor,positive"])
def test_columns_that_all_rows_lack_are_one_fault(tmp_path: Path, header: str) -> None:
    assert len(check(tmp_path / "x.csv", "\n".join([header, *["a,b"] * 20])).findings) == 1


def test_at_most_a_hundred_faults_are_named(tmp_path: Path) -> None:
    assert len(check(tmp_path / "x.jsonl", "no json\n" * 500).findings) == 100


def test_a_byte_that_is_not_utf8_is_the_last_fault(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'no json\n\xff\n{"text": ""}\n')
    assert [code for code, _ in faults(check_file(path, "classification", {}, {}))] == ["invalid_json", "not_utf8"]


def test_a_fault_of_the_whole_file_is_named(tmp_path: Path) -> None:
    assert [code for code, _ in faults(check(tmp_path / "x.csv", "text,label\na,x\nb,x\n"))] == ["one_class"]


def test_rows_that_can_be_used_get_the_data_checks(tmp_path: Path) -> None:
    rows = [f"text {label} {number},{label}" for label in "ab" for number in range(10)]
    report = check(tmp_path / "x.csv", "\n".join(["text,label", *rows]))
    found = {finding.check: finding for finding in report.findings}
    assert {"parse", "class_counts", "exact_duplicates", "signal"} <= set(found)
    assert found["parse"].message == "Read 16 rows to train on and 4 held-out rows; every column was used."


@pytest.mark.parametrize(("task", "more"), [("anomaly", {"kind": "series"}), ("forecast", {"horizon": 2})])
def test_the_first_fault_of_each_column_of_readings_is_named(
    tmp_path: Path, task: str, more: dict[str, object]
) -> None:
    content = "t,a,b\n2026-01-01,1,2\nx,1,foo\n2026-01-03,inf,bar\n"
    found = faults(check(tmp_path / "x.csv", content, task, timestamp="t", **more))
    assert found == [("not_finite", (4,)), ("wrong_type", (3,)), ("wrong_type", (3,))]


def test_readings_get_the_checks_of_tables(tmp_path: Path) -> None:
    rows = "\n".join(f"{number % 7},{number % 5}" for number in range(600))
    report = check(tmp_path / "x.csv", f"a,b\n{rows}\n", "anomaly", kind="series")
    assert {"rows", "missing_values", "unit_jumps"} <= {finding.check for finding in report.findings}


def test_a_file_that_is_not_there_and_a_wrong_hyperparameter_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="expected a file, got none"):
        check_file(tmp_path / "x.csv", "classification", {}, {})
    with pytest.raises(TrainingDataError, match="expected a file, got a folder"):
        check_file(tmp_path, "classification", {}, {})
    with pytest.raises(HyperparameterError):
        check(tmp_path / "x.csv", "", "classification", foo=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "readings", "images"])
def test_a_check_does_without_pytorch(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        path, settings = archive(tmp_path / "x.zip", discs(8)), "'classification', {}"
    elif kind == "texts":
        path, settings = EXAMPLES / "intents.csv", "'classification', {}"
    else:
        path, settings = EXAMPLES / "pump.csv", "'anomaly', {'kind': 'series', 'timestamp': 'time'}"
    code = f"""
import sys
from pathlib import Path
from models.training.file_check import check_file
report = check_file(Path(sys.argv[1]), {settings}, {{}})
print(report.status(), "torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert ended.stdout == "ok False\n", ended
