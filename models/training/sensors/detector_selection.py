"""Which detector of numbers: what each is worth on later readings, with labels where the file has them, and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.base import SensorKind
from models.sensors.calibrated import FittedSensor
from models.training import metrics as evaluation
from models.training.data.segments import Segments
from models.training.data.table import Doubles

ALPHAS = (0.05, 0.01)
# Faults are put into so many rows and columns: enough to rank detectors.
_FAULTY_ROWS, _FAULTY_COLUMNS = 2000, 8
_SHIFT, _NOISE = 3.0, 3.0
# The simpler detector stays unless another finds this much more.
_WORTH = 0.01
# Detectors that break their promise by no more than this beyond the best are all honest.
_HONEST = 0.01


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Scores, p-values float [n] of the rows (indices int64 [n]) of runs that had a whole window before them."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    p_values: Doubles


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """What a detector is worth on the held-out part; `faults` is how well it tells faults put into it (AUROC)."""

    name: str
    sensor: FittedSensor
    scores: HeldOutScores
    metrics: dict[str, float]
    faults: float

    @property
    def broken(self) -> float:
        """How far its false-alarm rate is from what it promised, beyond chance."""
        return 1.0 - self.metrics["primary"]

    @property
    def resolves(self) -> bool:
        """Whether its calibration has blocks enough for any alarm at alpha 0.05, which is what a request asks for by
        default.
        """
        return self.sensor.threshold(ALPHAS[0]) is not None

    def of_normal(self, held_out: Segments) -> Doubles:
        """P-values of the held-out rows that no label calls an anomaly."""
        return (
            self.scores.p_values
            if held_out.labels is None
            else self.scores.p_values[~held_out.labels[self.scores.rows]]
        )


def judge(name: str, sensor: FittedSensor, held_out: Segments, seed: int) -> DetectorResult:
    """Score the held-out part; labels are looked at where there are any."""
    scores = score_runs(sensor, held_out)
    return DetectorResult(
        name, sensor, scores, metrics_of(sensor, held_out, scores), _fault_auroc(sensor, held_out, seed)
    )


def score_runs(sensor: FittedSensor, runs: Segments) -> HeldOutScores:
    """Each run from its beginning; a series' first readings, which have no whole window, give nothing."""
    rows, scores, p_values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [np.zeros(0)]
    for run in runs.each():
        scored = sensor.score(runs.readings[run])
        rows.append(np.arange(run.start, run.stop)[sensor.window - 1 :])
        scores.append(scored.scores[sensor.window - 1 :])
        p_values.append(scored.p_values[sensor.window - 1 :])
    return HeldOutScores(np.concatenate(rows), np.concatenate(scores), np.concatenate(p_values))


def metrics_of(sensor: FittedSensor, held_out: Segments, found: HeldOutScores) -> dict[str, float]:
    """False-alarm rates on normal rows, `primary` (1 where alpha is kept), and with labels AUROC, F1, precision and
    recall.
    """
    strange = np.zeros(len(held_out), np.bool_) if held_out.labels is None else held_out.labels
    strange = strange[found.rows]
    normal = found.p_values[~strange]
    metrics = {"held_out_rows": float(len(held_out)), "calibrated_on": float(sensor.calibrated_on), "primary": 1.0}
    if len(normal):
        told = [alpha for alpha in ALPHAS if sensor.threshold(alpha) is not None]
        metrics |= {f"false_alarm_rate_{alpha}": float((normal <= alpha).mean()) for alpha in told}
        metrics["primary"] = 1.0 - broken_promise(normal, sensor.stride)
    if strange.any() and len(normal):
        metrics |= _with_labels(found, strange)
    return metrics


def broken_promise(normal: Doubles, stride: int, alpha: float = 0.05) -> float:
    """How far the false-alarm rate by p-values [n] of normal rows is from alpha, beyond two standard errors of n /
    stride rows.
    """
    independent = max(len(normal) / stride, 1.0)
    return float(max(0.0, abs((normal <= alpha).mean() - alpha) - 2 * np.sqrt(alpha * (1 - alpha) / independent)))


def choose(judged: Sequence[DetectorResult]) -> tuple[DetectorResult, str]:
    """The best of detectors that come simplest first, and why; one that can raise no alarm only where none can."""
    if len(judged) == 1:
        return judged[0], "it was asked for"
    judged = [one for one in judged if one.resolves] or judged
    if all("auroc" in one.metrics for one in judged):
        return _best(judged, [one.metrics["auroc"] for one in judged]), "it ranks the labelled anomalies best (AUROC)"
    least = min(one.broken for one in judged)
    honest = [one for one in judged if one.broken <= least + _HONEST]
    why = "of those that keep their false-alarm rate on later readings it tells faults put into them best (AUROC)"
    return _best(honest, [one.faults for one in honest]), why


def _best(judged: Sequence[DetectorResult], values: Sequence[float]) -> DetectorResult:
    """The first that is as good as the best, to within what is worth a more complicated one."""
    return next(one for one, value in zip(judged, values, strict=True) if value >= max(values) - _WORTH)


def _with_labels(found: HeldOutScores, strange: NDArray[np.bool_]) -> dict[str, float]:
    said = found.p_values <= ALPHAS[0]
    right = float((said & strange).sum())
    precision, recall = right / max(float(said.sum()), 1.0), right / float(strange.sum())
    return {
        "auroc": evaluation.auroc(found.scores[~strange], found.scores[strange]),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
    }


def _fault_auroc(sensor: FittedSensor, held_out: Segments, seed: int) -> float:
    """Mean AUROC of rows with a fault in one column against the same rows without; 0.5 where there are too few rows."""
    run = max(held_out.normal(), key=len, default=np.zeros((0, len(sensor.columns))))[:_FAULTY_ROWS]
    if len(run) < 2 * sensor.window:
        return 0.5
    usual = sensor.score(run).scores[sensor.window - 1 :]
    found = [sensor.score(faulty).scores[sensor.window - 1 :] for faulty in _faulty(run, sensor.kind, seed)]
    return float(np.mean([evaluation.auroc(usual, scores) for scores in found])) if found else 0.5


def _faulty(run: Doubles, kind: SensorKind, seed: int) -> Iterator[Doubles]:
    """The run with a column shifted by 3 of its spreads, with noise of 3 spreads, and stuck (series) or exchanged
    between rows.
    """
    random = np.random.default_rng(seed)
    spread = run.std(axis=0)
    varying = np.flatnonzero(spread > 0)
    for column in varying[:_FAULTY_COLUMNS].tolist():
        x = run[:, column]
        stuck = np.full(len(x), x[0]) if kind == "series" else random.permutation(x)
        for values in (
            x + _SHIFT * spread[column],
            x + _NOISE * spread[column] * random.standard_normal(len(x)),
            stuck,
        ):
            faulty = run.copy()
            faulty[:, column] = values
            yield faulty
