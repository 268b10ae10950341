"""What is counted of a request."""

from __future__ import annotations

from prometheus_client.samples import Sample

from service.api.request_context import MOST_KEYS, RequestReports
from service.auth import Key
from service.errors import RateLimited
from service.key_limits import KeyLimits
from service.metrics import Metrics


def samples(metrics: Metrics, name: str) -> list[Sample]:
    found = next(family for family in metrics.registry.collect() if family.name == name)
    return [sample for sample in found.samples if sample.name == f"{name}_total"]


def test_at_most_a_hundred_keys_have_series_of_their_own() -> None:
    metrics = Metrics()
    reports = RequestReports(metrics, KeyLimits())

    def answer(key: str, status: int, tokens: int, error_code: str = "") -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/embeddings"}
        context = reports.begin(scope, {})
        context.key, context.status, context.error_code = Key(key, ("infer",), "", 0), status, error_code
        context.facts["tokens"] = tokens
        reports.end(scope, context)

    for number in range(MOST_KEYS + 5):
        answer(f"key-{number}", 200, 2)
    answer("key-0", 429, 0, RateLimited.code)
    counted = samples(metrics, "sonde_key_tokens")
    assert len(counted) == MOST_KEYS + 1
    assert {one.value for one in counted if one.labels["key"] == "other"} == {10.0}
    asked = samples(metrics, "sonde_key_requests")
    assert {one.labels["outcome"] for one in asked if one.labels["key"] == "key-0"} == {"ok", "limited"}
