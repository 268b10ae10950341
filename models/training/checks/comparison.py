"""Outcome check of a detector against limits on each column and the served model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Doubles
from models.training import metrics
from models.training.checks.wording import lead_status, loss_status
from models.training.metrics import Interval
from models.training.report import Finding, Status

ALPHA = 0.05
_RESAMPLES = 200
_LIMITS = "the largest robust z-score"
_SERVED = "the served model"
_DROP_MODEL = "Try another detector or add related columns; otherwise set a limit on each column instead of a model."
_CHANGE_ALPHA = (
    "The scores rank these rows better than limits do: choose an `alpha` that raises the alarms you can answer."
)
_KEEP_SERVED = "Keep the served model, or check what changed: other rows, other columns, another detector."

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Scores and alarms (at alpha 0.05) of rows [n] in the order of time."""

    scores: NDArray[np.floating]
    alarms: Flags

    def of(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions of some rows."""
        return Predictions(self.scores[rows], self.alarms[rows])


Measure = Callable[[Predictions, Flags], float]


def check_trivial(
    ours: Predictions, trivial: Predictions, anomalous: Flags, stride: int, *, seed: int
) -> Iterator[Finding]:
    """Warn unless AUROC and F1 by labels [n] are better than those of `limits` beyond chance.

    Intervals hold 95 % of a bootstrap over blocks of `stride` rows, because neighbouring rows are alike.
    """
    remedy = _DROP_MODEL
    for check, lead, message in _compare_by_labels(ours, trivial, _LIMITS, anomalous, stride, seed):
        status = lead_status(lead, fails=False)
        yield _finding(f"{check}_trivial", status, lead, message, remedy)
        remedy = _CHANGE_ALPHA if status == "ok" else _DROP_MODEL


def check_incumbent(
    ours: Predictions, theirs: Predictions, anomalous: Flags, stride: int, *, seed: int
) -> Iterator[Finding]:
    """Compare with the served model on the same rows; warn where ours is worse beyond chance.

    Without labels of both kinds, the false-alarm rates are compared: the one nearer to alpha is better.
    """
    if anomalous.any() and not anomalous.all():
        for check, lead, message in _compare_by_labels(ours, theirs, _SERVED, anomalous, stride, seed):
            yield _finding(f"{check}_incumbent", loss_status(lead), lead, message, _KEEP_SERVED)
        return
    lead = _lead(alarm_rate_error, ours, theirs, anomalous, stride, seed)
    message = (
        f"The false-alarm rate at alpha {ALPHA} is {ours.alarms.mean():.2%}, that of {_SERVED} "
        f"{theirs.alarms.mean():.2%}; it is nearer to alpha by {lead}: {lead.verdict}."
    )
    yield _finding("against_incumbent", loss_status(lead), lead, message, _KEEP_SERVED)


def auroc(predictions: Predictions, anomalous: Flags) -> float:
    """The chance that an anomalous row scores higher than a normal one."""
    return metrics.auroc(predictions.scores[~anomalous], predictions.scores[anomalous])


def f1(predictions: Predictions, anomalous: Flags) -> float:
    """F1 of the alarms; 0 without any."""
    return float(metrics.class_f1(anomalous.astype(np.int64), predictions.alarms.astype(np.int64), 2)[1])


def alarm_rate_error(predictions: Predictions, _anomalous: Flags) -> float:
    """The distance of the alarm rate from alpha, negated: 0 is best."""
    return -float(abs(predictions.alarms.mean() - ALPHA))


def robust_z(x: Doubles, normal: Doubles) -> Doubles:
    """The largest robust z-score [n] of rows [n, d].

    It is the distance from the medians of normal rows [m, d], in interquartile ranges.
    """
    low, middle, high = np.quantile(normal, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.inf)
    return np.asarray((np.abs(x - middle) / spread).max(axis=1))


def limits(x: Doubles, normal: Doubles) -> Predictions:
    """The trivial baseline for rows [n, d]: a limit on `robust_z`.

    The limit is its 95 % quantile on normal rows [m, d].
    """
    scores = robust_z(x, normal)
    return Predictions(scores, scores > np.quantile(robust_z(normal, normal), 1 - ALPHA))


def _compare_by_labels(
    ours: Predictions, theirs: Predictions, baseline: str, anomalous: Flags, stride: int, seed: int
) -> Iterator[tuple[str, Interval, str]]:
    """The check, the lead and the message for AUROC and for F1."""
    for check, name, measure in (("against", "AUROC", auroc), ("f1_against", f"F1 at alpha {ALPHA}", f1)):
        lead = _lead(measure, ours, theirs, anomalous, stride, seed)
        figures = f"{name} is {measure(ours, anomalous):.3f}, that of {baseline} {measure(theirs, anomalous):.3f}"
        yield check, lead, f"{figures}; the lead is {lead}: {lead.verdict}."


def _lead(
    measure: Measure, ours: Predictions, theirs: Predictions, anomalous: Flags, stride: int, seed: int
) -> Interval:
    """Ours minus theirs, with a bootstrap over blocks of `stride` rows.

    Resamples that lost one of two labels are skipped.
    """
    random, count = np.random.default_rng(seed), max(len(anomalous) // stride, 1)
    bounds = np.cumsum([0, *map(len, np.array_split(anomalous, count))])
    leads = [measure(ours, anomalous) - measure(theirs, anomalous)]
    for _ in range(_RESAMPLES):
        drawn = _rows_of(bounds, random.integers(0, count, count))
        if _any_and_all(anomalous[drawn]) == _any_and_all(anomalous):
            leads.append(measure(ours.of(drawn), anomalous[drawn]) - measure(theirs.of(drawn), anomalous[drawn]))
    return Interval.of(leads[0], leads, 0.95, count)


def _rows_of(bounds: NDArray[np.int64], blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of blocks; block i has those from `bounds[i]` to `bounds[i + 1]`."""
    sizes = np.diff(bounds)[blocks]
    ends = sizes.cumsum()
    return np.repeat(bounds[blocks] - ends + sizes, sizes) + np.arange(ends[-1])


def _any_and_all(flags: Flags) -> tuple[bool, bool]:
    return bool(flags.any()), bool(flags.all())


def _finding(check: str, status: Status, lead: Interval, message: str, remedy: str) -> Finding:
    return Finding.of("outcome", check, status, lead.value, 0.0, message, remedy)
