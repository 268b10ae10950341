"""Anomaly detectors over embeddings: how far is this from what normal looks like?

A detector is fitted to normal items [m, d] and keeps `calibration`, the scores [m] of normal items that had no part in what
scored them (each left out, or out of fold). A new normal item is then flagged at `alpha` about as often as alpha.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.calibration import conformal_p_values, conformal_threshold
from models.errors import ModelSourceError
from models.heads import LinearHead

STATE, SETTINGS = "detector.safetensors", "detector.json"
Kind = Literal["knn", "mahalanobis", "energy", "combined"]
_NEIGHBOURS = 3
_FOLDS = 10
# Similarities are computed for so many rows at a time: 1,024 x 20,000 float32 are 80 MB.
_ROWS_AT_ONCE = 1024
# A class with fewer items than this has no covariance of its own worth adding to.
_LEAST_FOR_COVARIANCE = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Scores [n], p-values [n], and the nearest reference items: indices int64 [n, k] and cosine similarities [n, k].

    A detector that keeps no items names none: k is 0.
    """

    scores: Tensor
    p_values: Tensor
    nearest: Tensor
    similarities: Tensor


class Detector(Protocol):
    """What serving asks of a detector."""

    calibration: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Scores [n] of embeddings [n, d]; higher is stranger."""
        ...

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Scores and p-values of embeddings [n, d]."""
        ...

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None when there were too few items to tell."""
        ...


class _Calibrated(nn.Module):
    """The part that all detectors share: calibration scores, and verdicts by them."""

    kind: ClassVar[Kind]
    calibration: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calibration", torch.empty(0))

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None when there were too few items to tell."""
        return conformal_threshold(self.calibration, alpha)

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Scores and p-values of items [n, d]."""
        scores: Tensor = self(x)
        none = torch.empty(len(x), 0)
        return Verdict(scores, conformal_p_values(self.calibration, scores), none.long(), none)

    def calibrate(self, scores: Tensor) -> Self:
        """Take the scores [m] of normal items that this detector, or one like it, was not fitted to."""
        if scores.ndim != 1 or not len(scores) or not bool(torch.isfinite(scores).all()):
            raise ValueError(f"calibration: expected finite scores [m], m >= 1, got {list(scores.shape)}")
        self.calibration = scores.float().contiguous()
        return self

    def settings(self) -> dict[str, object]:
        """What `detector.json` keeps beside the tensors."""
        return {}


class KnnDetector(_Calibrated):
    """Mean cosine distance to the nearest of the normal items, calibrated by leaving each item out once.

    `fit` takes normal embeddings float [m, d], m ≥ 2. A score is between 0 (a normal item itself) and 2; higher is stranger.
    """

    kind = "knn"
    reference: Tensor

    def __init__(self, neighbours: int = _NEIGHBOURS) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("reference", torch.empty(0, 0))

    def fit(self, x: Tensor, labels: Tensor | None = None, *, calibrated: bool = True) -> Self:
        """Remember normal items [m, d] and score each against the others; labels change nothing.

        Without `calibrated`, `calibrate` has to follow.
        """
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"reference: expected shape [m, d] with m >= 2, got {list(x.shape)}")
        self.reference = nn.functional.normalize(x.float(), dim=-1)
        if not calibrated:
            return self
        neighbours = min(self.neighbours, len(x) - 1)
        parts = []
        for start in range(0, len(x), _ROWS_AT_ONCE):
            similarity = self.reference[start : start + _ROWS_AT_ONCE] @ self.reference.T
            similarity[torch.arange(len(similarity)), torch.arange(start, start + len(similarity))] = -torch.inf
            parts.append(_distance(similarity, neighbours))
        return self.calibrate(torch.cat(parts))

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Score items [n, d] and name the `explain` nearest reference items of each."""
        neighbours = min(self.neighbours, len(self.reference) - 1)
        scores, nearest, similarities = [], [], []
        items = nn.functional.normalize(x.float(), dim=-1)
        for start in range(0, len(items), _ROWS_AT_ONCE):
            similarity = items[start : start + _ROWS_AT_ONCE] @ self.reference.T
            scores.append(_distance(similarity, neighbours))
            best = similarity.topk(min(explain, len(self.reference)), dim=-1)
            nearest.append(best.indices)
            similarities.append(best.values)
        whole = torch.cat(scores)
        return Verdict(whole, conformal_p_values(self.calibration, whole), torch.cat(nearest), torch.cat(similarities))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return self.judge(x, explain=1).scores

    def settings(self) -> dict[str, object]:
        """How many neighbours count."""
        return {"neighbours": self.neighbours}


class ReferenceDetector(KnnDetector):
    """The kNN detector of a request that brings its own reference texts."""


