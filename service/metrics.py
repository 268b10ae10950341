"""Every metric, named once. Series whose labels are known beforehand exist from the start, with zeros, for alerts to find."""

from __future__ import annotations

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_SHARES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75)

TASKS = ("embedding", "classification", "anomaly", "rerank", "forecast")
SHED_REASONS = ("items", "tokens", "not_ready")
BATCH_FAULTS = ("bisected", "out_of_memory", "invalid_output")


class Metrics:
    """The service's metrics in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            r.register(collector)
        self.requests = Counter("sonde_requests", "Requests answered, by route and status", ["route", "status"], registry=r)
        self.latency = Histogram("sonde_request_seconds", "Time from first byte to answer", ["route"], buckets=_LATENCY, registry=r)
        self.in_flight = Gauge("sonde_requests_in_flight", "Requests being answered", registry=r)
        self.errors = Counter("sonde_errors", "Error answers by code", ["code"], registry=r)
        self.shed = Counter("sonde_shed", "Requests refused before any work", ["reason"], registry=r)
        self.client_gone = Counter("sonde_client_gone", "Callers that hung up before their answer", registry=r)
        self.deadline_missed = Counter("sonde_deadline_missed", "Requests whose time ran out", registry=r)

        self.inputs = Counter("sonde_inputs", "Texts or readings taken in", ["model", "task"], registry=r)
        self.truncated = Counter("sonde_truncated_inputs", "Texts cut to the model's length", ["model", "task"], registry=r)
        self.tokens = Counter("sonde_tokens", "Tokens computed, padding not counted; 16 readings count as one", ["model"], registry=r)
        self.tokenize = Histogram("sonde_tokenize_seconds", "Tokenising one request", ["model"], buckets=_LATENCY, registry=r)
        self.queue_wait = Histogram("sonde_queue_wait_seconds", "From queued to first computed", ["model"], buckets=_LATENCY, registry=r)
        self.inference = Histogram("sonde_inference_seconds", "One batch on the device", ["model"], buckets=_LATENCY, registry=r)
        self.batch_items = Histogram("sonde_batch_items", "Items of one batch", ["model"], buckets=_ITEMS, registry=r)
        self.batch_tokens = Histogram(
            "sonde_batch_tokens", "Tokens of one batch, each text as long as the longest", ["model"], buckets=_TOKENS, registry=r
        )
        self.padding = Histogram(
            "sonde_batch_padding_ratio",
            "Share of those tokens that is padding; a packed forward pass computes none of it",
            ["model"],
            buckets=_SHARES,
            registry=r,
        )
        self.duplicates = Counter("sonde_duplicate_items", "Items of a batch equal to another of it, computed once", ["model"], registry=r)
        self.batch_faults = Counter("sonde_batch_faults", "Batches that failed and were cut", ["model", "kind"], registry=r)
        self.queue_items = Gauge("sonde_queue_items", "Items waiting", ["model"], registry=r)
        self.queue_tokens = Gauge("sonde_queue_tokens", "Tokens waiting", ["model"], registry=r)

        self.cache_hits = Counter("sonde_cache_hits", "Rows found in the cache", ["model"], registry=r)
        self.cache_misses = Counter("sonde_cache_misses", "Rows not found in the cache", ["model"], registry=r)
        self.cache_bytes = Gauge("sonde_cache_bytes", "Bytes the cache holds", registry=r)
        self.fitted_hits = Counter("sonde_fitted_cache_hits", "Reference and label sets found ready", ["model"], registry=r)
        self.fitted_misses = Counter("sonde_fitted_cache_misses", "Reference and label sets that had to be fitted", ["model"], registry=r)
        self.model_info = Gauge("sonde_model_info", "Models in service", ["model", "version", "task", "device", "dtype"], registry=r)
        self.device_memory = Gauge("sonde_device_memory_bytes", "Memory that tensors hold on the device", ["device"], registry=r)
        self.model_generation = Gauge("sonde_model_generation", "How often what serves under a name was changed", ["model"], registry=r)
        self.reload_failures = Counter("sonde_reload_failures", "Trained models that could not be loaded", ["model"], registry=r)
        self.drift = Gauge("sonde_drift_detected", "1 when a detector no longer fits what it reads", ["model", "version"], registry=r)
        self.ready = Gauge("sonde_ready", "1 when requests are taken", registry=r)
        for reason in SHED_REASONS:
            self.shed.labels(reason)

    def announce(self, model: str) -> None:
        """Make all series of a model exist, with zeros."""
        for metric in (
            self.tokens, self.tokenize, self.queue_wait, self.inference, self.batch_items, self.batch_tokens, self.padding, self.duplicates,
            self.queue_items, self.queue_tokens, self.cache_hits, self.cache_misses, self.fitted_hits, self.fitted_misses,
        ):  # fmt: skip
            metric.labels(model)
        for task in TASKS:
            self.inputs.labels(model, task)
            self.truncated.labels(model, task)
        for kind in BATCH_FAULTS:
            self.batch_faults.labels(model, kind)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
