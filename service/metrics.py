"""Every metric, named once. Series whose labels are known beforehand exist from the start, with zeros, for alerts to
find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.registry import Collector

from service.errors import ConfigError

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_ATTEMPT = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_SHARES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75)

TASKS = ("embedding", "classification", "anomaly", "rerank", "forecast")
SHED_REASONS = ("items", "tokens", "not_ready")
BATCH_FAULTS = ("bisected", "out_of_memory", "invalid_output")
JOB_STATUSES = ("queued", "validating_files", "running", "paused", "succeeded", "failed", "cancelled")
PROCESS_STATES = ("starting", "ready", "draining")
# How an attempt at a job ends: with the job, paused, so that the job is queued again, or as another worker's.
ATTEMPT_OUTCOMES = ("succeeded", "failed", "cancelled", "paused", "queued", "lost")

# What several processes say of the same thing is added up, but here: all have the model or see the drift, and a
# generation is in service when the last of them has it.
TOGETHER: Mapping[str, Callable[[float, float], float]] = {
    "sonde_model_info": max,
    "sonde_drift_detected": max,
    "sonde_model_generation": min,
}


class Metrics:
    """The service's metrics in a registry of their own. `shown` is what is rendered, other processes' included where
    there are any.
    """

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.shown: Collector = r
        self.requests = Counter(
            "sonde_requests", "Requests answered, by route and status", ["route", "status"], registry=r
        )
        self.latency = Histogram(
            "sonde_request_seconds", "Time from first byte to answer", ["route"], buckets=_LATENCY, registry=r
        )
        self.in_flight = Gauge("sonde_requests_in_flight", "Requests being answered", registry=r)
        self.errors = Counter("sonde_errors", "Error answers by code", ["code"], registry=r)
        self.shed = Counter("sonde_shed", "Requests refused before any work", ["reason"], registry=r)
        self.client_gone = Counter("sonde_client_gone", "Callers that hung up before their answer", registry=r)
        self.deadline_missed = Counter("sonde_deadline_missed", "Requests whose time ran out", registry=r)

        self.inputs = Counter("sonde_inputs", "Texts or readings taken in", ["model", "task"], registry=r)
        self.truncated = Counter(
            "sonde_truncated_inputs", "Texts cut to the model's length", ["model", "task"], registry=r
        )
        self.tokens = Counter(
            "sonde_tokens", "Tokens computed, padding not counted; 16 readings count as one", ["model"], registry=r
        )
        self.tokenize = Histogram(
            "sonde_tokenize_seconds", "Tokenising one request", ["model"], buckets=_LATENCY, registry=r
        )
        self.queue_wait = Histogram(
            "sonde_queue_wait_seconds", "From queued to first computed", ["model"], buckets=_LATENCY, registry=r
        )
        self.inference = Histogram(
            "sonde_inference_seconds", "One batch on the device", ["model"], buckets=_LATENCY, registry=r
        )
        self.batch_items = Histogram("sonde_batch_items", "Items of one batch", ["model"], buckets=_ITEMS, registry=r)
        self.batch_tokens = Histogram(
            "sonde_batch_tokens",
            "Tokens of one batch, each text as long as the longest where the model pads",
            ["model"],
            buckets=_TOKENS,
            registry=r,
        )
        self.padding = Histogram(
            "sonde_batch_padding_ratio",
            "Share of those tokens that is padding; 0 for a packed forward pass on a CPU",
            ["model"],
            buckets=_SHARES,
            registry=r,
        )
        self.duplicates = Counter(
            "sonde_duplicate_items", "Items of a batch equal to another of it, computed once", ["model"], registry=r
        )
        self.batch_faults = Counter(
            "sonde_batch_faults", "Batches that failed and were cut", ["model", "kind"], registry=r
        )
        self.queue_items = Gauge("sonde_queue_items", "Items waiting", ["model"], registry=r)
        self.queue_tokens = Gauge("sonde_queue_tokens", "Tokens waiting", ["model"], registry=r)

        self.cache_hits = Counter("sonde_cache_hits", "Rows found in the cache", ["model"], registry=r)
        self.cache_misses = Counter("sonde_cache_misses", "Rows not found in the cache", ["model"], registry=r)
        self.cache_bytes = Gauge("sonde_cache_bytes", "Bytes the cache holds", registry=r)
        self.fitted_hits = Counter(
            "sonde_fitted_cache_hits", "Reference and label sets found ready", ["model"], registry=r
        )
        self.fitted_misses = Counter(
            "sonde_fitted_cache_misses", "Reference and label sets that had to be fitted", ["model"], registry=r
        )
        self.model_info = Gauge(
            "sonde_model_info", "Models in service", ["model", "version", "task", "device", "dtype"], registry=r
        )
        self.device_memory = Gauge(
            "sonde_device_memory_bytes", "Memory that tensors hold on the device", ["device"], registry=r
        )
        self.model_generation = Gauge(
            "sonde_model_generation", "How often what serves under a name was changed", ["model"], registry=r
        )
        self.reload_failures = Counter(
            "sonde_reload_failures", "Trained models that could not be loaded", ["model"], registry=r
        )
        self.drift = Gauge(
            "sonde_drift_detected", "1 when a detector no longer fits what it reads", ["model", "version"], registry=r
        )
        self.ready = Gauge("sonde_ready", "How many processes take requests", registry=r)
        for reason in SHED_REASONS:
            self.shed.labels(reason)

    def announce(self, model: str) -> None:
        """Make all series of a model exist, with zeros."""
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

    def render(self) -> bytes:
        """Prometheus' text format. Blocks for milliseconds."""
        return generate_latest(self.shown)


