"""The names of settings and weights of BERT and its relatives, and their readers."""

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
    """An architecture's names of weights and of settings in config.json.

    `prefix` may precede all weights; `query` to `norm` are a layer's. `type_embeddings` and `relative_bias`
    are embedding tables, None where the architecture has none. `eps` is the name of the setting, or a fixed value.
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
    type_embeddings: str | None = None
    relative_bias: str | None = None
    width: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    intermediate: str = "intermediate_size"
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
    type_embeddings="embeddings.token_type_embeddings",
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
    type_embeddings=None,
    relative_bias="encoder.relative_attention_bias",
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
    intermediate="hidden_dim",
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
    """The sizes of a network.

    `first_position` is that of a text's first token. `relative_buckets` is 0 without relative positions.
    """

    vocabulary: int
    positions: int
    first_position: int
    width: int
    layers: int
    heads: int
    intermediate: int
    eps: float
    relative_buckets: int


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """Read the sizes from config.json.

    Raises Unsupported for anything but a plain encoder of one of ARCHITECTURES.
    """
    kind = config.get("model_type")
    names = ARCHITECTURES.get(str(kind))
    if names is None or config.get("is_decoder") or config.get("add_cross_attention"):
        raise Unsupported(f"its architecture is {kind}")

    def required(name: str) -> Any:
        if name not in config:
            raise Unsupported(f"its config.json does not say {name}")
        return config[name]

    if required(names.activation) != "gelu":
        raise Unsupported(f"its activation is {config[names.activation]}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"its positions are {config['position_embedding_type']}")
    return BertShape(
        vocabulary=int(required("vocab_size")),
        positions=int(required("max_position_embeddings")),
        first_position=first_position(config),
        width=int(required(names.width)),
        layers=int(required(names.layers)),
        heads=int(required(names.heads)),
        intermediate=int(required(names.intermediate)),
        eps=names.eps if isinstance(names.eps, float) else float(required(names.eps)),
        relative_buckets=int(required("relative_attention_num_buckets")) if names.relative_bias else 0,
    )


def read_weights(path: Path, names: WeightNames, layers: int, *, map_words: bool = False) -> dict[str, Tensor]:
    """Read the weights in `path` under PackedBert's names, float32.

    Q, K and V become one matrix. Texts have token type 0 only, so its row is added to the position embeddings. With
    `map_words`, word embeddings in float32 stay in the file, of which the process then has the pages that it has used.
    """
    with safe_open(path, framework="pt") as stored:
        stored_names = {_current_name(name, names.prefix): name for name in stored.keys()}  # noqa: SIM118  # no mapping

    def take(name: str, *, copy: bool = True) -> Tensor:
        # Opened for each weight, since pages read from an open file count as the process's memory. Copied, since a view
        # of the file would change with the file, and lies where vector instructions are slower.
        with safe_open(path, framework="pt") as stored:
            tensor: Tensor = stored.get_tensor(stored_names.get(name, name)).to(torch.float32, copy=copy)
            return tensor

    state = {
        "word_embeddings.weight": take("embeddings.word_embeddings.weight", copy=not map_words),
        "position_embeddings.weight": take("embeddings.position_embeddings.weight"),
    }
    if names.type_embeddings:
        state["position_embeddings.weight"] += take(f"{names.type_embeddings}.weight")[0]
    if names.relative_bias:
        state["relative_bias.weight"] = take(f"{names.relative_bias}.weight")
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = take(f"embeddings.LayerNorm.{kind}")
        for layer in range(layers):
            state.update(_read_layer(take, names, layer, kind))
    return state


def _current_name(stored: str, prefix: str) -> str:
    """A stored weight's name without the prefix; norms had other names when BERT came out."""
    name = stored.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_layer(take: Callable[[str], Tensor], names: WeightNames, layer: int, kind: str) -> dict[str, Tensor]:
    """Read one layer's tensors of a kind, "weight" or "bias"."""
    ours, theirs = f"layers.{layer}", f"{names.layer}.{layer}"
    state = {
        f"{ours}.{part}.{kind}": take(f"{theirs}.{getattr(names, part)}.{kind}")
        for part in ("out", "attention_norm", "up_proj", "down_proj", "norm")
    }
    joined = torch.cat([take(f"{theirs}.{part}.{kind}") for part in (names.query, names.key, names.value)])
    return {**state, f"{ours}.qkv.{kind}": joined}
