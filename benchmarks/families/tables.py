"""The tables of the bench: a line per family, a column per detector."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.tables import table

_GIVEN = ("SKAB", "NAB")
_ALPHA = 0.05
Figures = dict[str, dict[str, dict[str, Any]]]  # by family and detector


def families(content: dict[str, Any]) -> list[str]:
    """F1 and VUS-PR by family, and false-alarm rates, of every detector."""
    figures: Figures = content["rounds"][-1]
    lines = ["F1 at alpha 0.05, over the rows of a family:", "", *_by_family(figures, "f1"), ""]
    lines += ["VUS-PR, mean over the plants of a family:", "", *_by_family(figures, "vus_pr"), ""]
    lines += ["False-alarm rates at alpha 0.05 on later normal readings of the simulated plants:", ""]
    return [*lines, *_rates(figures)]


def _by_family(figures: Figures, name: str) -> list[str]:
    detectors = list(next(iter(figures.values())))
    rows = [[family, *(f"{by[detector][name]:.3f}" for detector in detectors)] for family, by in figures.items()]
    simulated = [by for family, by in figures.items() if family not in _GIVEN]
    means = [f"{np.mean([by[detector][name] for by in simulated]):.3f}" for detector in detectors]
    return table(["family", *detectors], [*rows, ["mean of the simulated", *means]])


def _rates(figures: Figures) -> list[str]:
    detectors = list(next(iter(figures.values())))
    rates = {
        detector: np.array([rate for by in figures.values() for rate in by[detector]["false_alarm_rates"]])
        for detector in detectors
    }
    within = [float((np.abs(values - _ALPHA) <= _ALPHA / 2).mean()) for values in rates.values()]
    given = [family for family in _GIVEN if family in figures]
    rows = [
        ["median", *(f"{np.median(values):.3f}" for values in rates.values())],
        ["mean", *(f"{values.mean():.3f}" for values in rates.values())],
        ["worst", *(f"{values.max():.3f}" for values in rates.values())],
        ["share of plants within 50 % of alpha", *(f"{share:.0%}" for share in within)],
    ]
    rows += [
        [
            f"{family}, beside faults",
            *(f"{figures[family][one]['false_alarms_beside_faults']:.3f}" for one in detectors),
        ]
        for family in given
    ]
    return table(["", *detectors], rows)
