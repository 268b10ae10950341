"""Tuning an encoder on labelled texts, for a linear head to be fitted on what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.placement import Placement
from models.source import ModelSource
from models.training.errors import TrainingDataError
from models.training.events import Events
from models.training.hyperparameters import Head
from models.training.report import Report
from models.training.tuning import losses
from models.training.tuning.batch_plan import Plan, by_label, plan, shuffled
from models.training.tuning.batches import Augment, Batch, Batches
from models.training.tuning.settings import TunerSettings
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.trainer import Tuner, fingerprint

# With so many rows or fewer an encoder is tuned in several passes.
_FEW_ROWS = 2000


def own_settings(how: Literal["contrastive", "full", "lora"], rows: int) -> TunerSettings:
    """What proved good on Banking77, 10 texts a class (docs/training.md has the figures); a job's own wishes go
    before.
    """
    if how == "contrastive":
        if rows <= _FEW_ROWS:
            return TunerSettings(epochs=4.0, batch_size=64, learning_rate=2e-4, temperature=0.1, frozen_layers=0.5)
        return TunerSettings(epochs=1.0, batch_size=64, learning_rate=5e-5, temperature=0.1)
    rate = 5e-5 if how == "full" else 5e-4
    return TunerSettings(mode=how, epochs=3.0 if rows <= _FEW_ROWS else 2.0, batch_size=32, learning_rate=rate)


def tune_contrastive(
    source: ModelSource,
    placement: Placement,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: TunerSettings,
    events: Events,
    checkpoint: Path | None = None,
    *,
    directory: Path,
    augment: Augment | None = None,
    report: Report | None = None,
) -> Path:
    """Pull texts of a label together and apart from others; return `directory/encoder`, a sentence-transformers
    directory.

    Checkpoints go to `directory/checkpoints`; `checkpoint` is one of an earlier attempt. Raises TrainingDataError
    when no label has two texts, or there is one label only.
    """
    targets = _numbers(labels)
    if len(set(labels)) < 2 or len(set(labels)) == len(labels):
        raise TrainingDataError(
            "too_few_examples", "contrastive tuning needs two labels, and two texts of one of them", "training_file"
        )
    batches = plan(
        by_label(labels, settings.batch_size, settings.per_label),
        epochs=settings.epochs,
        seed=settings.seed,
        max_steps=settings.max_steps,
    )
    name = settings.loss or losses.names("labelled")[0]
    loss = losses.make(name, "labelled", temperature=settings.temperature, matryoshka=settings.matryoshka)
    encoder = TrainableEncoder(source, placement, settings)
    data = Batches([texts], targets, batches, encoder.reading, augment=augment)
    run = Tuner(
        encoder,
        lambda batch: loss(encoder.columns(batch), batch.targets),
        data,
        settings,
        placement,
        directory=directory / "checkpoints",
        events=events,
        fingerprint=fingerprint("contrastive", source.version, list(texts), list(labels)),
        report=report,
    )
    run.run(checkpoint)
    return encoder.save(directory / "encoder")


def tune_with_head(
    source: ModelSource,
    placement: Placement,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: TunerSettings,
    events: Events,
    checkpoint: Path | None = None,
    *,
    directory: Path,
    augment: Augment | None = None,
    report: Report | None = None,
) -> Path:
    """Tune the encoder (`settings.mode` full or lora) under `settings.head` with cross-entropy; return
    `directory/encoder`.

    The head is thrown away: a linear one fitted on the tuned embeddings takes its place.
    """
    targets = _numbers(labels)
    if len(set(labels)) < 2:
        raise TrainingDataError("too_few_examples", "a classifier needs two labels", "training_file")
    batches: Plan = plan(
        shuffled(len(texts), settings.batch_size),
        epochs=settings.epochs,
        seed=settings.seed,
        max_steps=settings.max_steps,
    )
    encoder = TrainableEncoder(source, placement, settings)
    means = _means(encoder, Batches([texts], targets, _in_order(len(texts), 64), encoder.reading), len(set(labels)))
    model = _WithHead(encoder, made_head(settings.head, means, settings.temperature))
    data = Batches([texts], targets, batches, encoder.reading, augment=augment)
    run = Tuner(
        model,
        model.loss,
        data,
        settings,
        placement,
        directory=directory / "checkpoints",
        events=events,
        fingerprint=fingerprint("head", source.version, list(texts), list(labels)),
        report=report,
        fresh=False,
    )
    run.run(checkpoint)
    return encoder.save(directory / "encoder")


class _WithHead(nn.Module):
    """An encoder and a head on its embeddings."""

    def __init__(self, encoder: TrainableEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a batch."""
        if batch.targets is None:
            raise ValueError("expected targets, got none")
        losses.require_vector(batch.targets, len(batch), torch.int64)
        return functional.cross_entropy(self.head(self.encoder.columns(batch)[0]), batch.targets)


class _Cosines(nn.Module):
    """A head of cosines to one vector per label, over a temperature."""

    def __init__(self, begin: Tensor, temperature: float) -> None:
        super().__init__()
        self.weight, self.temperature = nn.Parameter(begin.clone()), temperature

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, labels] of embeddings [n, d]."""
        return x @ functional.normalize(self.weight, dim=-1).T / self.temperature


def made_head(kind: Head, means: Tensor, temperature: float) -> nn.Module:
    """A head that begins at cosines to the labels' means [labels, d] over a temperature: a random one would first
    have to be learned.

    "linear" is free to go anywhere from there: its weights have any length, and there is a bias.
    """
    if kind == "cosine":
        return _Cosines(means, temperature)
    head = nn.Linear(means.shape[1], means.shape[0], device=means.device)
    with torch.no_grad():
        head.weight.copy_(means / temperature)
        head.bias.zero_()
    return head


def _means(encoder: TrainableEncoder, batches: Batches, labels: int) -> Tensor:
    """The mean embedding of each label's texts, at length 1: [labels, d]."""
    encoder.eval()
    device = encoder.placement.device
    sums = torch.zeros(labels, encoder.width, device=device)
    with torch.no_grad():
        for step in range(len(batches)):
            batch = batches[step].to(device)
            if batch.targets is not None:
                sums.index_add_(0, batch.targets, encoder.columns(batch)[0])
    return functional.normalize(sums, dim=-1)


def _numbers(labels: Sequence[str]) -> Tensor:
    """Labels as int64 [n], numbered in alphabetical order."""
    number = {label: index for index, label in enumerate(sorted(set(labels)))}
    return torch.tensor([number[label] for label in labels], dtype=torch.int64)


def _in_order(rows: int, batch_size: int) -> Plan:
    return [list(range(start, min(start + batch_size, rows))) for start in range(0, rows, batch_size)]
