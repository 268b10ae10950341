"""Choosing a detector of what does not belong: fitted to normal embeddings, compared on strangers, calibrated on the
unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from models.training.events import Events, emit
from models.training.heads.linear_head import Examples, fit_plain
from models.training.hyperparameters import DetectorKind
from models.training.report import Finding

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ALPHAS = (0.05, 0.01)
# What is kept of the normal items to be near to; beyond, a sample stands for all.
MAX_REFERENCE = 20_000
_MOST_NEIGHBOURS = 10
_LEAST_CLASSES_TO_HIDE = 5
_HIDDEN_SHARE = 0.2
# The simpler detector stays unless another finds this much more.
_WORTH = 0.002
SIMPLEST_FIRST: tuple[DetectorKind, ...] = ("knn", "mahalanobis", "energy", "combined")
_LEAST: Mapping[DetectorKind, int] = {
    one.kind: one.least for one in (KnnDetector, MahalanobisDetector, EnergyDetector, CombinedDetector)
}
# Hidden classes are nearer to the others than strangers are and praise the energy alone too much: CLINC150's real
# out-of-scope texts are found better by the combination (AUROC 0.986 against 0.977), its hidden classes by the energy
# (0.939 against 0.950).
_JUDGED_BY_CLASSES: tuple[DetectorKind, ...] = ("knn", "mahalanobis", "combined")


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal items: embeddings float32 [n, d], class numbers [n] if there are any, and out-of-fold logits [n,
    classes] with their head.
    """

    x: Floats
    y: Ints | None = None
    head: LinearHead | None = None
    logits: Floats | None = None

    def take(self, rows: Ints) -> Normal:
        """Some of them."""
        y = None if self.y is None else self.y[rows]
        return Normal(self.x[rows], y, self.head, None if self.logits is None else self.logits[rows])


def fit_detector(kind: DetectorKind, normal: Normal, neighbours: int, *, calibrated: bool = True) -> TextDetector:
    """A detector fitted to normal items, calibrated by leaving out what it scores; or else `calibrate_on` has to
    follow.

    Raises TrainingDataError where there are too few items.
    """
    if len(normal.x) < _LEAST[kind]:
        message = (
            f"expected at least {_LEAST[kind]} normal rows for detector {kind!r}, those held out aside, got "
            f"{len(normal.x)}"
        )
        raise TrainingDataError("too_few_rows", f"training_file: {message}", "training_file")
    x = torch.from_numpy(normal.x)
    if kind == "mahalanobis":
        return MahalanobisDetector().fit(
            x, None if normal.y is None else torch.from_numpy(normal.y), calibrated=calibrated
        )
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


def with_enough(kinds: Sequence[DetectorKind], normal: Normal, events: Events) -> Sequence[DetectorKind]:
    """Those of the kinds that there are enough normal items for, telling which are left out; the first, to be
    refused, where none is.
    """
    rows = len(normal.x)
    enough = [kind for kind in kinds if rows >= _LEAST[kind]]
    few = ", ".join(f"{kind} (takes {_LEAST[kind]})" for kind in kinds if kind not in enough)
    if few and enough:
        emit(events, f"too few rows for some detectors, which are left out: {few}, got {rows}", "warn")
    return enough or kinds[:1]


def calibrate_on(detector: TextDetector, unseen: Floats) -> TextDetector:
    """Calibrate by items [m, d] that neither the detector nor its encoder has seen: for encoders tuned on the normal
    items.
    """
    return calibrate_crossed(detector, [(detector, unseen)])


def calibrate_crossed(detector: TextDetector, judged: Sequence[tuple[TextDetector, Floats]]) -> TextDetector:
    """Calibrate by items that others like it have not seen: pairs of such a detector, of the same kind, and its
    items [m, d].
    """
    scores = [
        torch.cat(column) for column in zip(*(_scores(one, torch.from_numpy(x)) for one, x in judged), strict=True)
    ]
    if isinstance(detector, CombinedDetector):
        detector.knn.calibrate(scores[0])
        detector.energetic.calibrate(scores[1])
        detector.fit()
    else:
        detector.calibrate(scores[0])
    return detector


