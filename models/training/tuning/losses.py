"""Losses over embeddings, by kind of data; each checks its shapes first, since broadcasting would go wrong in silence.

labelled  supervised_contrastive, contrastive, batch_hard, batch_all
pairs     multiple_negatives
triplets  multiple_negatives, triplet
scored    cosent, angle

Every loss takes the embeddings of the columns of a batch, normalised to length 1 as serving gives them, and its
targets.
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

# Cosine distances lie between 0 and 2, so the margins of the papers, meant for distances without bound, would never be
# met.
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
        raise HyperparameterError(
            "invalid_hyperparameter",
            f"loss: rows of kind {kind!r} have no loss over embeddings: expected {', '.join(_LOSSES)}",
            f"{PARAM}.loss",
        )
    return _LOSSES[kind]


def make(name: str, kind: str, *, temperature: float = 0.05, matryoshka: Sequence[int] = ()) -> Loss:
    """The loss `name` for rows of `kind`, with its shape checks, over prefixes of the embedding where `matryoshka`
    names sizes.

    `temperature` divides cosines in the losses that have one. Raises HyperparameterError for a loss that such rows
    cannot feed.
    """
    if name not in names(kind):
        raise HyperparameterError(
            "invalid_hyperparameter",
            f"loss: {name!r} does not fit rows of kind {kind!r}: expected one of {', '.join(names(kind))}",
            f"{PARAM}.loss",
        )
    inner = _build(name, temperature)
    targets = {"labelled": torch.int64, "scored": torch.float32}.get(kind)
    return _Checked(_Matryoshka(inner, matryoshka) if matryoshka else inner, _COLUMNS[kind], targets)


def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Each text against all others of the batch: mean over its positives of -log softmax(cosine / temperature).

    Khosla et al., Supervised Contrastive Learning, 2020, L_out. `embeddings` float [n, d] of length 1, `labels`
    int64 [n]; texts without another of their label in the batch do not count. Raises ValueError when none counts.
    """
    same, _ = _pair_masks(labels)
    if not same.any():
        raise ValueError("supervised_contrastive: no two texts of the batch share a label")
    logits = (embeddings @ embeddings.T) / temperature
    himself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_probability = logits - logits.masked_fill(himself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positives = same.sum(dim=1)
    per_text = -(log_probability * same).sum(dim=1) / positives.clamp(min=1)
    return per_text[positives > 0].mean()


def contrastive_pairs(embeddings: Tensor, labels: Tensor) -> Tensor:
    """All pairs of the batch: squared distance of their cosine to 1 (same label) or 0, both kinds weighing the same.

    SetFit's objective (Tunstall et al., 2022), over every pair of the batch in place of sampled ones.
    """
    same, other = _pair_masks(labels)
    if not same.any() or not other.any():
        raise ValueError("contrastive: a batch needs pairs of the same label and of different labels")
    cosines = embeddings @ embeddings.T
    return (1.0 - cosines[same]).square().mean() + cosines[other].square().mean()


def _build(name: str, temperature: float) -> Loss:
    """The bare loss; those of sentence-transformers are called by their function of embeddings, so the model they
    ask for is a stand-in.
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
        return lambda columns, targets: supervised_contrastive(columns[0], _there(targets), temperature)
    return lambda columns, targets: contrastive_pairs(columns[0], _there(targets))


class _Checked:
    """Refuses what would broadcast: columns of unequal shape, targets that are not one a row, a loss that is no
    scalar.
    """

    def __init__(self, inner: Loss, columns: int, targets: torch.dtype | None) -> None:
        self._inner, self._columns, self._targets = inner, columns, targets

    def __call__(self, columns: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        shapes = [list(column.shape) for column in columns]
        if len(columns) != self._columns or any(shape != shapes[0] or len(shape) != 2 for shape in shapes):
            raise ValueError(f"expected {self._columns} columns of embeddings, all of one shape [n, d], got {shapes}")
        if self._targets is None and targets is not None:
            raise ValueError(f"expected no targets, got shape {list(targets.shape)}")
        if self._targets is not None:
            require_vector(_there(targets), shapes[0][0], self._targets)
        loss = self._inner(columns, targets)
        if loss.ndim != 0:
            raise ValueError(f"expected a loss of shape [], got {list(loss.shape)}")
        return loss


class _Matryoshka:
    """The sum of a loss over the first d dimensions, scaled to length 1, for each d and for all of them (Kusupati et
    al., 2022).

    Without the whole, dimensions beyond the largest d would learn nothing, and the whole is what is served unless
    less is asked for.
    """

    def __init__(self, inner: Loss, dimensions: Sequence[int]) -> None:
        if len(set(dimensions)) != len(dimensions) or min(dimensions) < 1:
            raise HyperparameterError(
                "invalid_hyperparameter",
                f"matryoshka: expected different sizes from 1, got {list(dimensions)}",
                f"{PARAM}.matryoshka",
            )
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
    """Raise ValueError unless `tensor` is [length] of `dtype`: [n] against [n, 1] would broadcast to [n, n]."""
    if tensor.shape != (length,) or tensor.dtype != dtype:
        raise ValueError(
            f"targets: expected {dtype} of shape [{length}], got {tensor.dtype} of shape {list(tensor.shape)}"
        )


def _pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of different texts share a label, and which do not: two bool [n, n]."""
    equal = labels[:, None] == labels[None, :]
    return equal & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~equal


def _there(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise ValueError("expected targets, got none")
    return targets
