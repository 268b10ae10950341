"""The fifth rung for a detector of numbers: is it better than limits on each column, and than what serves now?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.training import metrics
from models.training.data.table import Doubles
from models.training.metrics import Interval
from models.training.report import Finding

ALPHA = 0.05
_RESAMPLES = 200
_TRIVIAL = "the largest robust z-score"
_INCUMBENT = "what serves now"
_DO_WITHOUT = (
    "A limit on each column does as well: try another detector, add columns that hang together, or do without a model."
)
_KEEP = "Keep what serves now, or see what changed: other rows, other columns, another detector."

Marks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a detector says of rows [n] in the order of time: their scores, and which are alarms at alpha 0.05."""

    scores: NDArray[np.floating]
    alarms: Marks

    def of(self, rows: NDArray[np.int64]) -> Predictions:
        """What it says of some of them."""
        return Predictions(self.scores[rows], self.alarms[rows])


Measure = Callable[[Predictions, Marks], float]


def check_trivial(
    ours: Predictions, trivial: Predictions, strange: Marks, stride: int, *, seed: int
) -> Iterator[Finding]:
    """AUROC and F1 by labels [n] against those of a rival that anybody could have: fine where ours is better beyond
    chance.

    Intervals hold 95 % of a bootstrap over blocks of `stride` rows, since neighbours resemble each other.
    """
    for check, lead, message in _by_labels(ours, trivial, _TRIVIAL, strange, stride, seed):
        yield _finding(f"{check}_trivial", lead.low > 0, lead, message, _DO_WITHOUT)


def check_incumbent(
    ours: Predictions, theirs: Predictions, strange: Marks, stride: int, *, seed: int
) -> Iterator[Finding]:
    """The same against what serves now, on the same rows; without both kinds of labels by who keeps alpha better.
    Not fine where ours is worse beyond chance.
    """
    if strange.any() and not strange.all():
        for check, lead, message in _by_labels(ours, theirs, _INCUMBENT, strange, stride, seed):
            yield _finding(f"{check}_incumbent", lead.high >= 0, lead, message, _KEEP)
        return
    lead = _lead(alarm_rate_error, ours, theirs, strange, stride, seed)
    figures = (
        f"The false-alarm rate at alpha {ALPHA} is {ours.alarms.mean():.2%}, that of {_INCUMBENT} "
        f"{theirs.alarms.mean():.2%}"
    )
    yield _finding(
        "against_incumbent", lead.high >= 0, lead, f"{figures}; it is nearer to alpha by {lead}: {lead.verdict}.", _KEEP
    )


def auroc(said: Predictions, strange: Marks) -> float:
    """The chance that a strange row scores higher than a normal one."""
    return metrics.auroc(said.scores[~strange], said.scores[strange])


def f1(said: Predictions, strange: Marks) -> float:
    """F1 of the alarms: 0 where none is right."""
    return float(2 * (said.alarms & strange).sum() / max(int(said.alarms.sum() + strange.sum()), 1))


def alarm_rate_error(said: Predictions, strange: Marks) -> float:
    """How near the share of alarms is to alpha: 0 at best."""
    return -float(abs(said.alarms.mean() - ALPHA))


def robust_z(x: Doubles, normal: Doubles) -> Doubles:
    """The largest distance of rows [n, d] from the median of normal rows [m, d], in units of their interquartile
    range: [n].
    """
    low, middle, high = np.quantile(normal, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, np.inf)
    return np.asarray((np.abs(x - middle) / spread).max(axis=1))


def limits(x: Doubles, normal: Doubles) -> Predictions:
    """The trivial rival: the largest robust z-score of rows [n, d], an alarm where it is beyond 95 % of those of
    normal rows [m, d].
    """
    scores = robust_z(x, normal)
    return Predictions(scores, scores > np.quantile(robust_z(normal, normal), 1 - ALPHA))


def _by_labels(
    ours: Predictions, theirs: Predictions, rival: str, strange: Marks, stride: int, seed: int
) -> Iterator[tuple[str, Interval, str]]:
    """Check, lead and message of what labels tell of both."""
    for check, name, measure in (("against", "AUROC", auroc), ("f1_against", f"F1 at alpha {ALPHA}", f1)):
        lead = _lead(measure, ours, theirs, strange, stride, seed)
        figures = f"{name} is {measure(ours, strange):.3f}, that of {rival} {measure(theirs, strange):.3f}"
        yield check, lead, f"{figures}; the lead is {lead}: {lead.verdict}."


def _lead(measure: Measure, ours: Predictions, theirs: Predictions, strange: Marks, stride: int, seed: int) -> Interval:
    """Of resamples that have the kinds of rows that all have: no AUROC is told from one kind."""
    rows, random = np.arange(len(strange)), np.random.default_rng(seed)
    blocks = np.array_split(rows, max(len(rows) // stride, 1))
    leads = [measure(ours, strange) - measure(theirs, strange)]
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([blocks[block] for block in random.integers(0, len(blocks), len(blocks))])
        if _kinds(strange[drawn]) == _kinds(strange):
            leads.append(measure(ours.of(drawn), strange[drawn]) - measure(theirs.of(drawn), strange[drawn]))
    low, high = np.quantile(leads, [0.025, 0.975])
    return Interval(leads[0], float(low), float(high))


def _kinds(strange: Marks) -> int:
    return int(strange.any()) + int(not strange.all())


def _finding(check: str, fine: bool, lead: Interval, message: str, remedy: str) -> Finding:
    return Finding("outcome", check, "ok" if fine else "warn", lead.value, 0.0, message, "" if fine else remedy)