def _scores(detector: TextDetector, x: Tensor) -> tuple[Tensor, ...]:
    return (detector.knn(x), detector.energetic(x)) if isinstance(detector, CombinedDetector) else (detector(x),)


def neighbours_for(normal: Normal, asked: int | None) -> int:
    """How many neighbours count: a third of a class, a twentieth of unlabelled items, 1 to 10."""
    if asked is not None:
        return asked
    typical = len(normal.x) // 20 if normal.y is None else int(np.median(np.bincount(normal.y))) // 3
    return int(np.clip(typical, 1, _MOST_NEIGHBOURS))


def sample(normal: Normal, seed: int) -> Normal:
    """At most MAX_REFERENCE of the items, in their order."""
    if len(normal.x) <= MAX_REFERENCE:
        return normal
    rows = np.sort(np.random.default_rng(seed).choice(len(normal.x), MAX_REFERENCE, replace=False))
    return normal.take(rows)


def rank_by_out_of_scope(
    candidates: Mapping[DetectorKind, TextDetector], unseen: Floats, out_of_scope: Floats
) -> dict[DetectorKind, float]:
    """AUROC of each detector: strangers [k, d] against unseen normal items [m, d]."""
    normal, strange = torch.from_numpy(unseen), torch.from_numpy(out_of_scope)
    return {kind: metrics.auroc(found(normal).numpy(), found(strange).numpy()) for kind, found in candidates.items()}


def rank_by_hidden_classes(
    normal: Normal, held_x: Floats, held_y: Ints, strength: float, neighbours: int, seed: int
) -> dict[DetectorKind, float]:
    """AUROC of each kind where a fifth of the classes plays the strangers: nobody has to know real ones beforehand.

    Every kind but the energy alone is fitted anew to the other classes' items and judged on held-out rows [m, d]
    with classes [m]. Empty where there are too few classes to hide any.
    """
    classes = np.unique(normal.y if normal.y is not None else [])
    if len(classes) < _LEAST_CLASSES_TO_HIDE or normal.y is None:
        return {}
    hidden = np.random.default_rng(seed).choice(classes, max(1, round(_HIDDEN_SHARE * len(classes))), replace=False)
    seen, unseen = ~np.isin(normal.y, hidden), ~np.isin(held_y, hidden)
    if unseen.sum() < 2 or unseen.all():
        return {}
    names = tuple(map(str, classes[~np.isin(classes, hidden)]))
    y = np.searchsorted(classes[~np.isin(classes, hidden)], normal.y[seen])
    head = fit_plain(Examples.of(normal.x[seen], y), strength, names)
    part = Normal(normal.x[seen], y, head)
    kinds = {
        kind: calibrate_on(fit_detector(kind, part, neighbours, calibrated=False), held_x[unseen])
        for kind in _JUDGED_BY_CLASSES
    }
    return rank_by_out_of_scope(kinds, held_x[unseen], held_x[~unseen])


def best_kind(ranking: Mapping[DetectorKind, float]) -> DetectorKind:
    """The kind of best AUROC; a simpler one that is as good to within 0.002 comes first. Without a ranking,
    neighbours.
    """
    if not ranking:
        return "knn"
    best = max(ranking.values())
    return next(kind for kind in SIMPLEST_FIRST if ranking.get(kind, 0.0) >= best - _WORTH)


def chosen_here(kinds: int) -> Finding:
    """What is to be known of figures measured on the rows that the kind of detector, one of several, was chosen on."""
    message = (
        f"The detector is the best of {kinds} kinds on the very rows that its figures are measured on, which "
        f"may flatter it."
    )
    return Finding("outcome", "detector_choice", "ok", float(kinds), None, message, "")


def false_alarms(detector: TextDetector, unseen: Floats) -> dict[str, float]:
    """The share of unseen normal items [m, d] flagged at each alpha, where the calibration resolves it."""
    if not len(unseen):
        return {}
    p_values = detector.judge(torch.from_numpy(unseen), explain=1).p_values
    told = [alpha for alpha in ALPHAS if detector.threshold(alpha) is not None]
    return {f"false_alarm_rate_{alpha}": float((p_values <= alpha).double().mean()) for alpha in told}
