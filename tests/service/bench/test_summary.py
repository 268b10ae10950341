"""What is made of the samples: percentiles, rates, goodput, and how they are shown."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from service.bench.load import Run, Sample
from service.bench.report import as_json, page, record, table, warnings
from service.bench.summary import Latency, Summary, per_second, percentile


def sample(due: float, took: float, status: str = "200", kind: str = "single", inputs: int = 1) -> Sample:
    return Sample(due, due, due + took, status, kind, inputs, 12 * inputs)


def of(*samples: Sample, seconds: float = 10.0, cpu_s: float = 1.0) -> Run:
    return Run(list(samples), began=0.0, cpu_s=cpu_s, seconds=seconds)


def summary(run: Run, **more: float) -> Summary:
    return Summary.of(run, **{"warmup_s": 0.0, "until_s": 10.0, "slo_ms": 100.0, **more})


@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_numpys(percent: float) -> None:
    values = sorted(np.random.default_rng(0).exponential(size=317).tolist())
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))
    assert percentile([3.0], percent) == 3.0


def test_latency_is_in_milliseconds() -> None:
    latency = Latency.of([0.1, 0.2, 0.3])
    assert latency is not None
    assert (latency.mean, latency.p50, latency.max) == pytest.approx((200, 200, 300))
    assert Latency.of([]) is None


def test_goodput_counts_good_answers_in_time_only() -> None:
    seen = summary(of(sample(1, 0.05), sample(2, 0.15), sample(3, 0.01, "503"), sample(4, 0.1 - 1e-9)))
    assert (seen.goodput.per_s, seen.goodput.share) == pytest.approx((0.2, 0.5))
    assert (seen.statuses, seen.failed) == ({"200": 3, "503": 1}, 1)


def test_the_warm_up_and_what_comes_after_are_left_out() -> None:
    seen = summary(of(sample(1, 5), sample(6.5, 0.01), sample(11, 9)), warmup_s=6)
    assert seen.requests == 1
    assert seen.latency_ms is not None
    assert seen.latency_ms.max == pytest.approx(10)


def test_a_request_of_the_warm_up_that_fails_in_the_window_counts() -> None:
    seen = summary(of(sample(1, 9, "timeout"), sample(1, 1, "timeout"), sample(1, 9), sample(7, 1)), warmup_s=6)
    assert seen.statuses == {"timeout": 1, "200": 1}


def test_an_answer_counts_for_the_share_of_its_time_in_the_window() -> None:
    """Four seconds each, back to back from 0 to 12, in a window of 10: two and a half answers of 32 texts."""
    run = of(*(sample(at, 4, inputs=32) for at in (0, 4, 8)), seconds=12)
    seen = summary(run)
    assert seen.requests_per_s == pytest.approx(0.25)
    assert (seen.inputs_per_s, seen.tokens_per_s) == pytest.approx((8, 96))


def test_failures_give_no_rate() -> None:
    seen = summary(of(sample(1, 1, "timeout"), sample(2, 1, "500")))
    assert (seen.requests_per_s, seen.latency_ms, seen.goodput.share) == (0, None, 0)
    assert "no good answer" in table("x", seen)
    assert "2 of 2 requests failed" in warnings(seen)[0]


def test_an_empty_window_is_no_error() -> None:
    seen = summary(of(seconds=0))
    assert (seen.requests, seen.goodput.share, seen.generator_cores) == (0, 0, 0)
    assert "none" in table("x", seen)


def test_kinds_are_told_apart() -> None:
    seen = summary(of(sample(1, 0.01), sample(2, 0.5, kind="bulk", inputs=32)))
    bulk = seen.by_kind_ms["bulk"]
    assert bulk is not None
    assert bulk.p50 == pytest.approx(500)
    assert re.search(r"bulk +500\.0", table("x", seen))


def test_a_busy_generator_says_so() -> None:
    assert "may have measured the generator" in warnings(summary(of(sample(1, 0.01), cpu_s=9.5)))[0]
    assert warnings(summary(of(sample(1, 0.01)))) == []


def test_texts_are_counted_in_the_second_of_their_answer() -> None:
    assert per_second(of(sample(0.5, 0.1), sample(0.9, 0.3, inputs=4), sample(1.5, 0.1, "500"), seconds=2.5)) == [
        1,
        4,
        0,
    ]


def test_json_and_page_hold_the_figures() -> None:
    run = of(*(sample(second / 10, 0.01 + second / 1000) for second in range(100)))
    recorded = record({"warmup_s": 0.0, "url": "<here>"}, "2026-01-01T00:00:00+00:00", summary(run), run)
    read = json.loads(as_json(recorded))
    assert read["summary"]["latency_ms"]["max"] == pytest.approx(109)
    assert read["texts_each_second"][:2] == [10, 10]
    shown = page("load on <here>", recorded, run)
    assert "load on &lt;here&gt;" in shown
    assert "<here>" not in shown
    drawn = [b64decode(image) for image in re.findall(r"svg\+xml;base64,([^']*)", shown)]
    assert [len(ET.fromstring(plot).findall(".//*[@id='line']")) for plot in drawn] == [1, 1]


def test_a_page_without_good_answers_says_so() -> None:
    run = of(sample(1, 1, "503"), seconds=1)
    recorded = record({"warmup_s": 0.0}, "now", summary(run), run)
    assert "No good answer" in page("x", recorded, run)