class MahalanobisDetector(_Calibrated):
    """Distance to the nearest class mean, measured in the spread that the classes share.

    `fit` takes embeddings [m, d] and, where there are classes, labels int64 [m]; without labels all items are one class. The
    covariance of what is left after the class means is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), so
    that fewer items than dimensions will do; the score is the square root of the smallest squared distance
    (Lee et al., 2018). Calibrated out of fold: a tenth of the items is scored by what the others gave.
    """

    kind = "mahalanobis"
    means: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0))
        self.register_buffer("whitening", torch.empty(0, 0))

    def fit(self, x: Tensor, labels: Tensor | None = None, *, calibrated: bool = True) -> Self:
        """Means and shared covariance of normal items [m, d], m ≥ 4. Without `calibrated`, `calibrate` has to follow."""
        if x.ndim != 2 or len(x) < 4:
            raise ValueError(f"normal items: expected shape [m, d] with m >= 4, got {list(x.shape)}")
        owner = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
        if owner.shape != (len(x),):
            raise ValueError(f"labels: expected shape [{len(x)}], got {list(owner.shape)}")
        items = nn.functional.normalize(x.double(), dim=-1)
        means, whitening = _spread(items, owner)
        self.means, self.whitening = means.float().contiguous(), whitening.float().contiguous()
        if not calibrated:
            return self
        return self.calibrate(out_of_fold(len(x), lambda train, held: _mahalanobis(items[held], *_spread(items[train], owner[train]))))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return _mahalanobis(nn.functional.normalize(x.float(), dim=-1), self.means, self.whitening)


class EnergyDetector(_Calibrated):
    """How little evidence a linear head finds for any of its classes: -T · logsumexp(logits / T) (Liu et al., 2020).

    `fit` takes normal embeddings [m, d] that had no part in training the head; where every item had one, hand the out-of-fold
    logits to `fit_logits` instead.
    """

    kind = "energy"
    weight: Tensor
    bias: Tensor

    def __init__(self, head: LinearHead) -> None:
        super().__init__()
        # The head's own temperature sharpens its probabilities; the energy is taken at the logits as they were learnt.
        self.register_buffer("weight", head.weight.clone())
        self.register_buffer("bias", head.bias.clone())

    def fit(self, x: Tensor, labels: Tensor | None = None) -> Self:
        """Calibrate by normal items [m, d] that the head has not seen."""
        return self.calibrate(self(x))

    def fit_logits(self, logits: Tensor) -> Self:
        """Calibrate by out-of-fold logits [m, classes], at temperature 1."""
        return self.calibrate(energy(logits))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return energy(x.float() @ self.weight.T + self.bias)


