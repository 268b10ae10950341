"""Every metric. Series with known labels exist from the start, as zeros for alerts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from models.metadata import ModelMetadata
from service.errors import ConfigError
from service.version import VERSION

MetricT = TypeVar("MetricT", Counter, Histogram)

# Prometheus does not use the times at which series began, and each would be a family of its own.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_ATTEMPT = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_SHARES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75)

TASKS = ("embedding", "classification", "anomaly", "rerank", "forecast", "detection", "ocr", "inference")
SHED_REASONS = ("items", "tokens", "not_ready")
QUOTA_REASONS = ("key_jobs", "total_jobs", "key_bytes", "total_bytes", "key_feedback", "total_feedback")
BATCH_FAULTS = ("bisected", "out_of_memory", "invalid_output")
JOB_STATUSES = ("queued", "validating_files", "running", "paused", "succeeded", "failed", "cancelled")
PROCESS_STATES = ("starting", "ready", "draining")
# An attempt ends with its job, is paused, is queued again, or is lost to another worker.
ATTEMPT_OUTCOMES = ("succeeded", "failed", "cancelled", "paused", "queued", "lost")

# Values of the same series from several processes are added up, except these: every process has the model or sees the
# drift, and a generation is in service once the last process has it.
MERGED_BY: Mapping[str, Callable[[float, float], float]] = {
    "sonde_build_info": max,
    "sonde_model_info": max,
    "sonde_model_one_by_one": max,
    "sonde_drift_detected": max,
    "sonde_registry_problems": max,
    "sonde_model_generation": min,
}


class Metrics:
    """The service's metrics in a registry of their own.

    `render` shows `shown`: this registry, or the sum of all server processes where there are several.
    """

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.shown: Collector = r
        counter, gauge, histogram = (
            partial(_keeping_series, Counter, registry=r),
            partial(Gauge, registry=r),
            partial(_keeping_series, Histogram, registry=r),
        )
        seconds, model = partial(histogram, buckets=_LATENCY), ["model"]

        self.requests = counter("sonde_requests", "Requests answered, by route and status", ["route", "status"])
        self.latency = seconds("sonde_request_seconds", "Time from first byte to answer", ["route"])
        self.in_flight = gauge("sonde_requests_in_flight", "Requests in progress")
        self.errors = counter("sonde_errors", "Error answers by code", ["code"])
        self.shed = counter("sonde_shed", "Requests refused before any work", ["reason"])
        self.quota_refusals = counter("sonde_quota_refusals", "Jobs, files and feedback refused by a quota", ["reason"])
        self.key_requests = counter(
            "sonde_key_requests", "Requests by API key and outcome; the keys beyond 100 are `other`", ["key", "outcome"]
        )
        self.key_tokens = counter("sonde_key_tokens", "Tokens of answered requests by API key", ["key"])
        self.client_gone = counter("sonde_client_gone", "Requests whose caller hung up before the answer")
        self.deadline_missed = counter("sonde_deadline_missed", "Requests that ran out of time")

        self.inputs = counter("sonde_inputs", "Texts, readings or rows of tensors received", ["model", "task"])
        self.truncated = counter("sonde_truncated_inputs", "Texts cut to the model's length", ["model", "task"])
        self.tokens = counter(
            "sonde_tokens",
            "Tokens computed, without padding; 16 readings or 256 numbers of a program count as one token",
            model,
        )
        self.tokenize = seconds("sonde_tokenize_seconds", "Time to tokenize one request", model)
        self.queue_wait = seconds("sonde_queue_wait_seconds", "Time from submission to the first batch", model)
        self.inference = seconds("sonde_inference_seconds", "Time of one batch on the device", model)
        self.batch_items = histogram("sonde_batch_items", "Items of one batch", model, buckets=_ITEMS)
        self.batch_tokens = histogram(
            "sonde_batch_tokens", "Tokens of one batch, padding included where the model pads", model, buckets=_TOKENS
        )
        self.padding = histogram(
            "sonde_batch_padding_ratio",
            "Share of a batch's tokens that is padding; 0 for a packed forward pass",
            model,
            buckets=_SHARES,
        )
        self.duplicates = counter(
            "sonde_duplicate_items", "Items equal to another of their batch, computed once", model
        )
        self.batch_faults = counter("sonde_batch_faults", "Batches that failed or were split", ["model", "kind"])
        self.queue_items = gauge("sonde_queue_items", "Items in the queue", model)
        self.queue_tokens = gauge("sonde_queue_tokens", "Tokens in the queue", model)

        self.cache_hits = counter("sonde_cache_hits", "Rows found in the cache", model)
        self.cache_misses = counter("sonde_cache_misses", "Rows not found in the cache", model)
        self.cache_bytes = gauge("sonde_cache_bytes", "Bytes in the cache")
        self.fitted_hits = counter(
            "sonde_fitted_cache_hits", "Fitted reference and label sets found in the cache", model
        )
        self.fitted_misses = counter("sonde_fitted_cache_misses", "Reference and label sets fitted anew", model)
        self.model_info = gauge(
            "sonde_model_info", "Models in service", ["model", "version", "task", "device", "dtype", "reason"]
        )
        self.one_by_one = gauge(
            "sonde_model_one_by_one", "1 when a model's inputs share no batch, because its answers depend on it", model
        )
        self.device_memory = gauge("sonde_device_memory_bytes", "Memory of tensors on the device", ["device"])
        self.model_generation = gauge("sonde_model_generation", "Promotions and rollbacks of a model so far", model)
        self.reload_failures = counter("sonde_reload_failures", "Fine-tuned models that failed to load", model)
        self.drift = gauge("sonde_drift_detected", "1 when readings have drifted from a model's", ["model", "version"])
        self.ready = gauge("sonde_ready", "Server processes that take requests")
        self.registry_problems = gauge("sonde_registry_problems", "Models and alias files that cannot be followed now")
        self.keys_stale = gauge("sonde_keys_stale", "Server processes that cannot read the keys file")
        for reason in SHED_REASONS:
            self.shed.labels(reason)
        for reason in QUOTA_REASONS:
            self.quota_refusals.labels(reason)

    def put_in_service(self, metadata: ModelMetadata) -> None:
        """Say that a model is in service."""
        self.model_info.labels(*_facts(metadata)).set(1)

    def take_out_of_service(self, metadata: ModelMetadata) -> None:
        """Say it no more."""
        self.model_info.remove(*_facts(metadata))

    def announce(self, model: str) -> None:
        """Create all series of a model, with zeros."""
        for metric in (
            self.tokens, self.tokenize, self.queue_wait, self.inference, self.batch_items, self.batch_tokens,
            self.padding, self.duplicates, self.queue_items, self.queue_tokens, self.cache_hits, self.cache_misses,
            self.fitted_hits, self.fitted_misses,
        ):  # fmt: skip
            metric.labels(model)
        for task in TASKS:
            self.inputs.labels(model, task)
            self.truncated.labels(model, task)
        for kind in BATCH_FAULTS:
            self.batch_faults.labels(model, kind)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that an Accept header asks for, and its media type. Blocks for milliseconds."""
        encode, media_type = choose_encoder(accept)
        return encode(self.shown), media_type


