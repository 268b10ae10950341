"""The report orders stages, stops jobs and can be read by programs and people."""

from __future__ import annotations

import math

import orjson
import pytest

from models.training.errors import CheckFailed
from models.training.report import STAGES, Choice, Finding, Report, named_rows, with_subject
from models.training.report_labels import check_label, metric_label
from models.training.report_markdown import to_markdown

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
    text = to_markdown(Report([STOP, FINE, LOOK]))
    places = [text.index(f"## {number}.") for number in range(1, 6)]
    assert places == sorted(places)
    assert text.index("- look at this: imbalance") < text.index("- fine: shape") < text.index("- stop: loss finite")
    assert "Rows 3, 9." in text
    assert "What to do: Collect more of 'lost'." in text
    assert text.count("Not run.") == 2


def test_what_needs_a_look_stands_before_all_checks_failures_first() -> None:
    text = to_markdown(Report([FINE, LOOK, STOP]))
    problems, _, checks = text.partition("## 1.")
    assert "1 check failed." in problems
    assert problems.index("**stop**: loss finite") < problems.index("**look at this**: imbalance")
    assert "Rows 3, 9." not in checks


def test_checks_of_two_networks_are_told_apart() -> None:
    report = Report([*with_subject("conv", [FINE]), *with_subject("autoencoder", [FINE])])
    assert "- fine: shape (conv)." in to_markdown(report)
    assert "- fine: shape (autoencoder)." in to_markdown(report)
    assert [one["subject"] for one in report.to_json()["rungs"][1]["findings"]] == ["conv", "autoencoder"]
    failed = Report(with_subject("conv", [STOP]))
    with pytest.raises(CheckFailed, match=r"conv: The first loss is NaN\."):
        failed.raise_if_failed("loss")


def test_a_choice_is_shown_with_its_reason_and_the_figures_that_decided() -> None:
    report = Report([FINE])
    report.choices.append(
        Choice("Detector", "level", "it is simpler", {"level": {"AUROC": 0.9}, "conv": {"AUROC": None}})
    )
    text = to_markdown(report)
    assert "- Detector: **level**, because it is simpler.\n  - level: AUROC 0.900\n  - conv: not measured" in text


def test_a_report_is_read_back_as_it_was_written_and_so_is_an_older_one() -> None:
    report = Report([LOOK, *with_subject("conv", [STOP])])
    report.choices.append(Choice("Detector", "level", "it is simpler"))
    assert Report.from_json(orjson.loads(report.to_bytes())).to_json() == report.to_json()
    old = {"check": "leaks", "status": "warn", "message": "two", "remedy": "look", "value": None, "rows": [1]}
    read = Report.from_json({"rungs": [{"rung": "data", "status": "warn", "findings": [old]}]})
    assert (read.status(), read.problems()[0].rows) == ("warn", (1,))
    assert Report.from_json({}).status() == "not run"


@pytest.mark.parametrize(
    ("name", "task", "label"),
    [
        ("primary", "anomaly", "false-alarm score"),
        ("primary", "forecast", "skill"),
        ("detector_faults_conv", "anomaly", "AUROC of detector conv on injected faults"),
        ("base_ndcg_at_10", "rerank", "nDCG@10 of the base model"),
        ("never_seen", "", "never seen"),
    ],
)
def test_metrics_have_plain_labels(name: str, task: str, label: str) -> None:
    assert metric_label(name, task) == label


def test_checks_have_plain_labels() -> None:
    assert check_label("against_trivial") == "against the trivial baseline"
    assert check_label("false_alarm_rate_0.05") == "false alarms at alpha 0.05"


def test_a_clean_report_says_so_in_one_line() -> None:
    assert "All 1 check that ran passed." in to_markdown(Report([FINE]))
    assert "Nothing was checked." in to_markdown(Report())


def test_a_check_that_was_skipped_is_not_counted_as_fine() -> None:
    skipped = Finding.of("data", "label_errors", "skipped", None, None, "It needs 12 rows of each label.")
    report = Report([FINE, skipped])
    text = to_markdown(report)
    assert "All 1 check that ran passed. 1 could not run." in text
    assert "- skipped: label errors. It needs 12 rows of each label." in text
    assert [report.status(stage) for stage in ("data", "forward")] == ["skipped", "ok"]
    assert report.status() == "ok"


def test_labels_of_the_file_become_no_markup() -> None:
    label = "<img src=x>\n# all is well\n[[click]](https://example.org) a < b"
    finding = Finding("data", "imbalance", "warn", 40.0, 10.0, f"Few of {label!s}.", f"More of {label!s}.")
    inert = r"\<img src=x> # all is well [[click]]\(https://example.org) a < b"
    assert f"Few of {inert}.\n  What to do: More of {inert}." in to_markdown(Report([finding]))


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
