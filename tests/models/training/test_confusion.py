"""The confusion of labels: counted right, worst first, bounded."""

from __future__ import annotations

import random
from dataclasses import asdict

import numpy as np
import orjson
import pytest
from scipy.stats import binomtest

from models.training.confusion import MAX_EXAMPLES, MAX_LABELS, MAX_PAIRS, Confusion, Example
from models.training.metrics import calibration_curve, share_of
from models.training.report import Report


def confusion_of(labels: list[str], truth: list[int], predicted: list[int], text: str = "text") -> Confusion:
    rows = range(len(truth))
    return Confusion.of(labels, np.array(truth), np.array(predicted), [f"{text} {row}" for row in rows], list(rows))


def test_pairs_are_counted_with_their_examples_the_most_frequent_first() -> None:
    found = confusion_of(["a", "b", "c"], [0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 2, 2])
    assert found.labels == ("a", "b", "c")
    assert found.counts == ((1, 2, 0), (1, 1, 0), (0, 0, 2))
    assert [(pair.label, pair.taken_for, pair.rows, pair.of) for pair in found.pairs] == [
        ("a", "b", 2, 3),
        ("b", "a", 1, 2),
    ]
    assert found.pairs[0].examples == (Example(1, "text 1"), Example(2, "text 2"))


def test_it_is_bounded_and_keeps_the_labels_that_are_confused_most() -> None:
    random.seed(0)
    labels = [f"label {number:03}" for number in range(100)]
    truth = [number for number in range(100) for _ in range(20)]
    predicted = [random.randrange(40) if number < 40 else number for number in truth]
    found = confusion_of(labels, truth, predicted, "word " * 1000)
    assert (len(found.labels), found.left_out, len(found.pairs)) == (MAX_LABELS, 100 - MAX_LABELS, MAX_PAIRS)
    assert set(found.labels) <= set(labels[:40])
    assert list(found.labels) == sorted(found.labels)
    assert max(len(pair.examples) for pair in found.pairs) <= MAX_EXAMPLES
    assert len(orjson.dumps(asdict(found))) < 30_000


def test_a_report_keeps_it_and_an_older_one_has_none() -> None:
    report = Report()
    report.confusion = confusion_of(["a", "b"], [0, 1], [1, 1])
    assert Report.from_json(orjson.loads(report.to_bytes())).confusion == report.confusion
    assert Report.from_json({"rungs": []}).confusion is None


def test_the_calibration_curve_has_the_bins_that_have_rows() -> None:
    curve = calibration_curve(np.array([0.51, 0.55, 1.0, 1.0]), np.array([True, False, True, True]))
    assert curve["rows"] == [2, 2]
    assert curve["accuracy"] == [0.5, 1.0]
    assert np.allclose(curve["confidence"], [0.53, 1.0])
    assert curve["low"][1] < 0.5 < curve["high"][1]


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (0, 30), (7, 30), (30, 30), (99_999, 100_000)])
def test_the_interval_of_a_share_is_scipy_s(count: int, rows: int) -> None:
    found, expected = share_of(count, rows), binomtest(count, rows).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_has_an_interval_even_where_all_rows_are_right() -> None:
    few, many = share_of(2, 2), share_of(200, 200)
    assert (few.value, few.high) == (1.0, 1.0)
    assert few.low < 0.5 < 0.97 < many.low
