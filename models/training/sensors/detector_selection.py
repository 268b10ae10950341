"""Selection of a sensor detector by its results on later readings, with or without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.calibrated_detector import FittedDetector
from models.sensors.model import Doubles
from models.training import metrics as evaluation
from models.training.data.segments import Segments
from models.training.sensors.fault_injection import fault_auroc

ALPHAS = (0.05, 0.01)
# The simpler detector stays unless another's AUROC is higher by this much.
_MIN_GAIN = 0.01
# Detectors whose false-alarm rate is off by at most this much more than the best one's count as calibrated.
_CALIBRATED = 0.01
# Without labels this detector of series is taken. On families of machines left out, a choice by injected faults on the
# job's own readings did worse (`benchmarks.families`).
UNLABELLED_CHOICE = "ensemble"


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Scores and p-values [n] of rows (indices int64 [n]) that complete a window."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    p_values: Doubles


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """A detector's results on the held-out part; `faults` is its AUROC on injected faults."""

    name: str
    sensor: FittedDetector
    scores: HeldOutScores
    metrics: dict[str, float]
    faults: float

    @property
    def miscalibration(self) -> float:
        """How far the false-alarm rate is from alpha, beyond chance."""
        return 1.0 - self.metrics["primary"]

    @property
    def can_alarm(self) -> bool:
        """Whether the calibration allows an alarm at alpha 0.05, the default of a request."""
        return self.sensor.threshold(ALPHAS[0]) is not None

    def normal_p_values(self, held_out: Segments) -> Doubles:
        """The p-values of the held-out rows that are not labelled as anomalies."""
        labels, p_values = held_out.labels, self.scores.p_values
        return p_values if labels is None else p_values[~labels[self.scores.rows]]


def evaluate_detector(name: str, sensor: FittedDetector, held_out: Segments, seed: int) -> DetectorResult:
    """Score the held-out part and inject faults into its longest normal run."""
    scores = score_runs(sensor, held_out)
    longest = max(held_out.normal(), key=len, default=np.zeros((0, len(sensor.columns))))
    faults = fault_auroc(sensor, longest, seed)
    return DetectorResult(name, sensor, scores, metrics_of(sensor, held_out, scores), faults)


def score_runs(sensor: FittedDetector, runs: Segments) -> HeldOutScores:
    """Score each run on its own, from the first row that completes a window."""
    first = sensor.window - 1
    rows, scores, p_values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [np.zeros(0)]
    for run in runs.each():
        scored = sensor.score(runs.readings[run], times=runs.times_of(run))
        rows.append(np.arange(run.start, run.stop)[first:])
        scores.append(scored.scores[first:])
        p_values.append(scored.p_values[first:])
    return HeldOutScores(np.concatenate(rows), np.concatenate(scores), np.concatenate(p_values))


def metrics_of(sensor: FittedDetector, held_out: Segments, found: HeldOutScores) -> dict[str, float]:
    """False-alarm rates on normal rows and `primary`, which is 1 where alpha is kept.

    With labels of both kinds, AUROC, precision, recall and F1 too.
    """
    labels = np.zeros(len(held_out), np.bool_) if held_out.labels is None else held_out.labels
    anomalous = labels[found.rows]
    normal = found.p_values[~anomalous]
    metrics = {"held_out_rows": float(len(held_out)), "calibrated_on": float(sensor.calibrated_on), "primary": 1.0}
    if len(normal):
        alphas = [alpha for alpha in ALPHAS if sensor.threshold(alpha) is not None]
        metrics |= {f"false_alarm_rate_{alpha}": float((normal <= alpha).mean()) for alpha in alphas}
        metrics["primary"] = 1.0 - evaluation.miscalibration(normal, sensor.stride)
    if anomalous.any() and len(normal):
        metrics |= _label_metrics(found, anomalous)
    return metrics


def _label_metrics(found: HeldOutScores, anomalous: NDArray[np.bool_]) -> dict[str, float]:
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import

    alarms = found.p_values <= ALPHAS[0]
    values = precision_recall_fscore_support(anomalous, alarms, average="binary", zero_division=0.0)[:3]
    auroc = evaluation.auroc(found.scores[~anomalous], found.scores[anomalous])
    known = {"auroc": auroc, "known_anomalies": float(anomalous.sum())}
    return known | dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))


def choose(results: Sequence[DetectorResult]) -> tuple[DetectorResult, str]:
    """The best detector and the reason; `results` begins with the simplest.

    A detector that cannot raise an alarm is chosen only where none can.
    """
    if len(results) == 1:
        return results[0], "it was asked for"
    results = [result for result in results if result.can_alarm] or results
    if all("auroc" in result.metrics for result in results):
        best = _simplest_best(results, [result.metrics["auroc"] for result in results])
        return best, "it ranks the labelled anomalies best (AUROC)"
    for result in results:
        if result.name == UNLABELLED_CHOICE:
            return result, "without labelled anomalies to compare by, it finds the most kinds of faults"
    return choose_by_faults(results)


def choose_by_faults(results: Sequence[DetectorResult]) -> tuple[DetectorResult, str]:
    """The best detector without labels, by injected faults, of those that keep their false-alarm rate."""
    least = min(result.miscalibration for result in results)
    calibrated = [result for result in results if result.miscalibration <= least + _CALIBRATED]
    best = _simplest_best(calibrated, [result.faults for result in calibrated])
    reason = "it ranks injected faults best (AUROC) of those that keep their false-alarm rate on later readings"
    return best, reason


def _simplest_best(results: Sequence[DetectorResult], values: Sequence[float]) -> DetectorResult:
    """The first detector whose value is within `_MIN_GAIN` of the best."""
    return next(result for result, value in zip(results, values, strict=True) if value >= max(values) - _MIN_GAIN)
