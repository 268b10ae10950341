"""The tables of the bench: a line per kind of table, a column per detector."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.records.detectors import ALPHA, AUTO
from benchmarks.tables import table

Figures = dict[str, dict[str, dict[str, Any]]]  # by kind and detector


def records(content: dict[str, Any]) -> list[str]:
    """F1 and average precision by kind, shares of faults, false-alarm rates, and what is chosen without each kind."""
    figures: Figures = content["rounds"][-1]
    lines = ["F1 at alpha 0.05, over the rows of a kind:", "", *_by_kind(figures, "f1"), ""]
    for name, title in (("average_precision", "Average precision"), ("auroc", "AUROC")):
        lines += [f"{title}, mean over the tables of a kind:", "", *_by_kind(figures, name), ""]
    lines += [
        "The share of faulty rows that is found at alpha 0.05, and false-alarm rates:",
        "",
        *_by_fault(figures),
        "",
    ]
    return [*lines, "`auto` beside the single detector that is best on all other kinds:", "", *_left_out(figures)]


def chosen_without(kind: str, figures: Figures) -> str:
    """The detector of Sonde with the best mean F1 on all kinds but one."""
    rest = [by for other, by in figures.items() if other != kind]
    names = [name for name in rest[0] if name != AUTO and not name.startswith("PyOD")]
    return max(names, key=lambda name: float(np.mean([by[name]["f1"] for by in rest])))


def _by_kind(figures: Figures, name: str) -> list[str]:
    detectors = list(next(iter(figures.values())))
    rows = [[kind, *(f"{by[one][name]:.3f}" for one in detectors)] for kind, by in figures.items()]
    means = [f"{np.mean([by[one][name] for by in figures.values()]):.3f}" for one in detectors]
    return table(["kind", *detectors], [*rows, ["mean", *means]])


def _by_fault(figures: Figures) -> list[str]:
    detectors = list(next(iter(figures.values())))
    faults = list(next(iter(figures.values()))[AUTO]["found"])
    rows = [
        [fault, *(f"{np.mean([by[one]['found'][fault] for by in figures.values()]):.0%}" for one in detectors)]
        for fault in faults
    ]
    rates = [np.array([rate for by in figures.values() for rate in by[one]["false_alarm_rates"]]) for one in detectors]
    within = [(np.abs(values - ALPHA) <= ALPHA / 2).mean() for values in rates]
    rows += [["false-alarm rate, median", *(f"{np.median(values):.3f}" for values in rates)]]
    rows += [["false-alarm rate, worst", *(f"{values.max():.3f}" for values in rates)]]
    return table(["", *detectors], [*rows, ["tables within 50 % of alpha", *(f"{share:.0%}" for share in within)]])


def _left_out(figures: Figures) -> list[str]:
    rows = []
    for kind, by in figures.items():
        alone = chosen_without(kind, figures)
        took = ", ".join(dict.fromkeys(by[AUTO]["took"]))
        rows.append([kind, took, f"{by[AUTO]['f1']:.3f}", alone, f"{by[alone]['f1']:.3f}"])
    columns = np.array([[float(row[2]), float(row[4])] for row in rows])
    means = [f"{value:.3f}" for value in columns.mean(axis=0)]
    heading = ["kind", "`auto` takes", "F1", "best on the other kinds", "F1"]
    return table(heading, [*rows, ["mean", "", means[0], "", means[1]]])
