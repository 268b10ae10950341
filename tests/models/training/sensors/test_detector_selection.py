"""Which detector a job takes: by labels where there are any, else the ensemble of a series, else by injected faults."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np

from models.sensors.calibrated_detector import FittedDetector
from models.training.sensors.detector_selection import DetectorResult, HeldOutScores, choose

NOTHING = HeldOutScores(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0))


def result(name: str, faults: float, *, auroc: float | None = None, can_alarm: bool = True) -> DetectorResult:
    sensor = cast(FittedDetector, SimpleNamespace(threshold=lambda alpha: 1.0 if can_alarm else None))
    labelled = {} if auroc is None else {"auroc": auroc}
    return DetectorResult(name, sensor, NOTHING, {"primary": 1.0, **labelled}, faults)


def test_without_labels_a_series_gets_the_ensemble_whatever_injected_faults_say() -> None:
    chosen, reason = choose([result("level", 0.9), result("ensemble", 0.6)])
    assert chosen.name == "ensemble"
    assert reason.startswith("without labelled anomalies")


def test_an_ensemble_that_cannot_alarm_is_passed_over() -> None:
    chosen, _ = choose([result("level", 0.6), result("residual", 0.9), result("ensemble", 0.95, can_alarm=False)])
    assert chosen.name == "residual"


def test_with_labels_the_best_auroc_wins() -> None:
    chosen, reason = choose([result("level", 0.6, auroc=0.9), result("ensemble", 0.9, auroc=0.7)])
    assert chosen.name == "level"
    assert "AUROC" in reason


def test_records_are_ranked_by_injected_faults() -> None:
    assert choose([result("pca", 0.7), result("knn", 0.8)])[0].name == "knn"


def test_the_one_asked_for_is_taken() -> None:
    assert choose([result("level", 0.1, can_alarm=False)])[1] == "it was asked for"
