"""The report orders stages, stops jobs and can be read by programs and people."""

from __future__ import annotations

import math

import orjson
import pytest

from models.training.errors import CheckFailed
from models.training.report import STAGES, Finding, Report, named_rows

FINE = Finding("forward", "shape", "ok", "[4, 8]", "[4, 8]", "Outputs have the shape they should.", "")
LOOK = Finding(
    "data",
    "imbalance",
    "warn",
    40.0,
    10.0,
    "The largest class is 40 times the smallest.",
    "Collect more of 'lost'.",
    (3, 9),
)
STOP = Finding("loss", "loss_finite", "fail", math.nan, None, "The first loss is NaN.", "Lower the learning rate.")


def test_the_stages_stand_in_order_whatever_came_first() -> None:
    text = Report([STOP, FINE, LOOK]).to_markdown()
    places = [text.index(f"## {number}.") for number in range(1, 6)]
    assert places == sorted(places)
    assert text.index("imbalance") < text.index("shape") < text.index("loss_finite")
    assert "Start with the first check that did not pass: data." in text
    assert "Rows 3, 9." in text
    assert "What to do: Collect more of 'lost'." in text
    assert text.count("Not run.") == 2


def test_a_clean_report_says_so_in_one_line() -> None:
    assert "All 1 check that ran passed." in Report([FINE]).to_markdown()
    assert "Nothing was checked." in Report().to_markdown()


def test_a_check_that_was_skipped_is_not_counted_as_fine() -> None:
    skipped = Finding.of("data", "label_errors", "skipped", None, None, "It needs 12 rows of each label.")
    report = Report([FINE, skipped])
    text = report.to_markdown()
    assert "All 1 check that ran passed. 1 could not run." in text
    assert "- skipped: label_errors. It needs 12 rows of each label." in text
    assert [report.status(stage) for stage in ("data", "forward")] == ["skipped", "ok"]
    assert report.status() == "ok"


def test_labels_of_the_file_become_no_markup() -> None:
    label = "<img src=x>\n# all is well\n[[click]](https://example.org) a < b"
    finding = Finding("data", "imbalance", "warn", 40.0, 10.0, f"Few of {label!s}.", f"More of {label!s}.")
    inert = r"\<img src=x> # all is well [[click]]\(https://example.org) a < b"
    assert f"Few of {inert}.\n  What to do: More of {inert}." in Report([finding]).to_markdown()


def test_statuses_are_the_worst_of_a_stage() -> None:
    report = Report([FINE, LOOK])
    assert [report.status(stage) for stage in STAGES] == ["warn", "ok", "not run", "not run", "not run"]
    assert report.status() == "warn"
    report.add(STOP)
    assert report.status() == "fail"


def test_a_failed_stage_raises_with_code_message_and_param() -> None:
    report = Report([LOOK, STOP])
    report.raise_if_failed("data")
    with pytest.raises(CheckFailed, match=r"The first loss is NaN\. Lower the learning rate\.") as caught:
        report.raise_if_failed("loss")
    assert (caught.value.code, caught.value.param) == ("loss_finite", "hyperparameters")


def test_json_is_valid_and_has_every_stage() -> None:
    report = Report([LOOK, STOP])
    read = orjson.loads(report.to_bytes())
    assert read == orjson.loads(orjson.dumps(report.to_json()))
    assert [rung["rung"] for rung in read["rungs"]] == list(STAGES)
    assert read["rungs"][2]["findings"][0]["value"] == "nan"
    assert read["rungs"][0]["findings"][0]["rows"] == list(LOOK.rows)


def test_only_so_many_rows_are_named() -> None:
    assert named_rows([5, 5, 1]) == (1, 5)
    assert len(named_rows(range(1000))) == 50
