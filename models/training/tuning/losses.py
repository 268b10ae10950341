"""Losses over embeddings, by kind of rows, with checks of shapes.

labelled  supervised_contrastive, contrastive, batch_hard, batch_all
pairs     multiple_negatives
triplets  multiple_negatives, triplet
scored    cosent, angle

Every loss takes the embeddings of a batch's columns, of length 1 as in serving, and the batch's targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.errors import HyperparameterError
from models.training.hyperparameters import PARAM, LabelledLoss

Loss = Callable[[Sequence[Tensor], Tensor | None], Tensor]

# The papers' margins are for unbounded distances; cosine distances, between 0 and 2, would never reach them.
_MARGIN = 0.3
_LOSSES: dict[str, tuple[str, ...]] = {
    "labelled": get_args(LabelledLoss),
    "pairs": ("multiple_negatives",),
    "triplets": ("multiple_negatives", "triplet"),
    "scored": ("cosent", "angle"),
}
_COLUMNS = {"labelled": 1, "pairs": 2, "triplets": 3, "scored": 2}


def names(kind: str) -> tuple[str, ...]:
    """The losses for a kind of rows; the first is the default."""
    if kind not in _LOSSES:
        message = f"loss: rows of kind {kind!r} have no loss over embeddings: expected {', '.join(_LOSSES)}"
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.loss")
    return _LOSSES[kind]


def make(name: str, kind: str, *, temperature: float = 0.05, matryoshka: Sequence[int] = ()) -> Loss:
    """The loss `name` for rows of `kind`, over prefixes of the sizes in `matryoshka`.

    `temperature` divides cosines in the losses that have one. Raises HyperparameterError for a loss that does not fit
    the kind of rows.
    """
    if name not in names(kind):
        message = f"loss: {name!r} does not fit rows of kind {kind!r}: expected one of {', '.join(names(kind))}"
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.loss")
    inner = _build(name, temperature)
    targets = {"labelled": torch.int64, "scored": torch.float32}.get(kind)
    return _Checked(_Matryoshka(inner, matryoshka) if matryoshka else inner, _COLUMNS[kind], targets)


def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """The supervised contrastive loss: the mean of -log softmax over each text's positives.

    The softmax of cosine / temperature is over all other texts of the batch. L_out of Khosla et al., Supervised
    Contrastive Learning, 2020. `embeddings` float [n, d] of length 1, `labels` int64 [n]. Texts without another of
    their label in the batch do not count. Raises ValueError when none counts.
    """
    same, _ = _pair_masks(labels)
    if not same.any():
        raise ValueError("supervised_contrastive: no two texts of the batch share a label")
    logits = (embeddings @ embeddings.T) / temperature
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_probability = logits - logits.masked_fill(diagonal, -torch.inf).logsumexp(dim=1, keepdim=True)
    positives = same.sum(dim=1)
    per_text = -(log_probability * same).sum(dim=1) / positives.clamp(min=1)
    return per_text[positives > 0].mean()


def contrastive_pairs(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The squared distance of each pair's cosine to 1 (same label) or 0.

    Both kinds of pairs have the same weight. SetFit's objective (Tunstall et al., 2022), over every pair of the batch
    instead of sampled ones.
    """
    same, other = _pair_masks(labels)
    if not same.any() or not other.any():
        raise ValueError("contrastive: a batch needs pairs of the same label and of different labels")
    cosines = embeddings @ embeddings.T
    return (1.0 - cosines[same]).square().mean() + cosines[other].square().mean()


def _build(name: str, temperature: float) -> Loss:
    """The loss without checks.

    Losses of sentence-transformers get embeddings here, so their model is a placeholder.
    """
    from sentence_transformers.sentence_transformer import losses

    model: Any = nn.Identity()
    distance = losses.BatchHardTripletLossDistanceFunction.cosine_distance
    theirs: dict[str, Callable[[], Any]] = {
        "batch_hard": lambda: losses.BatchHardSoftMarginTripletLoss(model, distance_metric=distance),
        "batch_all": lambda: losses.BatchAllTripletLoss(model, distance_metric=distance, margin=_MARGIN),
        "multiple_negatives": lambda: losses.MultipleNegativesRankingLoss(model, scale=1.0 / temperature),
        "triplet": lambda: losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, triplet_margin=_MARGIN),
        "cosent": lambda: losses.CoSENTLoss(model, scale=1.0 / temperature),
        "angle": lambda: losses.AnglELoss(model, scale=1.0 / temperature),
    }
    if name in theirs:
        made = theirs[name]()
        return lambda columns, targets: made.compute_loss_from_embeddings(list(columns), targets)
    if name == "supervised_contrastive":
        return lambda columns, targets: supervised_contrastive(columns[0], _require_targets(targets), temperature)
    return lambda columns, targets: contrastive_pairs(columns[0], _require_targets(targets))


class _Checked:
    """Raises ValueError for shapes of columns, targets or the loss that would broadcast."""

    def __init__(self, inner: Loss, columns: int, targets: torch.dtype | None) -> None:
        self._inner, self._columns, self._targets = inner, columns, targets

    def __call__(self, columns: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        shapes = [list(column.shape) for column in columns]
        if len(columns) != self._columns or any(shape != shapes[0] or len(shape) != 2 for shape in shapes):
            raise ValueError(f"expected {self._columns} columns of embeddings, all of one shape [n, d], got {shapes}")
        if self._targets is None and targets is not None:
            raise ValueError(f"expected no targets, got shape {list(targets.shape)}")
        if self._targets is not None:
            require_vector(_require_targets(targets), shapes[0][0], self._targets)
        loss = self._inner(columns, targets)
        if loss.ndim != 0:
            raise ValueError(f"expected a loss of shape [], got {list(loss.shape)}")
        return loss


class _Matryoshka:
    """The sum of a loss over the first d dimensions for each d, and over all dimensions.

    Kusupati et al., 2022. Serving gives all dimensions by default; without that term, those beyond the largest d would
    learn nothing.
    """

    def __init__(self, inner: Loss, dimensions: Sequence[int]) -> None:
        if len(set(dimensions)) != len(dimensions) or min(dimensions) < 1:
            message = f"matryoshka: expected different sizes from 1, got {list(dimensions)}"
            raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.matryoshka")
        self._inner, self._dimensions = inner, sorted(dimensions, reverse=True)

    def __call__(self, columns: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        width = columns[0].shape[1]
        if self._dimensions[0] > width:
            raise ValueError(f"matryoshka: {self._dimensions[0]} dimensions of an embedding that has {width}")
        sizes = dict.fromkeys((width, *self._dimensions))
        parts = [
            self._inner([functional.normalize(column[:, :size], dim=-1) for column in columns], targets)
            for size in sizes
        ]
        return torch.stack(parts).sum()


def require_vector(tensor: Tensor, length: int, dtype: torch.dtype) -> None:
    """Raise ValueError unless `tensor` is [length] of `dtype`.

    A target [n] against [n, 1] would broadcast to [n, n].
    """
    if tensor.shape != (length,) or tensor.dtype != dtype:
        raise ValueError(
            f"targets: expected {dtype} of shape [{length}], got {tensor.dtype} of shape {list(tensor.shape)}"
        )


def _pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of different texts share a label, and which do not: two bool [n, n]."""
    equal = labels[:, None] == labels[None, :]
    return equal & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~equal


def _require_targets(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise ValueError("expected targets, got none")
    return targets
