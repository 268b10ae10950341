"""Metrics of several processes as one: what was counted is never lost, what is gone is not there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from service.metrics import MERGED_BY, Metrics
from service.processes.metrics_pages import MetricsAggregator, MetricsPage
from tests.support.server import wait_until

Keep = Callable[[str, Metrics], MetricsPage]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Keeps a process's page until the test ends."""
    with ExitStack() as stack:

        def make(name: str, metrics: Metrics) -> MetricsPage:
            page = MetricsPage(tmp_path, name, metrics.registry)
            stack.callback(page.close)
            return page

        yield make


def metric(directory: Path, name: str, **labels: str) -> float | None:
    return MetricsAggregator(directory).registry().get_sample_value(name, labels)


def die(page: MetricsPage) -> None:
    """As if the process had been killed: nothing is written any more, and nobody answers."""
    page._write = lambda: b""  # type: ignore[method-assign]
    page.close()


def test_counts_and_gauges_are_added_up_as_they_are_now(keep: Keep, tmp_path: Path) -> None:
    one, other = Metrics(), Metrics()
    keep("0", one), keep("1", other)
    for number, metrics in enumerate((one, other), start=1):
        metrics.requests.labels("/embed", "200").inc(number)
        metrics.latency.labels("/embed").observe(0.02)
        metrics.queue_items.labels("m").set(10 * number)
        metrics.cache_bytes.set_function(lambda number=number: 100.0 * number)  # type: ignore[misc]
        metrics.ready.set(1)
    other.requests.labels("/embed", "429").inc()
    assert metric(tmp_path, "sonde_requests_total", route="/embed", status="200") == 3
    assert metric(tmp_path, "sonde_requests_total", route="/embed", status="429") == 1
    assert metric(tmp_path, "sonde_request_seconds_bucket", route="/embed", le="0.01") == 0
    assert metric(tmp_path, "sonde_request_seconds_bucket", route="/embed", le="0.025") == 2
    assert metric(tmp_path, "sonde_request_seconds_count", route="/embed") == 2
    assert metric(tmp_path, "sonde_request_seconds_sum", route="/embed") == pytest.approx(0.04)
    assert metric(tmp_path, "sonde_queue_items", model="m") == 30
    assert metric(tmp_path, "sonde_cache_bytes") == 300
    assert metric(tmp_path, "sonde_ready") == 2


def test_all_series_are_there_with_zeros_as_in_one_process(keep: Keep, tmp_path: Path) -> None:
    alone = Metrics()
    for name in ("0", "1"):
        metrics = Metrics()
        metrics.announce("m")
        keep(name, metrics)
    alone.announce("m")

    def ours(text: bytes) -> list[str]:
        return [line for line in text.decode().splitlines() if "sonde_" in line]

    assert ours(generate_latest(MetricsAggregator(tmp_path))) == ours(alone.render()[0])


def test_what_a_process_was_shown_to_have_counted_stays_when_it_dies(keep: Keep, tmp_path: Path) -> None:
    one, other = Metrics(), Metrics()
    page, _ = keep("0", one), keep("1", other)
    one.client_gone.inc(5)
    one.queue_items.labels("m").set(7)
    other.client_gone.inc(2)
    assert metric(tmp_path, "sonde_client_gone_total") == 7
    die(page)
    assert metric(tmp_path, "sonde_client_gone_total") == 7
    assert metric(tmp_path, "sonde_queue_items", model="m") is None


def test_the_next_in_its_place_goes_on_counting(keep: Keep, tmp_path: Path) -> None:
    one = Metrics()
    page = keep("0", one)
    one.client_gone.inc(5)
    one.requests.labels("/embed", "200").inc()
    page.close()
    for more in (1, 2):
        successor = Metrics()
        page = keep("0", successor)
        successor.client_gone.inc(1)
        assert metric(tmp_path, "sonde_client_gone_total") == 5 + more
        page.close()
    assert metric(tmp_path, "sonde_requests_total", route="/embed", status="200") == 1


@pytest.mark.parametrize(
    ("series", "expected"), [("sonde_model_info", 1), ("sonde_drift_detected", 1), ("sonde_model_generation", 3)]
)
def test_what_all_have_in_common_is_not_added_up(keep: Keep, tmp_path: Path, series: str, expected: int) -> None:
    for name, drifts, generation in (("0", 0, 3), ("1", 1, 4)):
        metrics = Metrics()
        metrics.model_info.labels("m", "1", "anomaly", "cpu", "float32", "as asked").set(1)
        metrics.drift.labels("m", "1").set(drifts)
        metrics.model_generation.labels("m").set(generation)
        keep(name, metrics)
    assert series in MERGED_BY
    [line] = [
        line
        for line in generate_latest(MetricsAggregator(tmp_path)).decode().splitlines()
        if line.startswith(f"{series}{{")
    ]
    assert line.endswith(f" {expected}.0")


def test_a_model_that_is_gone_from_all_is_gone(keep: Keep, tmp_path: Path) -> None:
    both = [Metrics(), Metrics()]
    for name, metrics in enumerate(both):
        metrics.model_generation.labels("m").set(1)
        keep(str(name), metrics)
    assert metric(tmp_path, "sonde_model_generation", model="m") == 1
    for metrics in both:
        metrics.model_generation.remove("m")
    assert metric(tmp_path, "sonde_model_generation", model="m") is None


def test_each_process_describes_itself(keep: Keep, tmp_path: Path) -> None:
    keep("0", Metrics()), keep("1", Metrics())
    for process in ("0", "1"):
        assert (metric(tmp_path, "process_resident_memory_bytes", process=process) or 0) > 1e6


def test_a_page_is_renewed_without_being_asked(keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.processes.metrics_pages._REFRESH_S", 0.02)
    metrics = Metrics()
    page = keep("0", metrics)
    metrics.client_gone.inc()
    wait_until(lambda: b'["sonde_client_gone_total", {}, 1.0]' in page._file.read_bytes())
    die(page)
    assert metric(tmp_path, "sonde_client_gone_total") == 1


def test_who_asks_and_goes_away_harms_nobody(keep: Keep, tmp_path: Path) -> None:
    keep("0", Metrics())
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(tmp_path / "0.socket"))
    assert metric(tmp_path, "sonde_client_gone_total") == 0
