"""The bench of families: plants are repeatable, faults are seen in the readings, and VUS-PR is that of the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.families import __main__ as bench
from benchmarks.families import detectors, tables
from benchmarks.families.choice import chosen_without, configurations, fit_configuration
from benchmarks.families.faults import FAULTS, put_faults
from benchmarks.families.generators import FAMILIES
from benchmarks.families.outcome import judge_all, summary
from benchmarks.families.plant import LATER_ROWS, simulate
from benchmarks.families.vus import vus_pr

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", FAMILIES)
def test_plants_of_a_family_are_repeatable_and_differ(family: str) -> None:
    first, again, other = simulate(family, 0), simulate(family, 0), simulate(family, 1)
    assert np.array_equal(first.test, again.test)
    assert first.test.shape != other.test.shape or not np.array_equal(first.test, other.test)
    assert len(first.later) == len(first.test) == len(first.labels) == LATER_ROWS
    assert np.isfinite(first.train).all()
    assert (first.train.std(axis=0) > 0).any()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_changes_the_labelled_rows_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = np.random.default_rng(0).standard_normal((1200, 3)).cumsum(axis=0)
    for other in set(FAULTS) - {kind}:
        monkeypatch.delitem(FAULTS, other)
    readings, labels = put_faults(np.random.default_rng(0), clean, 4)
    assert 4 <= labels.sum() < 650
    assert np.array_equal(readings[~labels], clean[~labels])
    assert (readings[labels] != clean[labels]).any(axis=1).mean() > 0.1


# `RangeAUC_volume_opt(labels, scores, window)[5]` of vus 0.0.6, with ties and with labels at both ends.
@pytest.mark.parametrize(
    ("seed", "ends", "window", "expected"),
    [
        (0, False, 0, 0.4643674117350417),
        (0, False, 20, 0.627315640660849),
        (1, True, 0, 0.5354142455920441),
        (1, True, 20, 0.6075614552278866),
        (2, True, 20, 0.6288032601263591),
    ],
)
def test_vus_pr_is_that_of_the_package(seed: int, ends: bool, window: int, expected: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.zeros(200, np.bool_)
    labels[40:55] = labels[60:62] = labels[150:170] = True
    if ends:
        labels[:4] = labels[-6:] = True
    scores = random.standard_normal(200) + labels
    assert vus_pr(labels, np.round(scores, 1) if ends else scores, window) == pytest.approx(expected, abs=1e-12)


def test_a_small_bench_fills_its_tables(tmp_path: Path) -> None:
    names = ["level", detectors.BY_FAULTS]
    made = bench.plants([0], tmp_path, ["flow", "pulses"])
    figures = {
        plant.family: {name: summary([one]) for name, one in judge_all(detectors.fit, names, plant).items()}
        for plant in made
    }
    lines = tables.families({"rounds": [figures]})
    assert lines[4] == "| family | level | chosen by injected faults |"
    assert sum(line.startswith("| flow |") for line in lines) == 2
    rates = [figures[family][detectors.BY_FAULTS]["false_alarm_rates"] for family in figures]
    assert all(len(each) == 1 and 0 <= each[0] < 1 for each in rates)


def test_a_configuration_is_chosen_without_the_family_that_judges_it() -> None:
    def of(a: float, b: float, rate: float = 0.05) -> dict[str, dict[str, Any]]:
        return {"a": {"f1": a, "false_alarm_rates": [0.01]}, "b": {"f1": b, "false_alarm_rates": [rate]}}

    figures = {"one": of(0.9, 0.1), "two": of(0.4, 0.5), "three": of(0.4, 0.5)}
    assert [chosen_without(family, figures) for family in ("one", "two", None)] == ["b", "a", "a"]
    assert chosen_without("one", figures | {"three": of(0.4, 0.5, rate=0.06)}) == "a", "b has too many false alarms"


def test_every_configuration_can_be_fitted() -> None:
    whole = simulate("flow", 0)
    plant = replace(whole, train=whole.train[:500, :2], later=whole.later[:100, :2])
    for name in configurations():
        scores, flagged = fit_configuration(name, plant)(plant.later)
        assert len(scores) == len(flagged) == 100
        assert np.isfinite(scores).all()
