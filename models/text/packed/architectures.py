"""What BERT and its relatives call their parts: one mapping of names each, onto the one structure that `packed`
computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from models.errors import Unsupported
from models.text.model_config import first_position


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Of an architecture's settings in config.json, and of its weights: `prefix` may stand before all, the parts are
    a layer's.

    `types` is the table of token types and `bias` that of relative positions, where it has them. `eps` is the
    setting that says it, or what the architecture has it fixed to.
    """

    prefix: str
    layer: str
    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up_proj: str
    down_proj: str
    norm: str
    types: str | None = None
    bias: str | None = None
    width: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"
    eps: str | float = "layer_norm_eps"


_BERT = WeightNames(
    prefix="bert.",
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up_proj="intermediate.dense",
    down_proj="output.dense",
    norm="output.LayerNorm",
    types="embeddings.token_type_embeddings",
)
_ROBERTA = replace(_BERT, prefix="roberta.")
_MPNET = replace(
    _BERT,
    prefix="mpnet.",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    attention_norm="attention.LayerNorm",
    types=None,
    bias="encoder.relative_attention_bias",
)
_DISTILBERT = WeightNames(
    prefix="distilbert.",
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up_proj="ffn.lin1",
    down_proj="ffn.lin2",
    norm="output_layer_norm",
    width="dim",
    layers="n_layers",
    heads="n_heads",
    inner="hidden_dim",
    activation="activation",
    eps=1e-12,
)
ARCHITECTURES: Mapping[str, WeightNames] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
}


@dataclass(frozen=True, slots=True)
class BertShape:
    """The sizes of a network. `first` is the position of a text's first token; `buckets` those of relative
    positions, 0 for none.
    """

    vocabulary: int
    positions: int
    first: int
    width: int
    layers: int
    heads: int
    inner: int
    eps: float
    buckets: int


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """What config.json says. Raises Unsupported for what is no plain encoder of one of ARCHITECTURES."""
    kind = config.get("model_type")
    names = ARCHITECTURES.get(str(kind))
    if names is None or config.get("is_decoder") or config.get("add_cross_attention"):
        raise Unsupported(f"its architecture is {kind}")

    def stated(name: str) -> Any:
        if name not in config:
            raise Unsupported(f"its config.json does not say {name}")
        return config[name]

    if stated(names.activation) != "gelu":
        raise Unsupported(f"its activation is {config[names.activation]}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"its positions are {config['position_embedding_type']}")
    return BertShape(
        vocabulary=int(stated("vocab_size")),
        positions=int(stated("max_position_embeddings")),
        first=first_position(config),
        width=int(stated(names.width)),
        layers=int(stated(names.layers)),
        heads=int(stated(names.heads)),
        inner=int(stated(names.inner)),
        eps=names.eps if isinstance(names.eps, float) else float(stated(names.eps)),
        buckets=int(stated("relative_attention_num_buckets")) if names.bias else 0,
    )


def read_weights(path: Path, names: WeightNames, layers: int) -> dict[str, Tensor]:
    """The weights in `path` under `packed`'s names, float32: Q, K and V joined, the only token type that texts have
    in the places.
    """
    with safe_open(path, framework="pt") as stored:
        prefix = names.prefix if any(name.startswith(names.prefix) for name in stored.keys()) else ""  # noqa: SIM118  # no mapping

    def take(name: str) -> Tensor:
        # Opened for each, since what was read of an open file counts as the process's memory. Copied, since a tensor
        # that is a view of the file would change with the file, and lies where vector instructions are slower.
        with safe_open(path, framework="pt") as stored:
            tensor: Tensor = stored.get_tensor(prefix + name).to(torch.float32, copy=True)
            return tensor

    state = {
        "words.weight": take("embeddings.word_embeddings.weight"),
        "places.weight": take("embeddings.position_embeddings.weight"),
    }
    if names.types:
        state["places.weight"] += take(f"{names.types}.weight")[0]
    if names.bias:
        state["bias.weight"] = take(f"{names.bias}.weight")
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = take(f"embeddings.LayerNorm.{kind}")
        for layer in range(layers):
            state.update(_layer(take, names, layer, kind))
    return state


def _layer(take: Callable[[str], Tensor], names: WeightNames, layer: int, kind: str) -> dict[str, Tensor]:
    """One layer's weights or its biases."""
    ours, theirs = f"layers.{layer}", f"{names.layer}.{layer}"
    state = {
        f"{ours}.{part}.{kind}": take(f"{theirs}.{getattr(names, part)}.{kind}")
        for part in ("out", "attention_norm", "up_proj", "down_proj", "norm")
    }
    joined = torch.cat([take(f"{theirs}.{part}.{kind}") for part in (names.query, names.key, names.value)])
    return {**state, f"{ours}.qkv.{kind}": joined}
