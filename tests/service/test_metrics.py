"""Metrics: every name there is, all with zeros before the first request."""

from __future__ import annotations

import socket
import typing
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import ConfigError
from service.jobs.records import Status
from service.metrics import (
    ATTEMPT_OUTCOMES,
    BATCH_FAULTS,
    JOB_STATUSES,
    SHED_REASONS,
    TASKS,
    JobMetrics,
    Metrics,
    listen,
)

# Their labels are known only when something happens, or when a model is in service.
LATER = {"sonde_requests", "sonde_request_seconds", "sonde_errors", "sonde_model_info", "sonde_device_memory_bytes"}
LATER |= {
    "sonde_key_requests",
    "sonde_key_tokens",
    "sonde_model_generation",
    "sonde_reload_failures",
    "sonde_drift_detected",
    "sonde_model_one_by_one",
}
BY_MODEL = {
    "sonde_batch_items": "histogram",
    "sonde_batch_padding_ratio": "histogram",
    "sonde_batch_tokens": "histogram",
    "sonde_cache_hits": "counter",
    "sonde_cache_misses": "counter",
    "sonde_duplicate_items": "counter",
    "sonde_inference_seconds": "histogram",
    "sonde_queue_items": "gauge",
    "sonde_queue_tokens": "gauge",
    "sonde_queue_wait_seconds": "histogram",
    "sonde_fitted_cache_hits": "counter",
    "sonde_fitted_cache_misses": "counter",
    "sonde_tokenize_seconds": "histogram",
    "sonde_tokens": "counter",
}
ALL = {
    **BY_MODEL,
    "sonde_batch_faults": "counter",
    "sonde_build_info": "gauge",
    "sonde_cache_bytes": "gauge",
    "sonde_drift_detected": "gauge",
    "sonde_client_gone": "counter",
    "sonde_deadline_missed": "counter",
    "sonde_device_memory_bytes": "gauge",
    "sonde_errors": "counter",
    "sonde_inputs": "counter",
    "sonde_model_info": "gauge",
    "sonde_model_one_by_one": "gauge",
    "sonde_model_generation": "gauge",
    "sonde_key_requests": "counter",
    "sonde_key_tokens": "counter",
    "sonde_keys_stale": "gauge",
    "sonde_ready": "gauge",
    "sonde_registry_problems": "gauge",
    "sonde_reload_failures": "counter",
    "sonde_request_seconds": "histogram",
    "sonde_requests": "counter",
    "sonde_requests_in_flight": "gauge",
    "sonde_quota_refusals": "counter",
    "sonde_shed": "counter",
    "sonde_truncated_inputs": "counter",
}

BUILD = [({"version": version("sonde")}, 1.0)]


def families(registry: CollectorRegistry) -> dict[str, Metric]:
    """What a scrape finds, by name."""
    found = text_string_to_metric_families(generate_latest(registry).decode())
    return {each.name: each for each in found}


def build_info_of(found: Metric) -> list[tuple[dict[str, str], float]]:
    return [(sample.labels, sample.value) for sample in found.samples]


def announced(*models: str) -> dict[str, Metric]:
    metrics = Metrics()
    for model in models:
        metrics.announce(model)
    return families(metrics.registry)


def test_the_names_and_kinds_are_these_and_no_others() -> None:
    assert {name: found.type for name, found in announced("m").items() if name.startswith("sonde_")} == ALL


def test_every_metric_says_what_it_is() -> None:
    assert [name for name, found in announced("m").items() if not found.documentation] == []


def test_all_series_exist_with_zeros_from_the_start() -> None:
    ours = {name: found for name, found in announced("m").items() if name.startswith("sonde_")}
    assert {name for name, found in ours.items() if not found.samples} == LATER
    assert build_info_of(ours.pop("sonde_build_info")) == BUILD
    assert {sample.value for found in ours.values() for sample in found.samples} == {0.0}


@pytest.mark.parametrize("name", BY_MODEL)
def test_every_model_has_its_own_series(name: str) -> None:
    found = announced("m", "other")[name]
    assert {sample.labels["model"] for sample in found.samples} == {"m", "other"}


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("sonde_inputs", "task", TASKS),
        ("sonde_truncated_inputs", "task", TASKS),
        ("sonde_batch_faults", "kind", BATCH_FAULTS),
        ("sonde_shed", "reason", SHED_REASONS),
    ],
)
def test_every_kind_has_its_series(name: str, label: str, values: tuple[str, ...]) -> None:
    samples = [sample for sample in announced("m")[name].samples if sample.name == f"{name}_total"]
    assert sorted(sample.labels[label] for sample in samples) == sorted(values)


def test_what_happened_is_rendered() -> None:
    metrics = Metrics()
    metrics.requests.labels("/v1/embeddings", "200").inc()
    metrics.latency.labels("/v1/embeddings").observe(0.02)
    metrics.ready.set(1)
    lines = metrics.render()[0].decode().splitlines()
    assert 'sonde_requests_total{route="/v1/embeddings",status="200"} 1.0' in lines
    assert 'sonde_request_seconds_bucket{le="0.01",route="/v1/embeddings"} 0.0' in lines
    assert 'sonde_request_seconds_bucket{le="0.025",route="/v1/embeddings"} 1.0' in lines
    assert "sonde_ready 1.0" in lines


def test_announcing_again_forgets_nothing() -> None:
    metrics = Metrics()
    metrics.announce("m")
    metrics.tokens.labels("m").inc(3)
    metrics.announce("m")
    assert metrics.registry.get_sample_value("sonde_tokens_total", {"model": "m"}) == 3


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.client_gone.inc()
    assert other.registry.get_sample_value("sonde_client_gone_total") == 0


@pytest.mark.parametrize("name", ["process_cpu_seconds", "python_info", "python_gc_collections"])
def test_the_process_is_measured_too(name: str) -> None:
    assert families(Metrics().registry)[name].samples


JOBS = {
    "sonde_build_info": "gauge",
    "sonde_jobs": "gauge",
    "sonde_workers": "gauge",
    "sonde_job_running": "gauge",
    "sonde_attempts": "counter",
    "sonde_attempt_seconds": "histogram",
    "sonde_heartbeat_timestamp_seconds": "gauge",
}


def test_a_workers_metrics_are_these_and_exist_from_the_start() -> None:
    found = {name: one for name, one in families(JobMetrics().registry).items() if name.startswith("sonde_")}
    assert {name: one.type for name, one in found.items()} == JOBS
    assert build_info_of(found.pop("sonde_build_info")) == BUILD
    assert {sample.value for one in found.values() for sample in one.samples} == {0.0}
    assert (
        {sample.labels["status"] for sample in found["sonde_jobs"].samples}
        == set(typing.get_args(Status))
        == set(JOB_STATUSES)
    )
    outcomes = {
        sample.labels["outcome"] for sample in found["sonde_attempts"].samples if sample.name == "sonde_attempts_total"
    }
    assert outcomes == set(ATTEMPT_OUTCOMES)


def test_a_status_that_no_job_has_any_more_is_zero_again() -> None:
    metrics = JobMetrics()
    metrics.count({"queued": 3}, 1)
    metrics.count({"succeeded": 3}, 2)
    told = metrics.registry.get_sample_value
    assert (
        told("sonde_jobs", {"status": "queued"}),
        told("sonde_jobs", {"status": "succeeded"}),
        told("sonde_workers"),
    ) == (0, 3, 2)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--metrics-port {port}: cannot listen on 127.0.0.1"):
            listen(Metrics().registry, "127.0.0.1", port)
