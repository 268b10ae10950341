"""The data, forward and loss checks of a text job, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.images.pixels import Pixels
from models.runtime.placement import Placement
from models.text.tokenization import TextProcessor, Tokens
from models.training.checks.data import check_data
from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss
from models.training.context import EncoderContext, ImageContext, TextContext
from models.training.data.dataset import DataSplit
from models.training.embeddings import RowEncoder
from models.training.report import Finding, with_subject

_FORWARD_ROWS = 16
_LOSS_ROWS = 256
# In bfloat16 a vector depends a little on the other texts of its batch.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


def check_rows(context: TextContext, parts: DataSplit) -> None:
    """Check the rows and the base encoder.

    Raises CheckFailed at the first kind of check (data, forward, loss) that fails.
    """
    context.report.extend(_check_data(context, parts))
    context.report.raise_if_failed("data")
    texts = list(dict.fromkeys(parts.train.texts[0]))[:_FORWARD_ROWS]
    if context.model.metadata.task == "embedding":
        items = context.embedder.read(texts)
        context.report.extend(with_subject("encoder", _check_encoder(context.model, items, context.placement)))
        context.report.raise_if_failed("forward")
    if context.job.task == "classification" and parts.train.labels is not None:
        findings = _check_head_loss(context, parts.train.texts[0], parts.train.labels)
        context.report.extend(with_subject("head on the frozen encoder", findings))
        context.report.raise_if_failed("loss")


def check_images(context: ImageContext, parts: DataSplit) -> None:
    """Check images and their encoder. Raises as `check_rows` does."""
    report, embedder = context.report, context.embedder
    findings = check_data(
        parts.train,
        parts.held_out,
        embed=embedder if context.job.task == "classification" else None,
        baselines=parts.baselines,
        same_file=parts.same_file,
        seed=context.job.seed,
    )
    report.extend(findings)
    report.raise_if_failed("data")
    pixels = [context.store.pixels(key) for key in parts.train.texts[0][:_FORWARD_ROWS]]
    report.extend(with_subject("encoder", _check_encoder(context.model, pixels, context.placement)))
    report.raise_if_failed("forward")
    if parts.train.labels is not None:
        findings = _check_head_loss(context, parts.train.texts[0], parts.train.labels)
        report.extend(with_subject("head on the frozen encoder", findings))
        report.raise_if_failed("loss")


def _check_data(context: TextContext, parts: DataSplit) -> Iterator[Finding]:
    """Check the rows; with embeddings where the recipe computes (and caches) them anyway."""
    uses_embeddings = context.job.task in ("classification", "anomaly")
    return check_data(
        parts.train,
        parts.held_out,
        embed=context.embedder if uses_embeddings else None,
        truncated=lambda texts: truncated_texts(context.embedder.read(texts)),
        unknown=lambda texts: unknown_token_shares(context.embedder.read(texts), context.model.text),
        baselines=parts.baselines if uses_embeddings else None,
        columns=context.job.columns,
        same_file=parts.same_file,
        seed=context.job.seed,
    )


def _check_encoder(model: RowEncoder, items: Sequence[Tokens | Pixels], placement: Placement) -> Iterator[Finding]:
    """Encode a few inputs one by one and as one batch; the batch must not change an embedding."""

    def batched() -> Tensor:
        return torch.from_numpy(model.forward(items))

    def one_by_one() -> Tensor:
        return torch.from_numpy(np.concatenate([model.forward([item]) for item in items]))

    tolerance, width = _TOLERANCE[placement.dtype_name], model.metadata.width
    return check_forward(one_by_one, rows=len(items), width=width, padded=batched, tolerance=tolerance)


def _check_head_loss(context: EncoderContext, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Finding]:
    """Check the cross-entropy of a zero-initialised head on the embeddings of some rows."""
    names = sorted(set(labels))
    rows = np.random.default_rng(context.job.seed).permutation(len(texts))[:_LOSS_ROWS]
    x = torch.from_numpy(context.embedder([texts[row] for row in rows]))
    y = torch.tensor([names.index(labels[row]) for row in rows])
    head = nn.Linear(x.shape[1], len(names))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    logits = head(x).detach()

    def cross_entropy() -> Tensor:
        return nn.functional.cross_entropy(head(x), y)

    return check_loss(cross_entropy, head.named_parameters(), classes=len(names), outputs=logits, targets=y)


def truncated_texts(items: Sequence[Tokens]) -> list[float]:
    """1.0 for each text with more tokens than the model reads, 0.0 for the others."""
    return [float(item.truncated) for item in items]


def unknown_token_shares(items: Sequence[Tokens], processor: TextProcessor) -> list[float]:
    """The share (0 to 1) of each text's own tokens that the vocabulary lacks.

    It is 0 for a tokenizer without an unknown token.
    """
    if processor.unknown_id is None:
        return [0.0] * len(items)
    return [
        float(np.sum(item.ids == processor.unknown_id)) / max(len(item.ids) - processor.special_tokens, 1)
        for item in items
    ]
