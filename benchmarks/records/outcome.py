"""What a detector does on one table, and on all tables of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.records.detectors import AUTO, Judge, choose, fit
from benchmarks.records.tables import FAULTS, FAULTY_ROWS, GeneratedTable
from benchmarks.skab import Counts


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows by verdict and label, how well the scores rank the faulty rows, and the share found of each fault."""

    counts: Counts
    auroc: float
    average_precision: float
    found: tuple[float, ...]

    @classmethod
    def of(cls, judge: Judge, table: GeneratedTable) -> Self:
        """Judge the later rows and the faulty ones."""
        labels = table.labels
        scores, flagged = judge(np.concatenate([table.later, table.faulty]))
        found = flagged[labels].reshape(len(FAULTS), FAULTY_ROWS).mean(axis=1)
        ranks = float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores))
        return cls(Counts.of(flagged, labels), *ranks, tuple(found.tolist()))


def judge_all(names: Sequence[str], table: GeneratedTable, *, networks: bool) -> dict[str, tuple[str, Outcome]]:
    """Each detector's outcome on one table; of `auto` that of the detector that it takes, with its name."""
    found = {name: (name, Outcome.of(fit(name, table), table)) for name in names}
    return {AUTO: found[choose(table, networks=networks)], **found}


def summary(results: Sequence[tuple[str, Outcome]]) -> dict[str, Any]:
    """F1 and false-alarm rate over the rows of all tables, mean ranks, and the share of each fault that is found."""
    outcomes = [outcome for _, outcome in results]
    counts = sum((one.counts for one in outcomes), Counts(0, 0, 0, 0))
    shares: list[float] = np.mean([one.found for one in outcomes], axis=0).round(4).tolist()
    return {
        "f1": round(counts.f1, 4),
        "auroc": round(float(np.mean([one.auroc for one in outcomes])), 4),
        "average_precision": round(float(np.mean([one.average_precision for one in outcomes])), 4),
        "false_alarm_rates": [round(one.counts.false_alarm_rate, 4) for one in outcomes],
        "found": dict(zip(FAULTS, shares, strict=True)),
        "took": [name for name, _ in results],
    }
