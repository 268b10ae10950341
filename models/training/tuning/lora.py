"""Low-rank adapters on an encoder's linear layers, merged into the weights before anything is saved.

W' = W + (alpha / rank) · B · A with A [rank, in], B [out, rank]; only A and B train (Hu et al., 2021).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from models.errors import ModelError

Layers = Literal["attention", "all"]

_ATTENTION = (
    "query",
    "key",
    "value",
    "q_lin",
    "k_lin",
    "v_lin",
    "q",
    "k",
    "v",
    "q_proj",
    "k_proj",
    "v_proj",
    "Wqkv",
    "qkv",
)
# Heads, not layers: they are trained as they are, or not at all.
_HEADS = ("pooler", "classifier", "score", "head", "pre_classifier")


def add_lora(network: nn.Module, *, rank: int, alpha: float, dropout: float, layers: Layers = "all") -> None:
    """Freeze a transformers model and put adapters on its linear layers, in place.

    Raises ModelError when the model has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = targets(network, layers)
    if not names:
        raise ModelError(f"{type(network).__name__} has no linear layers for LoRA ({layers})", param="lora_layers")
    scaled: Any = alpha  # peft says int and divides it by the rank
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=scaled, lora_dropout=dropout, target_modules=names, bias="none"), network
    )


def merge(network: nn.Module) -> None:
    """Put W + (alpha / rank) * B @ A in the place of each adapted layer, so that nothing of LoRA is left.

    Raises ValueError where a merged weight would not be finite.
    """
    from peft.tuners.lora import Linear

    for name, module in list(network.named_modules()):
        if isinstance(module, Linear):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())


def targets(network: nn.Module, layers: Layers) -> list[str]:
    """Names of the linear layers that get adapters: the projections of attention to query, key and value, or all but
    heads.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    inner = [name for name in linear if not any(part in _HEADS for part in name.split("."))]
    return inner if layers == "all" else [name for name in inner if name.rsplit(".", 1)[-1] in _ATTENTION]
