"""The optimizer of a tuning run, and the learning rate of each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from models.runtime.placement import Placement
from models.training.errors import TrainingError
from models.training.hyperparameters import PARAM
from models.training.tuning.settings import TunerSettings


def build_optimizer(module: nn.Module, settings: TunerSettings, placement: Placement) -> torch.optim.Optimizer:
    """An optimizer of the trainable parameters, without weight decay for biases and norms.

    Raises TrainingError with code `nothing_trains` where all are frozen.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("nothing_trains", "every parameter of the model is frozen", f"{PARAM}.mode")
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=settings.learning_rate)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=placement.device.type in ("cpu", "cuda"))


def learning_rate(settings: TunerSettings, step: int, total: int) -> float:
    """The learning rate of a step, 1 … total.

    A linear warm-up, then constant, a line to 0, or half a cosine to 0.
    """
    warmup = round(settings.warmup * total)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    # The last step still learns: the rate would be 0 one step later.
    done = (step - warmup - 1) / max(total - warmup, 1)
    factors = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return settings.learning_rate * factors[settings.schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
