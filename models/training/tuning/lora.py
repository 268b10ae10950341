"""Low-rank adapters on an encoder's linear layers, merged into the weights before saving.

W' = W + (alpha / rank) · B · A with A [rank, in] and B [out, rank]; only A and B train (Hu et al., 2021).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from models.errors import ModelError

Layers = Literal["attention", "all"]

_QUERY_KEY_VALUE = {f"{letter}{ending}" for letter in "qkv" for ending in ("", "_lin", "_proj")}
_ATTENTION = {"query", "key", "value", "qkv", "Wqkv", "c_attn"} | _QUERY_KEY_VALUE
# Names of heads in transformers models. Heads get no adapters: they train as they are, or not at all.
HEADS = ("pooler", "classifier", "score", "head", "pre_classifier", "_fc")


def add_lora(network: nn.Module, *, rank: int, alpha: float, dropout: float, layers: Layers = "all") -> None:
    """Freeze a transformers model and put adapters on its linear layers, in place.

    Raises ModelError for a model without such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    names = targets(network, layers)
    if not names:
        raise ModelError(
            f"{type(network).__name__} has no linear layers for LoRA ({layers}): take mode full", param="lora_layers"
        )
    scaled: Any = alpha  # peft declares int, but divides it by the rank
    transposed = any(isinstance(network.get_submodule(name), Conv1D) for name in names)
    config = LoraConfig(
        r=rank, lora_alpha=scaled, lora_dropout=dropout, target_modules=names, bias="none", fan_in_fan_out=transposed
    )
    inject_adapter_in_model(config, network)


def merge(network: nn.Module) -> None:
    """Replace each adapted layer by a linear layer with W + (alpha / rank) · B · A.

    Raises ValueError where a merged weight is not finite.
    """
    from peft.tuners.lora import Linear

    for name, module in list(network.named_modules()):
        if isinstance(module, Linear):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())


def targets(network: nn.Module, layers: Layers) -> list[str]:
    """Names of the layers for adapters: attention's query, key and value, or all but heads."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers, with weights [in, out]

    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    inner = [name for name in linear if not any(part in HEADS for part in name.split("."))]
    return inner if layers == "all" else [name for name in inner if name.rsplit(".", 1)[-1] in _ATTENTION]