class SupervisorMetrics:
    """What the parent of several processes tells of them, in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.processes = Gauge("sonde_processes", "Processes of --workers, by state", ["state"], registry=r)
        self.restarts = Counter(
            "sonde_process_restarts", "Processes of --workers that ended and were started again", registry=r
        )
        for state in PROCESS_STATES:
            self.processes.labels(state)


class JobMetrics:
    """A worker's metrics in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = _registry()
        self.jobs = Gauge("sonde_jobs", "Jobs of all workers, by status", ["status"], registry=r)
        self.workers = Gauge("sonde_workers", "Workers whose lease is in force", registry=r)
        self.running = Gauge("sonde_job_running", "1 while this worker runs a job", registry=r)
        self.attempts = Counter(
            "sonde_attempts", "Attempts of this worker at jobs, by how they ended", ["outcome"], registry=r
        )
        self.attempt_seconds = Histogram(
            "sonde_attempt_seconds", "How long an attempt took", buckets=_ATTEMPT, registry=r
        )
        self.heartbeat = Gauge(
            "sonde_heartbeat_timestamp_seconds", "When this worker last renewed its lease", registry=r
        )
        self.count({}, 0)
        for outcome in ATTEMPT_OUTCOMES:
            self.attempts.labels(outcome)

    def count(self, jobs: Mapping[str, int], workers: int) -> None:
        """What the database says now: jobs by status, and workers that are alive."""
        for status in JOB_STATUSES:
            self.jobs.labels(status).set(jobs.get(status, 0))
        self.workers.set(workers)

    def ended(self, outcome: str, seconds: float) -> None:
        """An attempt is over."""
        self.attempts.labels(outcome).inc()
        self.attempt_seconds.observe(seconds)


def listen(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve metrics on a port of their own, from a thread; port 0 is off. Raises ConfigError when it cannot be
    listened on.
    """
    if not port:
        return
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"--metrics-port {port}: cannot listen on {host}: {error.strerror or error}", param="metrics_port"
        ) from error


def _registry() -> CollectorRegistry:
    """An empty registry but for the process's and Python's own metrics."""
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry
