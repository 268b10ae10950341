"""BERT without padding: all tokens of a batch in one matrix, attention apart for each text.

Against the general path this saves the padding, two thirds of the matrix calls for Q, K and V, and the Python around
each layer, which is most of the time of a single short text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from models.card import Between, nothing
from models.pipeline import Unsupported
from models.text import Tokens

# Attention over many short texts one by one is mostly overhead: texts of up to _SHORT tokens share blocks of _BLOCK, a
# multiple of the processor's tile, with a mask between them (benchmarks: 2.8 times as fast at 12 tokens).
_SHORT = 48
_BLOCK = 96
_TILE = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each text lies: in the packed matrix of all tokens, and in the blocks that attention works on.

    `positions` int64 [tokens] counts within each text and `owner` int64 [tokens] names it; `lengths` int64 [texts]. A block
    is a long text, or several short ones. `grid` int64 [blocks, longest block] gives the row of each place in a block (row 0
    where there is none), `places` int64 [tokens] is its inverse, and `mask` [blocks, 1, longest, longest] is added to the
    attention's scores: 0 within a text, -inf between texts. Where every block is one text and all are equally long, the
    packed matrix is the blocks already and the three are None.
    """

    ids: Tensor
    positions: Tensor
    owner: Tensor
    lengths: Tensor
    block: int
    grid: Tensor | None
    places: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, batch: Sequence[Tokens], device: torch.device, dtype: torch.dtype) -> Layout:
        """Lay a batch out."""
        lengths = np.array([item.count for item in batch], dtype=np.int64)
        owner = np.repeat(np.arange(len(batch)), lengths)
        positions = np.arange(len(owner)) - np.repeat(lengths.cumsum() - lengths, lengths)
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)

        def there(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        packed = (there(ids), there(positions), there(owner), there(lengths))
        blocks, starts, size = _in_blocks(lengths)
        if len(blocks) == blocks[-1] + 1 and (lengths == size).all():
            return cls(*packed, size, None, None, None)
        places = blocks[owner] * size + starts[owner] + positions
        grid = np.zeros((blocks[-1] + 1) * size, dtype=np.int64)
        owners = np.full(len(grid), -1)
        grid[places], owners[places] = np.arange(len(owner)), owner
        owned = there(owners).view(-1, 1, size)
        mask = torch.zeros(len(owned), 1, size, size, dtype=dtype, device=device)
        mask.masked_fill_(owned.unsqueeze(-1) != owned.unsqueeze(-2), -torch.inf)
        return cls(*packed, size, there(grid), there(places), mask)

    def blocked(self, rows: Tensor) -> Tensor:
        """Rows [tokens, …] → [blocks, longest, …]."""
        taken = rows if self.grid is None else rows.index_select(0, self.grid)
        return taken.view(-1, self.block, *rows.shape[1:])

    def unblocked(self, blocks: Tensor) -> Tensor:
        """[blocks, longest, …] → rows [tokens, …]; the reverse of `blocked`."""
        rows = blocks.flatten(0, 1)
        return rows if self.places is None else rows.index_select(0, self.places)

    def pool(self, rows: Tensor, mode: str) -> Tensor:
        """Token vectors [tokens, d] → text vectors float32 [texts, d]: their mean, the first or the last."""
        if mode == "mean":
            sums = torch.zeros(len(self.lengths), rows.shape[1], device=rows.device).index_add_(0, self.owner, rows.float())
            return sums / self.lengths[:, None]
        ends = self.lengths.cumsum(0)
        return rows[ends - self.lengths if mode == "cls" else ends - 1].float()


class PackedBert(nn.Module):
    """BERT's encoder over a packed batch. Dropout is left out: this is for inference."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = int(config["hidden_size"]), float(config["layer_norm_eps"])
        self.words = _Embedding(int(config["vocab_size"]), width)
        self.places = _Embedding(int(config["max_position_embeddings"]), width)
        self.norm = nn.LayerNorm(width, eps)
        heads, inner = int(config["num_attention_heads"]), int(config["intermediate_size"])
        self.layers = nn.ModuleList(_Layer(width, heads, inner, eps) for _ in range(int(config["num_hidden_layers"])))

    def forward(self, layout: Layout, between: Between = nothing) -> Tensor:
        """Token vectors [tokens, d] in the weights' dtype; `between` is called before each layer."""
        rows: Tensor = self.norm(self.words(layout.ids) + self.places(layout.positions))
        for layer in self.layers:
            between()
            rows = layer(rows, layout)
        return rows

    @classmethod
    def load(cls, path: Path, config: dict[str, Any]) -> PackedBert:
        """Build from a model directory. Raises Unsupported for anything but plain BERT."""
        if config.get("model_type") != "bert" or config.get("is_decoder") or config.get("add_cross_attention"):
            raise Unsupported(f"its architecture is {config.get('model_type')}")
        if config.get("hidden_act") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
            raise Unsupported(f"its activation is {config.get('hidden_act')}, its positions {config.get('position_embedding_type')}")
        weights = path / "model.safetensors"
        if not weights.is_file():
            raise Unsupported("its weights are in several files")
        with torch.device("meta"):
            network = cls(config)
        network.load_state_dict(_renamed(weights, len(network.layers)), assign=True)
        return network


class _Embedding(nn.Embedding):
    """Weights are still to come. To draw random ones on the meta device, PyTorch would import SymPy for two seconds."""

    def reset_parameters(self) -> None:
        """Leave them as they are."""


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.wide = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, rows: Tensor, layout: Layout) -> Tensor:
        rows = self.attention_norm(self.out(self._attend(self.qkv(rows), layout)) + rows)
        result: Tensor = self.norm(self.narrow(functional.gelu(self.wide(rows))) + rows)
        return result

    def _attend(self, qkv: Tensor, layout: Layout) -> Tensor:
        """Attention within each text: [tokens, 3 d] → [tokens, d]."""
        blocks = layout.blocked(qkv)
        query, key, value = blocks.view(*blocks.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask)
        return layout.unblocked(mixed.transpose(1, 2).flatten(2))


