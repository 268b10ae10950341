"""The head of a job's report: its title, the verdict in words, and the metrics with plain labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.training.checks.wording import share_text
from models.training.metrics import FEW_ROWS
from models.training.report import Report
from models.training.report_labels import metric_label
from service.jobs.promotion_gate import DECIDING
from service.jobs.records import Job


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the new model, and of the version that served before where both were measured.

    `low` and `high` are the ends of its 95 % interval, where there is one.
    """

    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    served_before: float | None

    @property
    def text(self) -> str:
        """The value, with its interval."""
        interval = "" if self.low is None or self.high is None else f" ({self.low:.4g} to {self.high:.4g})"
        return f"{self.value:.4g}{interval}"


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What a reader of the report wants to know first."""

    title: str
    verdict: tuple[str, ...]
    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, job: Job, report: Report) -> ReportSummary:
        """Summarise a job, which may still run, and its report."""
        return cls(f"Report of {job.name} ({job.id})", tuple(_verdict(job, report)), tuple(_metrics(job)))


def _verdict(job: Job, report: Report) -> Iterator[str]:
    if job.status != "succeeded" or job.result is None:
        if job.error_code is None:
            yield f"The job is {job.status}; this is what it has checked so far."
        return
    yield _decision(job, job.result)
    yield from _quality(job.task, job.result.get("metrics") or {})
    shown = ("against_", "false_alarm_rate_0.05")
    yield from (one.message for one in report.of("outcome") if one.check.startswith(shown))


def _decision(job: Job, result: Mapping[str, Any]) -> str:
    why = str(result.get("why")).rstrip(".")
    if result.get("decision") == "promoted":
        return f"{job.fine_tuned_model} was promoted: {why}."
    return f"{job.fine_tuned_model} was held, so it does not serve: {why}."


def _quality(task: str, metrics: Mapping[str, float]) -> Iterator[str]:
    rows = f"{metrics.get('held_out_rows', 0):.0f}"
    if task == "classification" and "accuracy" in metrics and (count := round(metrics.get("held_out_rows", 0))):
        yield f"Its label is right for {share_text(round(metrics['accuracy'] * count), count)}."
    if task == "anomaly" and "auroc" in metrics:
        yield _ranking(metrics["auroc"], metrics.get("known_anomalies"))
    if task == "forecast" and (skill := metrics.get("primary")) is not None:
        side = "below" if skill >= 0 else "above"
        yield f"Its squared error is {abs(skill):.1%} {side} that of the best naive forecast."
    if task in ("embedding", "rerank"):
        for name in [one for one in DECIDING[task] if one in metrics and f"base_{one}" in metrics][:1]:
            label, ours, base = metric_label(name, task), metrics[name], metrics[f"base_{name}"]
            yield f"Its {label} is {ours:.3f}, that of the base model {base:.3f} ({rows} held-out rows)."


def _ranking(auroc: float, anomalies: float | None) -> str:
    """How a detector ranks; results of earlier versions do not say how many anomalies are known."""
    pairs = f"In {auroc:.1%} of pairs, a known anomaly scores above a normal row"
    if anomalies is None:
        return f"{pairs}."
    few = ", too few to say more" if anomalies < FEW_ROWS else ""
    return f"{pairs} ({anomalies:.0f} known{few})."


def _metrics(job: Job) -> Iterator[Metric]:
    result = job.result or {}
    metrics, before = result.get("metrics") or {}, result.get("incumbent_metrics") or {}
    ends = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    for name, value in metrics.items():
        if isinstance(value, int | float) and name not in ends:
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            yield Metric(name, metric_label(name, job.task), value, low, high, before.get(name))
