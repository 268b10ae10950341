"""What the service has measured of a model, as Triton's clients read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from service.metrics import Metrics
from service.serving.servable import Servable

# Triton's names of our histograms of seconds.
_TIMES = {
    "queue": "sonde_queue_wait_seconds",
    "compute_input": "sonde_tokenize_seconds",
    "compute_infer": "sonde_inference_seconds",
}
_COUNTS = {"cache_hit": "sonde_cache_hits_total", "cache_miss": "sonde_cache_misses_total"}


def totals_by_model(metrics: Metrics) -> Mapping[tuple[str, str], float]:
    """The sum of each sample over its other labels, by sample and model, of all server processes together."""
    totals: Counter[tuple[str, str]] = Counter()
    for family in metrics.shown.collect():
        for sample in family.samples:
            if "model" in sample.labels:
                totals[sample.name, sample.labels["model"]] += sample.value  # type: ignore[assignment]  # not whole
    return totals


def model_statistics(served: Servable, totals: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """Inputs, batches and times of a model since the start.

    Triton counts whole requests as `success` and `fail`. Sonde counts those by route, not by model.
    """
    name = served.metadata.name

    def total(sample: str) -> float:
        return totals.get((sample, name), 0.0)

    times = {
        stat: {"count": int(total(f"{metric}_count")), "ns": round(1e9 * total(f"{metric}_sum"))}
        for stat, metric in _TIMES.items()
    }
    counts = {stat: {"count": int(total(metric)), "ns": 0} for stat, metric in _COUNTS.items()}
    return {
        "name": name,
        "version": served.metadata.version,
        "inference_count": int(total("sonde_inputs_total")),
        "execution_count": times["compute_infer"]["count"],
        "inference_stats": times | counts,
    }