def _in_blocks(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """For each text the block it goes to and where it starts there; and the size of all blocks."""
    longest = int(lengths.max())
    if longest > _SHORT or len(lengths) == 1:
        return np.arange(len(lengths)), np.zeros_like(lengths), longest
    blocks, starts = np.zeros_like(lengths), np.zeros_like(lengths)
    block = used = fullest = 0
    for index, length in enumerate(lengths.tolist()):
        if used + length > _BLOCK:
            block, used = block + 1, 0
        blocks[index], starts[index] = block, used
        used += length
        fullest = max(fullest, used)
    return blocks, starts, -(-fullest // _TILE) * _TILE


def _renamed(weights: Path, layers: int) -> dict[str, Tensor]:
    """BERT's weights under our names: Q, K and V joined, the one token type that texts have added to the positions."""
    with safe_open(weights, framework="pt") as stored:
        prefix = "bert." if any(name.startswith("bert.") for name in stored.keys()) else ""  # noqa: SIM118  # no mapping

        def take(*names: str) -> Tensor:
            return torch.cat([stored.get_tensor(prefix + name).float() for name in names])

        types = take("embeddings.token_type_embeddings.weight")[0]
        state = {
            "words.weight": take("embeddings.word_embeddings.weight"),
            "places.weight": take("embeddings.position_embeddings.weight") + types,
            "norm.weight": take("embeddings.LayerNorm.weight"),
            "norm.bias": take("embeddings.LayerNorm.bias"),
        }
        names = {
            "out": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "wide": "intermediate.dense",
            "narrow": "output.dense",
            "norm": "output.LayerNorm",
        }
        for layer in range(layers):
            theirs = f"encoder.layer.{layer}"
            for kind in ("weight", "bias"):
                state[f"layers.{layer}.qkv.{kind}"] = take(
                    *(f"{theirs}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))
                )
                state.update({f"layers.{layer}.{ours}.{kind}": take(f"{theirs}.{name}.{kind}") for ours, name in names.items()})
        return state
