"""Out-of-scope detectors: fitted to normal embeddings, calibrated on unseen ones, ranked by out-of-scope texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.text.detectors.combined import CombinedDetector
from models.text.detectors.energy import EnergyDetector
from models.text.detectors.knn import KnnDetector
from models.text.detectors.mahalanobis import MahalanobisDetector
from models.text.detectors.serialization import TextDetector
from models.text.heads import LinearHead
from models.training import metrics
from models.training.errors import TrainingDataError
from models.training.heads.linear_head import Examples, Floats, Ints, fit_plain
from models.training.hyperparameters import Auto, DetectorKind
from models.training.job_events import Events, emit
from models.training.report import Finding

ALPHAS = (0.05, 0.01)
# Detectors keep this number of normal items at most; beyond, a sample stands for all.
MAX_REFERENCE = 20_000
_MOST_NEIGHBOURS = 10
_LEAST_CLASSES_TO_HIDE = 5
_HIDDEN_SHARE = 0.2
# A more complicated detector has to lead by this AUROC.
_WORTHWHILE_AUROC = 0.002
SIMPLEST_FIRST: tuple[DetectorKind, ...] = ("knn", "mahalanobis", "energy", "combined")
_LEAST: Mapping[DetectorKind, int] = {
    one.kind: one.least for one in (KnnDetector, MahalanobisDetector, EnergyDetector, CombinedDetector)
}
# Hidden classes are nearer to the others than out-of-scope texts are, and favour the energy alone: on CLINC150 the
# combination leads with out-of-scope texts (AUROC 0.986 against 0.977), the energy with hidden classes (0.950 against
# 0.939).
_RANKED_BY_CLASSES: tuple[DetectorKind, ...] = ("knn", "mahalanobis", "combined")


@dataclass(frozen=True, slots=True)
class NormalEmbeddings:
    """Normal items: embeddings float32 [n, d].

    Labelled items have class numbers [n], and out-of-fold logits [n, classes] with their head.
    """

    x: Floats
    y: Ints | None = None
    head: LinearHead | None = None
    logits: Floats | None = None

    def take(self, rows: Ints) -> NormalEmbeddings:
        """These rows alone."""
        y = None if self.y is None else self.y[rows]
        return NormalEmbeddings(self.x[rows], y, self.head, None if self.logits is None else self.logits[rows])


def fit_detector(
    kind: DetectorKind, normal: NormalEmbeddings, neighbours: int, *, calibrated: bool = True
) -> TextDetector:
    """A detector fitted to normal items and calibrated by leaving out the items that it scores.

    With `calibrated` false, `calibrate_on` has to follow. Raises TrainingDataError for too few items.
    """
    least, rows = _LEAST[kind], len(normal.x)
    if rows < least:
        message = f"expected at least {least} normal rows for detector {kind!r} besides the held-out ones, got {rows}"
        raise TrainingDataError("too_few_rows", f"training_file: {message}", "training_file")
    x = torch.from_numpy(normal.x)
    if kind == "mahalanobis":
        y = None if normal.y is None else torch.from_numpy(normal.y)
        return MahalanobisDetector().fit(x, y, calibrated=calibrated)
    if kind == "knn":
        return KnnDetector(neighbours).fit(x, calibrated=calibrated)
    if normal.head is None or (calibrated and normal.logits is None):
        raise ValueError(f"detector {kind!r} needs a head: labelled rows")
    energetic = EnergyDetector(normal.head)
    if calibrated and normal.logits is not None:
        energetic.fit_logits(torch.from_numpy(normal.logits))
    if kind == "energy":
        return energetic
    combined = CombinedDetector(KnnDetector(neighbours).fit(x, calibrated=calibrated), energetic)
    return combined.fit() if calibrated else combined


def affordable_kinds(kinds: Sequence[DetectorKind], normal: NormalEmbeddings, events: Events) -> Sequence[DetectorKind]:
    """The kinds with enough normal items; the events name the others.

    The first alone where none has enough: fitting it then raises the error.
    """
    rows = len(normal.x)
    enough = [kind for kind in kinds if rows >= _LEAST[kind]]
    few = ", ".join(f"{kind} (takes {_LEAST[kind]})" for kind in kinds if kind not in enough)
    if few and enough:
        emit(events, f"too few rows for some detectors, which are left out: {few}, got {rows}", "warn")
    return enough or kinds[:1]


def calibrate_on(detector: TextDetector, unseen: Floats) -> TextDetector:
    """Calibrate by items [m, d] that neither the detector nor its encoder has seen."""
    return calibrate_crossed(detector, [(detector, unseen)])


def calibrate_crossed(detector: TextDetector, folds: Sequence[tuple[TextDetector, Floats]]) -> TextDetector:
    """Calibrate by the scores that detectors of the same kind give items [m, d] which they have not seen."""
    by_fold = (_scores(other, torch.from_numpy(unseen)) for other, unseen in folds)
    scores = [torch.cat(column) for column in zip(*by_fold, strict=True)]
    if isinstance(detector, CombinedDetector):
        detector.knn.calibrate(scores[0])
        detector.energetic.calibrate(scores[1])
        detector.fit()
    else:
        detector.calibrate(scores[0])
    return detector


def _scores(detector: TextDetector, x: Tensor) -> tuple[Tensor, ...]:
    return (detector.knn(x), detector.energetic(x)) if isinstance(detector, CombinedDetector) else (detector(x),)


def neighbours_for(normal: NormalEmbeddings, asked: int | Auto) -> int:
    """The number of neighbours: a third of a class, or a twentieth of unlabelled items, from 1 to 10."""
    if asked != "auto":
        return asked
    typical = len(normal.x) // 20 if normal.y is None else int(np.median(np.bincount(normal.y))) // 3
    return int(np.clip(typical, 1, _MOST_NEIGHBOURS))


def sample(normal: NormalEmbeddings, seed: int) -> NormalEmbeddings:
    """At most MAX_REFERENCE of the items, in their order."""
    if len(normal.x) <= MAX_REFERENCE:
        return normal
    rows = np.sort(np.random.default_rng(seed).choice(len(normal.x), MAX_REFERENCE, replace=False))
    return normal.take(rows)


def rank_by_out_of_scope(
    candidates: Mapping[DetectorKind, TextDetector], unseen: Floats, out_of_scope: Floats
) -> dict[DetectorKind, float]:
    """AUROC of each detector: out-of-scope items [k, d] against unseen normal items [m, d]."""
    normal, strange = torch.from_numpy(unseen), torch.from_numpy(out_of_scope)
    return {kind: metrics.auroc(one(normal).numpy(), one(strange).numpy()) for kind, one in candidates.items()}


def rank_by_hidden_classes(
    normal: NormalEmbeddings, held_x: Floats, held_y: Ints, strength: float, neighbours: int, seed: int
) -> dict[DetectorKind, float]:
    """AUROC of each kind where a fifth of the classes stands for out-of-scope items.

    Every kind but the energy alone is fitted anew to the other classes' items and scores held-out rows [m, d] with
    classes [m]. Empty where there are too few classes to hide any.
    """
    classes = np.unique(normal.y if normal.y is not None else [])
    if len(classes) < _LEAST_CLASSES_TO_HIDE or normal.y is None:
        return {}
    hidden = np.random.default_rng(seed).choice(classes, max(1, round(_HIDDEN_SHARE * len(classes))), replace=False)
    seen, unseen = ~np.isin(normal.y, hidden), ~np.isin(held_y, hidden)
    if unseen.sum() < 2 or unseen.all():
        return {}
    kept = classes[~np.isin(classes, hidden)]
    y = np.searchsorted(kept, normal.y[seen])
    head = fit_plain(Examples.of(normal.x[seen], y), strength, tuple(map(str, kept)))
    part = NormalEmbeddings(normal.x[seen], y, head)
    kinds = {
        kind: calibrate_on(fit_detector(kind, part, neighbours, calibrated=False), held_x[unseen])
        for kind in _RANKED_BY_CLASSES
    }
    return rank_by_out_of_scope(kinds, held_x[unseen], held_x[~unseen])


def best_kind(ranking: Mapping[DetectorKind, float]) -> DetectorKind:
    """The simplest kind whose AUROC is within 0.002 of the best; without a ranking, neighbours."""
    if not ranking:
        return "knn"
    best = max(ranking.values())
    return next(kind for kind in SIMPLEST_FIRST if ranking.get(kind, 0.0) >= best - _WORTHWHILE_AUROC)


def check_detector_choice(kinds: int) -> Finding:
    """A note that the kind of detector was chosen on the rows that its figures are measured on."""
    message = (
        f"The detector is the best of {kinds} kinds on the very rows that its figures are measured on, which "
        f"may flatter it."
    )
    return Finding("outcome", "detector_choice", "ok", float(kinds), None, message, "")


def false_alarms(detector: TextDetector, unseen: Floats) -> dict[str, float]:
    """The share of unseen normal items [m, d] flagged at each alpha that the calibration resolves."""
    return false_alarm_rates(p_values(detector, unseen), detector.threshold) if len(unseen) else {}


def false_alarm_rates(values: NDArray[np.float64], threshold: Callable[[float], float | None]) -> dict[str, float]:
    """The share of p-values [m] of normal items that are alarms, at each alpha that has a `threshold`."""
    resolved = [alpha for alpha in ALPHAS if threshold(alpha) is not None]
    return {f"false_alarm_rate_{alpha}": float((values <= alpha).mean()) for alpha in resolved}


def p_values(detector: TextDetector, x: Floats) -> NDArray[np.float64]:
    """P-values [n] of items [n, d]."""
    values: NDArray[np.float64] = detector.score(torch.from_numpy(x), explain=1).p_values.double().numpy()
    return values


def out_of_scope_metrics(detector: TextDetector, unseen: Floats, out_of_scope: Floats) -> dict[str, float]:
    """The metrics of out-of-scope items [k, d] against unseen normal items [m, d]; empty without any."""
    if not len(out_of_scope):
        return {}
    return anomaly_metrics(*(detector(torch.from_numpy(x)).numpy() for x in (unseen, out_of_scope)))


def anomaly_metrics(normal: NDArray[np.floating], strange: NDArray[np.floating]) -> dict[str, float]:
    """`auroc` and `recall_at_95` of scores [k] of known anomalies against those [m] of normal items; their number."""
    return {
        "auroc": metrics.auroc(normal, strange),
        "recall_at_95": metrics.recall_at_in_scope(normal, strange),
        "known_anomalies": float(len(strange)),
    }
