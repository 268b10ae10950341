"""The tables of the bench: a line per family, a column per detector."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.families.choice import chosen_without
from benchmarks.tables import table

_GIVEN = ("SKAB", "NAB")
_ALPHA = 0.05
Figures = dict[str, dict[str, dict[str, Any]]]  # by family and detector


def families(content: dict[str, Any]) -> list[str]:
    """F1 and VUS-PR by family, and false-alarm rates, of every detector."""
    figures: Figures = content["rounds"][-1]
    lines = [
        "Without labels `auto` takes `ensemble`.",
        "",
        "F1 at alpha 0.05, over the rows of a family:",
        "",
        *_by_family(figures, "f1"),
        "",
    ]
    lines += ["VUS-PR, mean over the plants of a family:", "", *_by_family(figures, "vus_pr"), ""]
    lines += ["False-alarm rates at alpha 0.05 on later normal readings of the simulated plants:", ""]
    return [*lines, *_rates(figures)]


def choice(content: dict[str, Any]) -> list[str]:
    """What is chosen without each family, how it does there, and the best configuration of that family."""
    figures: Figures = content["rounds"][-1]
    rows = []
    for family, by in figures.items():
        chosen, best = chosen_without(family, figures), max(by, key=lambda one: by[one]["f1"])
        rows.append([family, chosen, *_told(by[chosen]), best, *_told(by[best])])
    heading = ["left out", "chosen without it", "F1", "VUS-PR", "false alarms"]
    lines = table([*heading, "best with it in view", "F1", "VUS-PR", "false alarms"], rows)
    return [*lines, "", f"Chosen on all families: {chosen_without(None, figures)}."]


def _told(figures: dict[str, Any]) -> list[str]:
    return [f"{figures[name]:.3f}" for name in ("f1", "vus_pr", "false_alarms_beside_faults")]


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