class CombinedDetector(_Calibrated):
    """Distance to the nearest normal items plus the head's energy, each in standard deviations of its calibration scores.

    The one sees texts unlike any seen, the other texts between the classes; on CLINC150 the sum finds more out-of-scope texts
    than either alone (benchmarks/training.py). Both detectors come fitted to the same normal items in the same order.
    """

    kind = "combined"
    scale: Tensor

    def __init__(self, knn: KnnDetector, energetic: EnergyDetector) -> None:
        super().__init__()
        self.knn = knn
        self.energetic = energetic
        # Mean and standard deviation of the kNN's calibration scores, and of the energy's.
        self.register_buffer("scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def fit(self, x: Tensor | None = None, labels: Tensor | None = None) -> Self:
        """Put both on one scale and calibrate by the sums of their calibration scores; `x` changes nothing."""
        known = (self.knn.calibration, self.energetic.calibration)
        if known[0].shape != known[1].shape:
            raise ValueError(f"expected calibration by the same items, got {len(known[0])} and {len(known[1])} scores")
        self.scale = torch.tensor([[float(scores.mean()), max(float(scores.std(unbiased=False)), 1e-6)] for scores in known])
        return self.calibrate(self._sum(*known))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of items [n, d]."""
        return self._sum(self.knn(x), self.energetic(x))

    def judge(self, x: Tensor, *, explain: int = 3) -> Verdict:
        """Scores and p-values of items [n, d], and the `explain` nearest normal items of each."""
        near = self.knn.judge(x, explain=explain)
        scores = self._sum(near.scores, self.energetic(x))
        return Verdict(scores, conformal_p_values(self.calibration, scores), near.nearest, near.similarities)

    def settings(self) -> dict[str, object]:
        """How many neighbours count."""
        return self.knn.settings()

    def _sum(self, near: Tensor, energies: Tensor) -> Tensor:
        mean, deviation = self.scale.unbind(dim=1)
        return (near - mean[0]) / deviation[0] + (energies - mean[1]) / deviation[1]


def energy(logits: Tensor) -> Tensor:
    """Scores [n] of logits [n, classes] at temperature 1; higher is stranger."""
    if logits.ndim != 2:
        raise ValueError(f"logits: expected shape [n, classes], got {list(logits.shape)}")
    return -torch.logsumexp(logits.float(), dim=-1)


Fold = Callable[[Tensor, Tensor], Tensor]


def out_of_fold(count: int, score: Fold, *, folds: int = _FOLDS, seed: int = 0) -> Tensor:
    """Scores [count] of items, each by what was fitted to the others: `score(train, held)` takes two index tensors."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    scores = torch.empty(count)
    for held in order.chunk(min(folds, count)):
        rest = torch.ones(count, dtype=torch.bool)
        rest[held] = False
        scores[held] = score(rest.nonzero().flatten(), held).float()
    return scores


Trained = KnnDetector | MahalanobisDetector | EnergyDetector | CombinedDetector


def save_detector(detector: Trained, directory: Path) -> None:
    """Write `detector.safetensors` and `detector.json` into `directory`; equal detectors give equal bytes."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in detector.state_dict().items()}, directory / STATE)
    settings = {"kind": detector.kind, **detector.settings()}
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_detector(directory: Path) -> Trained:
    """Read what `save_detector` wrote. Raises ModelSourceError when it is not a detector that this version can read."""
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
        return _restore(settings, load_file(directory / STATE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelSourceError(f"{directory.name}: not a detector that can be read: {error}", param="model") from error


def _restore(settings: dict[str, object], tensors: dict[str, Tensor]) -> Trained:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("a tensor is not finite")
    calibration = tensors["calibration"]
    if calibration.ndim != 1 or not len(calibration):
        raise ValueError(f"calibration: expected shape [m], m >= 1, got {list(calibration.shape)}")
    detector = _empty(settings, tensors)
    places = dict(detector.named_buffers())
    if set(places) != set(tensors):
        raise ValueError(f"expected tensors {sorted(places)}, got {sorted(tensors)}")
    for name, tensor in tensors.items():
        if tensor.ndim != places[name].ndim:
            raise ValueError(f"{name}: expected {places[name].ndim} dimensions, got {tensor.ndim}")
        owner, _, buffer = name.rpartition(".")
        setattr(detector.get_submodule(owner), buffer, tensor)
    return detector


def _empty(settings: dict[str, object], tensors: dict[str, Tensor]) -> Trained:
    """A detector of the kind named, its tensors still to be filled in."""
    kind = settings["kind"]
    if kind == MahalanobisDetector.kind:
        return MahalanobisDetector()
    if kind == EnergyDetector.kind:
        return EnergyDetector(_head(tensors["weight"], tensors["bias"]))
    if kind == KnnDetector.kind:
        return KnnDetector(int(str(settings["neighbours"])))
    if kind == CombinedDetector.kind:
        energetic = EnergyDetector(_head(tensors["energetic.weight"], tensors["energetic.bias"]))
        return CombinedDetector(KnnDetector(int(str(settings["neighbours"]))), energetic)
    raise ValueError(f"kind {kind!r} is none of knn, mahalanobis, energy, combined")


def _head(weight: Tensor, bias: Tensor) -> LinearHead:
    return LinearHead(weight, bias, tuple(map(str, range(len(weight)))))


def _distance(similarity: Tensor, neighbours: int) -> Tensor:
    return 1.0 - similarity.topk(neighbours, dim=-1).values.mean(dim=-1)


def _spread(items: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Class means [classes, d], and the matrix W [d, d] with W Wᵀ the inverse of the shrunk shared covariance."""
    classes, place = torch.unique(owner, return_inverse=True)
    sums = torch.zeros(len(classes), items.shape[1], dtype=items.dtype).index_add_(0, place, items)
    counts = torch.bincount(place, minlength=len(classes))
    means = sums / counts[:, None]
    told = counts[place] >= _LEAST_FOR_COVARIANCE
    residuals = (items - means[place])[told] if bool(told.any()) else items - items.mean(dim=0)
    values, vectors = torch.linalg.eigh(shrunk_covariance(residuals))
    return means, vectors / values.clamp(min=1e-12).sqrt()


def shrunk_covariance(residuals: Tensor) -> Tensor:
    """Covariance float64 [d, d] of centred rows [n, d], shrunk towards a multiple of the identity.

    Ledoit and Wolf: A well-conditioned estimator for large-dimensional covariance matrices, 2004; the amount of shrinkage is
    the one of least expected squared error.
    """
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    level = covariance.trace() / d
    away = ((covariance - level * torch.eye(d, dtype=covariance.dtype)) ** 2).sum() / d
    # The spread of the single rows' outer products around their mean, without making them: |x|^4 summed, less |S|^2.
    noise = ((residuals.square().sum(dim=1) ** 2).sum() / n - covariance.square().sum()) / (n * d)
    share = float((noise.clamp(min=0.0) / away).clamp(max=1.0)) if float(away) > 0 else 1.0
    return (1 - share) * covariance + share * level * torch.eye(d, dtype=covariance.dtype)


def _mahalanobis(x: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    return torch.cdist(x @ whitening, means @ whitening).min(dim=-1).values