def _facts(metadata: ModelMetadata) -> tuple[str, ...]:
    """The labels of `sonde_model_info`."""
    return metadata.name, metadata.version, metadata.task, metadata.device, metadata.dtype, metadata.reason


class SupervisorMetrics:
    """The supervisor's metrics of its server processes."""

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.processes = Gauge("sonde_processes", "Server processes of --workers, by state", ["state"], registry=r)
        self.restarts = Counter("sonde_process_restarts", "Server processes started again after their end", registry=r)
        for state in PROCESS_STATES:
            self.processes.labels(state)


class JobMetrics:
    """A worker's metrics."""

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.jobs = Gauge("sonde_jobs", "Jobs of all workers, by status", ["status"], registry=r)
        self.workers = Gauge("sonde_workers", "Workers with a valid lease", registry=r)
        self.running = Gauge("sonde_job_running", "1 while this worker runs a job", registry=r)
        self.attempts = Counter("sonde_attempts", "Attempts of this worker, by outcome", ["outcome"], registry=r)
        self.attempt_seconds = Histogram("sonde_attempt_seconds", "Time of one attempt", buckets=_ATTEMPT, registry=r)
        self.heartbeat = Gauge(
            "sonde_heartbeat_timestamp_seconds", "When this worker last renewed its lease", registry=r
        )
        self.count({}, 0)
        for outcome in ATTEMPT_OUTCOMES:
            self.attempts.labels(outcome)

    def count(self, jobs: Mapping[str, int], workers: int) -> None:
        """Set the numbers of jobs by status and of live workers, as the database has them now."""
        for status in JOB_STATUSES:
            self.jobs.labels(status).set(jobs.get(status, 0))
        self.workers.set(workers)

    def ended(self, outcome: str, seconds: float) -> None:
        """Count an attempt that has ended."""
        self.attempts.labels(outcome).inc()
        self.attempt_seconds.observe(seconds)


def listen(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve metrics on another port, unless it is 0. Raises ConfigError for a port in use."""
    if not port:
        return
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        message = f"--metrics-port {port}: cannot listen on {host}: {error.strerror or error}"
        raise ConfigError(message, param="metrics_port") from error


def _keeping_series(kind: type[MetricT], *arguments: Any, **options: Any) -> MetricT:
    """A metric that finds its series by a dictionary alone; without it, a request looks up ten under a lock each.

    Such series are never removed.
    """
    metric = kind(*arguments, **options)
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric


def _registry() -> CollectorRegistry:
    """A registry with the build's version and the process's and Python's own metrics."""
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    Gauge("sonde_build_info", "Version of Sonde", ["version"], registry=registry).labels(VERSION).set(1)
    return registry
