"""The bench of records: tables are repeatable, faults are where the labels say, and every detector is judged."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.records.detectors import AUTO, ours
from benchmarks.records.generators import KINDS
from benchmarks.records.outcome import judge_all, summary
from benchmarks.records.report import chosen_without, records
from benchmarks.records.tables import FAULTS, FAULTY_ROWS, LATER_ROWS, TRAIN_ROWS, generate


@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_a_kind_are_repeatable_and_differ(kind: str) -> None:
    first, again, other = generate(kind, 0), generate(kind, 0), generate(kind, 1)
    assert np.array_equal(first.faulty, again.faulty, equal_nan=True)
    assert not np.array_equal(first.train, other.train, equal_nan=True)
    assert (len(first.train), len(first.later)) == (TRAIN_ROWS, LATER_ROWS)
    assert first.labels.sum() == len(first.faulty) == FAULTY_ROWS * len(FAULTS)
    assert np.isnan(first.train).any() == (kind == "missing values")
    assert (np.nanstd(first.train, axis=0) > 0).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_keeps_the_shape_and_changes_the_rows(fault: str) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((50, 8)).cumsum(axis=1)
    changed = FAULTS[fault](random, rows.copy(), rows.std(axis=0))
    assert changed.shape == rows.shape
    assert (changed != rows).any(axis=1).mean() > 0.9


@pytest.mark.slow
def test_every_detector_and_the_choice_of_a_job_are_judged() -> None:
    names = ours(networks=False)
    found = {kind: judge_all(names, generate(kind, 0), networks=False) for kind in ("correlated", "codes")}
    figures = {kind: {name: summary([row]) for name, row in by.items()} for kind, by in found.items()}
    assert list(figures["codes"]) == [AUTO, *names]
    assert figures["codes"][AUTO]["took"][0] in names
    assert 0.5 < figures["correlated"]["mahalanobis"]["f1"] <= 1
    assert figures["correlated"]["mahalanobis"]["found"]["column out"] > 0.8
    best = max(names, key=lambda name: float(figures["codes"][name]["f1"]))
    assert chosen_without("correlated", figures) == best
    assert "| correlated |" in "\n".join(records({"rounds": [figures]}))
