"""Settings of a tuning run, from a recipe's own values and the job's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from models.training.hyperparameters import Head
from models.training.tuning.lora import Layers
from models.training.tuning.text_augmentation import Augmenter

Mode = Literal["full", "lora"]


@dataclass(frozen=True, slots=True)
class TunerSettings:
    """Settings of a tuning run, the same for every recipe.

    `warmup` is a share of all steps, and `schedule` follows it. `per_label`: texts of a label that stand together in a
    batch. `head`: the head under which modes full and lora learn labels. `loss` None: the default for the kind of
    rows. `matryoshka`: the prefixes of the embedding to train.

    `freeze_embeddings` keeps the word embeddings: half of a small encoder's weights and most of an optimizer step on a
    CPU; words that the file lacks keep their meaning. `frozen_layers` also freezes this share of the lowest layers,
    and the word and position embeddings below them, so that no gradient goes down there.
    """

    mode: Mode = "full"
    epochs: float = 1.0
    batch_size: int = 32
    max_steps: int | None = None
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 7
    checkpoint_every: int = 0
    head: Head = "cosine"
    loss: str | None = None
    temperature: float = 0.05
    matryoshka: tuple[int, ...] = ()
    per_label: int = 2
    hard_negatives: int = 0
    freeze_embeddings: bool = True
    frozen_layers: float = 0.0
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    lora_layers: Layers = "all"


def merge_settings(own: TunerSettings, asked: Any, *, seed: int) -> TunerSettings:
    """A recipe's `own` settings, replaced by those of a job's hyperparameters that are set.

    "auto" keeps the recipe's value; `learning_rate_multiplier` multiplies its rate.
    """
    renamed = {"n_epochs": "epochs"}
    known = {field.name for field in fields(TunerSettings)}
    given: Mapping[str, Any] = {renamed.get(name, name): getattr(asked, name) for name in asked.model_fields_set}
    set_values = {name: value for name, value in given.items() if name in known and value != "auto"}
    multiplier = given.get("learning_rate_multiplier", "auto")
    if multiplier != "auto":
        set_values["learning_rate"] = own.learning_rate * multiplier
    if set_values.get("mode") in ("frozen", "contrastive"):
        del set_values["mode"]
    return replace(own, **set_values, seed=seed)


def augmenter(asked: Any, seed: int) -> Augmenter | None:
    """The augmenter for a job's augmentation hyperparameters; None without any."""
    settings = {name: float(value) for name, value in asked.model_dump().items() if value}
    return Augmenter(settings, seed) if settings else None
