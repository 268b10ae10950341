"""What a detector does on one plant, and on all plants of a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from benchmarks.families.detectors import Judge
from benchmarks.families.plant import Plant
from benchmarks.families.vus import vus_pr
from benchmarks.skab import Counts

_BUFFER = 20
Fit = Callable[[str, Plant], Judge]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows by verdict and label, VUS-PR, and the false-alarm rate on normal rows, where there are any."""

    counts: Counts
    vus_pr: float
    false_alarm_rate: float | None

    @classmethod
    def of(cls, judge: Judge, plant: Plant) -> Self:
        """Judge the readings after the training rows in the order of time."""
        scores, flagged = judge(np.concatenate([plant.later, plant.test]))
        clean = len(plant.later)
        rate = float(flagged[:clean].mean()) if clean else None
        return cls(Counts.of(flagged[clean:], plant.labels), vus_pr(plant.labels, scores[clean:], _BUFFER), rate)


def judge_all(fit: Fit, names: Sequence[str], plant: Plant) -> dict[str, Outcome]:
    """Each detector's outcome on one plant."""
    return {name: Outcome.of(fit(name, plant), plant) for name in names}


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """F1 and the false-alarm rate over the rows of all plants, mean VUS-PR, and the rates on normal rows."""
    counts = sum((one.counts for one in outcomes), Counts(0, 0, 0, 0))
    return {
        "f1": round(counts.f1, 4),
        "vus_pr": round(float(np.mean([one.vus_pr for one in outcomes])), 4),
        "false_alarms_beside_faults": round(counts.false_alarm_rate, 4),
        "false_alarm_rates": [round(one.false_alarm_rate, 4) for one in outcomes if one.false_alarm_rate is not None],
    }
