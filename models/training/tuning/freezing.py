"""Choice of the parameters that train: adapters, upper layers, word embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.training.errors import TrainingError
from models.training.hyperparameters import PARAM
from models.training.tuning.lora import add_lora
from models.training.tuning.settings import TunerSettings


def add_adapters(network: nn.Module, settings: TunerSettings) -> None:
    """Freeze a network and add the LoRA adapters that the settings ask for."""
    torch.manual_seed(settings.seed)  # A starts random
    add_lora(
        network,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        layers=settings.lora_layers,
    )


def freeze_word_embeddings(network: Any) -> None:
    """Freeze the word embeddings of a transformers model."""
    network.get_input_embeddings().requires_grad_(False)


def freeze_lower_layers(network: Any, share: float) -> None:
    """Freeze all but the layers above the lowest `share`; at least one layer trains.

    Layers that share their weights (ALBERT) count as one. Raises TrainingError with code `no_layers` for a model
    without a list of layers.
    """
    count = getattr(network.config, "num_hidden_groups", network.config.num_hidden_layers)
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList))
    layers = next((module for module in lists if len(module) == count), None)
    if layers is None:
        message = f"{type(network).__name__} has no list of {count} layers to freeze a part of"
        raise TrainingError("no_layers", message, f"{PARAM}.mode")
    network.requires_grad_(False)
    for layer in layers[min(round(share * count), count - 1) :]:
        layer.requires_grad_(True)


def freeze_up_to(network: nn.Module, share: float) -> None:
    """Freeze the lowest `share` of a network's layers and all before them; at least one layer trains.

    The layers are the first list of modules that trains; what is registered before it comes before it in the network.
    Raises TrainingError with code `no_layers` for a network without such a list.
    """
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList))
    layers = next((one for one in lists if any(parameter.requires_grad for parameter in one.parameters())), None)
    if layers is None:
        raise TrainingError("no_layers", f"{type(network).__name__} has no list of layers", f"{PARAM}.mode")
    first = next(layers[min(round(share * len(layers)), len(layers) - 1)].parameters())
    for parameter in network.parameters():
        if parameter is first:
            return
        parameter.requires_grad_(False)
