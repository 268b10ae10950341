"""Tuning of an encoder on labelled texts or images, by a contrastive loss or under a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from models.runtime.placement import Placement
from models.source import ModelSource
from models.training.errors import TrainingDataError
from models.training.job_events import Events
from models.training.report import Report
from models.training.tuning import losses
from models.training.tuning.batch_plan import Epoch, by_label, in_order, plan, shuffled
from models.training.tuning.batches import Augment, Batch, Batches
from models.training.tuning.settings import TunerSettings
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.training_heads import EncoderWithHead, build_head, label_means
from models.training.tuning.training_loop import TrainingLoop, fingerprint
from models.training.tuning.tunable_encoder import TunableEncoder

Method = Literal["contrastive", "full", "lora"]
OpenEncoder = Callable[[ModelSource, Placement, TunerSettings], TunableEncoder]

# With at most this many rows, an encoder is tuned in several passes.
_FEW_ROWS = 2000
_MEANS_BATCH = 64


def default_settings(method: Method, rows: int) -> TunerSettings:
    """Settings that proved good on Banking77 with 10 texts a class (benchmarks/NOTES.md)."""
    few = rows <= _FEW_ROWS
    if method == "contrastive":
        if few:
            return TunerSettings(epochs=4.0, batch_size=64, learning_rate=2e-4, temperature=0.1, frozen_layers=0.5)
        return TunerSettings(epochs=1.0, batch_size=64, learning_rate=5e-5, temperature=0.1)
    rate = 5e-5 if method == "full" else 5e-4
    return TunerSettings(mode=method, epochs=3.0 if few else 2.0, batch_size=32, learning_rate=rate)


@dataclass(frozen=True, slots=True)
class LabelledTuning:
    """Tunes an encoder on texts, or keys of images, with labels and writes it to `directory/encoder`.

    Checkpoints go to `directory/checkpoints`; `checkpoint` is one of an earlier attempt.
    """

    source: ModelSource
    placement: Placement
    texts: Sequence[str]
    labels: Sequence[str]
    settings: TunerSettings
    events: Events
    directory: Path
    checkpoint: Path | None = None
    augment: Augment | None = None
    report: Report | None = None
    open_encoder: OpenEncoder = TrainableEncoder

    def contrastive(self) -> Path:
        """Pull texts of a label together and apart from others; return the encoder's directory.

        Raises TrainingDataError unless there are two labels, one of them with two texts.
        """
        settings, different = self.settings, len(set(self.labels))
        if different < 2 or different == len(self.labels):
            message = "contrastive tuning needs two labels, and two texts of one of them"
            raise TrainingDataError("too_few_examples", message, "training_file")
        name = settings.loss or losses.names("labelled")[0]
        loss = losses.make(name, "labelled", temperature=settings.temperature, matryoshka=settings.matryoshka)
        encoder = self.open_encoder(self.source, self.placement, settings)

        def compute(batch: Batch) -> Tensor:
            return loss(encoder.columns(batch), batch.targets)

        epoch = by_label(self.labels, settings.batch_size, settings.per_label)
        return self._run("contrastive", encoder, encoder, compute, epoch, fresh=True)

    def under_head(self) -> Path:
        """Train with cross-entropy under `settings.head`; return the encoder's directory.

        The head is dropped. Raises TrainingDataError unless there are two labels.
        """
        settings, rows = self.settings, len(self.texts)
        if len(set(self.labels)) < 2:
            raise TrainingDataError("too_few_examples", "a classifier needs two labels", "training_file")
        encoder = self.open_encoder(self.source, self.placement, settings)
        all_rows = Batches([self.texts], self._targets(), in_order(rows, _MEANS_BATCH), encoder.reader)
        means = label_means(encoder, all_rows, len(set(self.labels)))
        model = EncoderWithHead(encoder, build_head(settings.head, means, settings.temperature))
        return self._run("head", encoder, model, model.loss, shuffled(rows, settings.batch_size), fresh=False)

    def _run(
        self,
        stage: str,
        encoder: TunableEncoder,
        module: nn.Module,
        loss: Callable[[Batch], Tensor],
        epoch: Epoch,
        *,
        fresh: bool,
    ) -> Path:
        settings = self.settings
        batches = plan(epoch, epochs=settings.epochs, seed=settings.seed, max_steps=settings.max_steps)
        tuner = TrainingLoop(
            module,
            loss,
            Batches([self.texts], self._targets(), batches, encoder.reader, augment=self.augment),
            settings,
            self.placement,
            directory=self.directory / "checkpoints",
            events=self.events,
            fingerprint=fingerprint(stage, self.source.version, list(self.texts), list(self.labels)),
            report=self.report,
            fresh=fresh,
        )
        tuner.run(self.checkpoint)
        return encoder.save(self.directory / "encoder")

    def _targets(self) -> Tensor:
        """The labels as int64 [n], numbered in alphabetical order."""
        number = {label: index for index, label in enumerate(sorted(set(self.labels)))}
        return torch.tensor([number[label] for label in self.labels], dtype=torch.int64)
