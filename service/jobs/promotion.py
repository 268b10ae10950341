"""Whether a trained model goes into service: a decision on numbers, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# The number of each task that decides, on the held-out rows; higher is better. The first that a result has is taken.
DECIDING: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy"),
    "embedding": ("ndcg_at_10", "mrr", "spearman", "triplet_accuracy"),
    "anomaly": ("auroc", "primary"),
    "forecast": ("primary",),
    "rerank": ("ndcg_at_10", "average_precision", "mrr", "accuracy"),
}
_ROUNDING = 1e-6
_BASE = "base_"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a result must not be worse than: what to call it before and after the promotion, and its numbers on the
    same rows.
    """

    now: str
    then: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Promote, or hold and let a person decide."""

    promote: bool
    why: str


def decide(
    result: Mapping[str, Any],
    *,
    serves: bool,
    reproduces: Callable[[], str | None],
    auto_promote: bool,
    max_ece: float,
    incomparable: str | None = None,
) -> Decision:
    """Promote what reproduces its golden rows, is calibrated, and is not worse than what serves now on the same
    held-out rows.

    `result` is the trainer's result.json; `serves` says whether a version served under the name when training began,
    whose numbers are `incumbent_metrics` there. Where none did, the base model is the rival, if `metrics` has its
    numbers (`base_…`). `incomparable` says why what serves is no rival at all. `reproduces` says what is wrong with
    the published artifact, or None. The first objection is the reason.
    """
    rival = (
        Baseline("what serves now", "what served before", result.get("incumbent_metrics") or {})
        if serves
        else _base(result["metrics"])
    )
    objection = reproduces() or _calibration(result, max_ece) or incomparable or _comparison(result, rival)
    if objection:
        return Decision(False, objection)
    if not auto_promote:
        return Decision(False, f"it passes the gate ({_praise(result, rival)}); auto_promote is off")
    return Decision(True, _praise(result, rival))


def _calibration(result: Mapping[str, Any], most: float) -> str | None:
    ece = result["metrics"].get("ece")
    if ece is None or ece <= most:
        return None
    return f"its expected calibration error is {ece:.4f}, more than {most:g}"


def _base(metrics: Mapping[str, Any]) -> Baseline | None:
    numbers = {name.removeprefix(_BASE): value for name, value in metrics.items() if name.startswith(_BASE)}
    return Baseline("the base model", "the base model", numbers) if numbers else None


def _comparison(result: Mapping[str, Any], rival: Baseline | None) -> str | None:
    if rival is None:
        return None
    name, now, then = _numbers(result, rival)
    if not rival.numbers:
        return (
            f"it cannot be compared with {rival.now}, which was not measured on the held-out rows: the job's "
            f"events say why"
        )
    if name is None:
        return f"it cannot be compared with {rival.now}: they have no deciding number in common"
    if now < then - _ROUNDING:
        return f"its {name} on the held-out rows is {now:.4f}, less than the {then:.4f} of {rival.now}"
    return None


def _numbers(result: Mapping[str, Any], rival: Baseline) -> tuple[str | None, float, float]:
    for name in DECIDING.get(result["task"], ()):
        now, then = result["metrics"].get(name), rival.numbers.get(name)
        if now is not None and then is not None:
            return name, float(now), float(then)
    return None, 0.0, 0.0


def _praise(result: Mapping[str, Any], rival: Baseline | None) -> str:
    if rival is None:
        return "nothing served under this name before"
    name, now, then = _numbers(result, rival)
    return f"{name} on the held-out rows is {now:.4f}, against {then:.4f} of {rival.then}"
