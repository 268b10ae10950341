"""Whether a trained model goes into service: a decision by its metrics, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.training.report_labels import metric_label

# By task, the metrics on the held-out rows that decide; higher is better. The first that both models have counts.
DECIDING: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy"),
    "embedding": ("ndcg_at_10", "mrr", "spearman", "triplet_accuracy"),
    "anomaly": ("auroc", "primary"),
    "forecast": ("primary",),
    "rerank": ("ndcg_at_10", "average_precision", "mrr", "accuracy"),
}
_HELD_OUT, _BOUND = "the held-out rows", "the rows bound to this name"
_ROUNDING = 1e-6
_BASE = "base_"


@dataclass(frozen=True, slots=True)
class BaselineMetrics:
    """The metrics that a result must reach on the same rows, and the model's name before and after a promotion."""

    now: str
    then: str
    metrics: Mapping[str, Any]
    rows: str = _HELD_OUT


@dataclass(frozen=True, slots=True)
class Decision:
    """Promote, or hold and let a person decide."""

    promote: bool
    why: str


def decide(
    result: Mapping[str, Any],
    *,
    serves: bool,
    wrong: str | None,
    auto_promote: bool,
    max_ece: float,
    incomparable: str | None = None,
    bound: str | None = None,
    not_permitted: str | None = None,
    withdrawn: bool = False,
) -> Decision:
    """Promote a model that reproduces its golden rows, is calibrated, finds faults, and is not worse than the baseline.

    The baseline is the model that served when training began, or last before a withdrawal. Without one, it is the base
    model where it was measured. On the rows bound to the name, it is the model that served. The first objection is the
    reason to hold.

    Args:
        result: `result.json` of the training process. The baseline's metrics are its `incumbent_metrics`, or those of
            `metrics` that begin with `base_`.
        serves: Whether there is such a model.
        wrong: What is wrong with the published artifact, or None.
        auto_promote: Whether a model that passes is promoted.
        max_ece: The largest expected calibration error to promote.
        incomparable: Why the model that served is no baseline at all.
        bound: The SHA-256 of the rows bound to the name.
        not_permitted: Why the job's key may not promote versions of the name.
        withdrawn: Whether the name is out of service.
    """
    now = "what served last" if withdrawn else "what serves now"
    baseline = _incumbent(result, now) if serves else _base_model(result["metrics"])
    judges = _bound_baseline(result, now) if bound and serves else None
    objection = (
        wrong
        or _calibration_objection(result, max_ece)
        or _power_objection(result["metrics"])
        or incomparable
        or (_bound_objection(result, bound) if bound else None)
        or _metric_objection(result["task"], _bound_metrics(result), judges)
        or _metric_objection(result["task"], result["metrics"], baseline)
    )
    if objection:
        return Decision(False, objection)
    praise = _describe_success(result, baseline, judges)
    if not_permitted:
        return Decision(False, f"{not_permitted}. By the job's own rows it passes the gate: {praise}")
    if not auto_promote:
        return Decision(False, f"it passes the gate ({praise}); auto_promote is off")
    return Decision(True, praise)


def _calibration_objection(result: Mapping[str, Any], max_ece: float) -> str | None:
    """Why the calibration error is too large beyond chance: the lower end of its interval counts."""
    metrics = result["metrics"]
    ece = metrics.get("ece")
    low = metrics.get("ece_low", ece)  # results of version 0.1.0 have no interval
    if ece is None or low <= max_ece:
        return None
    interval = f" ({low:.4f} or more beyond chance)" if "ece_low" in metrics else ""
    return f"its expected calibration error is {ece:.4f}{interval}, more than {max_ece:g}"


def _power_objection(metrics: Mapping[str, Any]) -> str | None:
    """Why a detector of readings raises no alarm where it should."""
    if metrics.get("power") == 0:
        return "it finds none of the faults that were put into the held-out rows, however large"
    if metrics.get("recall") == 0 and metrics.get("auroc") is not None:
        return "it finds none of the labelled faults in the held-out rows"
    return None


def _incumbent(result: Mapping[str, Any], now: str) -> BaselineMetrics:
    return BaselineMetrics(now, "what served before", result.get("incumbent_metrics") or {})


def _base_model(metrics: Mapping[str, Any]) -> BaselineMetrics | None:
    measured = {name.removeprefix(_BASE): value for name, value in metrics.items() if name.startswith(_BASE)}
    return BaselineMetrics("the base model", "the base model", measured) if measured else None


def _bound_metrics(result: Mapping[str, Any]) -> Mapping[str, Any]:
    return (result.get("bound") or {}).get("metrics") or {}


def _bound_baseline(result: Mapping[str, Any], now: str) -> BaselineMetrics:
    """What the result must reach on the rows bound to the name."""
    metrics = (result.get("bound") or {}).get("incumbent_metrics") or {}
    return BaselineMetrics(now, "what served before", metrics, _BOUND)


def _bound_objection(result: Mapping[str, Any], sha256: str) -> str | None:
    """Why the result was not measured on the rows that are bound now."""
    measured = result.get("bound") or {}
    if measured.get("sha256") != sha256:
        return "rows were bound to this name after its training began, so they did not judge it: start the job again"
    objection: str | None = measured.get("objection")
    return objection


def _metric_objection(task: str, metrics: Mapping[str, Any], baseline: BaselineMetrics | None) -> str | None:
    if baseline is None:
        return None
    if not baseline.metrics:
        why = f"which was not measured on {baseline.rows}: the job's events say why"
        return f"it cannot be compared with {baseline.now}, {why}"
    name, now, then = _deciding_metric(task, metrics, baseline)
    if name is None:
        return f"it cannot be compared with {baseline.now}: they have no deciding number in common on {baseline.rows}"
    if not now >= then - _ROUNDING:  # false for NaN, which is not better than any number
        label = metric_label(name, task)
        return f"its {label} on {baseline.rows} is {now:.4f}, less than the {then:.4f} of {baseline.now}"
    return None


def _deciding_metric(
    task: str, metrics: Mapping[str, Any], baseline: BaselineMetrics
) -> tuple[str | None, float, float]:
    for name in DECIDING.get(task, ()):
        now, then = metrics.get(name), baseline.metrics.get(name)
        if now is not None and then is not None:
            return name, float(now), float(then)
    return None, 0.0, 0.0


def _describe_success(
    result: Mapping[str, Any], baseline: BaselineMetrics | None, bound: BaselineMetrics | None
) -> str:
    if baseline is None:
        return "nothing served under this name before"
    compared = [(result["metrics"], baseline)] + ([(_bound_metrics(result), bound)] if bound else [])
    return "; ".join(_describe_lead(result["task"], metrics, than) for metrics, than in compared)


def _describe_lead(task: str, metrics: Mapping[str, Any], baseline: BaselineMetrics) -> str:
    name, now, then = _deciding_metric(task, metrics, baseline)
    label = "its metric" if name is None else metric_label(name, task)
    return f"{label} on {baseline.rows} is {now:.4f}, against {then:.4f} of {baseline.then}"
