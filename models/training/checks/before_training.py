"""The first three checks of a job, on its rows and its base encoder, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens
from models.training.checks.data import check_data
from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss
from models.training.data.dataset import DataSplit
from models.training.job import TextContext
from models.training.report import Finding

_FORWARD_ROWS = 16
_LOSS_ROWS = 256
# In bfloat16 a vector depends a little on what else is in its batch.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


def check_rows(context: TextContext, parts: DataSplit) -> None:
    """Run the rungs in order; each that fails ends the job with LadderError."""
    context.report.extend(_data(context, parts))
    context.report.raise_if_failed("data")
    texts = list(dict.fromkeys(parts.train.texts[0]))[:_FORWARD_ROWS]
    if context.model.card.task == "embedding":
        context.report.extend(_forward(context, texts))
        context.report.raise_if_failed("forward")
    if context.job.task == "classification" and parts.train.labels is not None:
        context.report.extend(_loss(context, parts.train.texts[0], parts.train.labels))
        context.report.raise_if_failed("loss")


def _data(context: TextContext, parts: DataSplit) -> Iterator[Finding]:
    """Embeddings are looked at where the recipe needs them anyway: they are computed once and kept."""
    frozen = context.job.task in ("classification", "anomaly")
    return check_data(
        parts.train,
        parts.held_out,
        embed=context.embedder if frozen else None,
        truncated=lambda texts: cut(context.embedder.read(texts)),
        unknown=lambda texts: unknown(context.embedder.read(texts), context.model.text),
        baselines=parts.baselines if frozen else None,
        same_file=parts.same_file,
        seed=context.job.seed,
    )


def _forward(context: TextContext, texts: Sequence[str]) -> Iterator[Finding]:
    """The encoder on a few texts, one by one and all together: what else is in a batch must not matter."""
    items = context.embedder.read(texts)

    def together() -> Tensor:
        return torch.from_numpy(context.model.forward(items))

    def alone() -> Tensor:
        return torch.from_numpy(np.concatenate([context.model.forward([item]) for item in items]))

    tolerance = _TOLERANCE[context.placement.dtype_name]
    return check_forward(alone, rows=len(texts), width=context.model.card.width, padded=together, tolerance=tolerance)


def _loss(context: TextContext, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Finding]:
    """The cross-entropy of a fresh head on embeddings of some rows."""
    names = sorted(set(labels))
    rows = np.random.default_rng(context.job.seed).permutation(len(texts))[:_LOSS_ROWS]
    x = torch.from_numpy(context.embedder([texts[row] for row in rows]))
    y = torch.tensor([names.index(labels[row]) for row in rows])
    head = nn.Linear(x.shape[1], len(names))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    outputs = head(x)
    loss = nn.functional.cross_entropy
    return check_loss(
        lambda: loss(head(x), y), head.named_parameters(), classes=len(names), outputs=outputs.detach(), targets=y
    )


def cut(items: Sequence[Tokens]) -> list[float]:
    """1.0 for each text of more tokens than the model reads, 0.0 for the others."""
    return [float(item.truncated) for item in items]


def unknown(items: Sequence[Tokens], processor: TextProcessor) -> list[float]:
    """The share of each text's own tokens that the vocabulary does not have, 0 to 1; 0 where it has no token for
    that.
    """
    if processor.unknown_id is None:
        return [0.0] * len(items)
    return [
        float(np.sum(item.ids == processor.unknown_id)) / max(len(item.ids) - processor.special_tokens, 1)
        for item in items
    ]
