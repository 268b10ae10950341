"""BERT and its relatives without padding: all tokens of a batch in one matrix, attention apart for each text.

Against the general path this saves the padding, two thirds of the matrix calls for Q, K and V, and the Python around
each layer, which is most of the time of a single short text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.architectures import ARCHITECTURES, Shape, read_shape, read_weights
from models.card import Between, nothing
from models.compiled import compiled
from models.linear import Linear, padded, settle
from models.pipeline import Unsupported
from models.text import Tokens

# Attention works on blocks of one length, a multiple of _TILE, which is that of the processor's tiles and of softmax's steps. Short texts
# share a block, with a mask between them: one by one they would be mostly overhead.
_TILE = 32
# As products (scores, softmax, sums) attention in bfloat16 takes 0.5 to 0.7 of the time of PyTorch's own on a CPU. So many scores are made
# at a time, 8 MB: as many as a text of 512 tokens has with 16 heads.
_MOST_SCORES = 2**22
# Between the parts of a layer others are let in from so many tokens on: below, a layer is over sooner than it takes to ask.
_LARGE = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each text lies: in the packed matrix of all tokens, and in the blocks that attention works on.

    `positions` int64 [tokens] counts within each text and `owner` int64 [tokens] names it; `lengths` int64 [texts]. A block
    is a long text, or several short ones. `grid` int64 [blocks, longest block] gives the row of each place in a block (row 0
    where there is none), `places` int64 [tokens] is its inverse, and `mask` [blocks, 1, longest, longest] is added to the
    attention's scores: 0 within a text, -inf between texts. Where every block is one text and all are equally long, the
    packed matrix is the blocks already and the three are None.

    Past the batch's own `texts` there may be others of one token each, which make the number of rows one that linear layers
    like. They are in no block: attention gives them what it gives the first row, and pooling leaves them out.
    """

    texts: int
    ids: Tensor
    positions: Tensor
    owner: Tensor
    lengths: Tensor
    block: int
    grid: Tensor | None
    places: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, batch: Sequence[Tokens], device: torch.device, dtype: torch.dtype, few: int = 0) -> Layout:
        """Lay a batch out; `few` is up to how many rows oneDNN multiplies."""
        lengths = np.array([item.count for item in batch], dtype=np.int64)
        owner = np.repeat(np.arange(len(batch)), lengths)
        positions = np.arange(len(owner)) - np.repeat(lengths.cumsum() - lengths, lengths)
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)

        blocks, starts, size = _in_blocks(lengths)
        alike = len(blocks) == blocks[-1] + 1 and bool((lengths == size).all())
        extra = padded(len(ids), few) - len(ids)

        def there(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        grid = places = mask = None
        if extra or not alike:
            place = blocks[owner] * size + starts[owner] + positions
            rows, owners = np.zeros((blocks[-1] + 1) * size, dtype=np.int64), np.full((blocks[-1] + 1) * size, -1)
            rows[place], owners[place] = np.arange(len(owner)), owner
            grid, places = there(rows), there(np.pad(place, (0, extra)))
            mask = None if alike else _between(there(owners).view(-1, 1, size), dtype)
        added = np.arange(len(batch), len(batch) + extra)
        packed = (there(np.pad(ids, (0, extra))), there(np.pad(positions, (0, extra))), there(np.append(owner, added)))
        return cls(len(batch), *packed, there(np.append(lengths, np.ones_like(added))), size, grid, places, mask)

    def positions_from(self, first: int) -> Tensor:
        """Positions int64 [tokens] as RoBERTa counts them: from `first`, past padding tokens (id `first` - 1), which have `first` - 1."""
        real = (self.ids != first - 1).long()
        counted = real.cumsum(0)
        starts = self.lengths.cumsum(0) - self.lengths
        return (counted - (counted - real)[starts][self.owner]) * real + first - 1

    def pool(self, rows: Tensor, mode: str) -> Tensor:
        """Token vectors [tokens, d] → text vectors float32 [texts, d]: their mean, the first or the last."""
        if mode == "mean":
            sums = torch.zeros(len(self.lengths), rows.shape[1], device=rows.device).index_add_(0, self.owner, rows.float())
            return (sums / self.lengths[:, None])[: self.texts]
        ends = self.lengths.cumsum(0)
        at = ends - self.lengths if mode == "cls" else ends - 1
        return rows[at[: self.texts]].float()


class PackedBert(nn.Module):
    """BERT's encoder, or a relative's, over a packed batch. Dropout is left out: this is for inference."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.words = _Embedding(shape.vocabulary, shape.width)
        self.places = _Embedding(shape.positions, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)
        self.bias = _Embedding(shape.buckets, shape.heads) if shape.buckets else None
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        # In a list, since its parts are this module's: as another module here they would be there twice.
        self._whole = [_Whole(self.words, self.places, self.norm, self.layers)]
        self.few = 0

    def forward(self, layout: Layout, between: Between = nothing) -> Tensor:
        """Token vectors [tokens, d] in the weights' dtype; `between` is called before each layer, and twice within one of a large batch."""
        whole = self._whole[0]
        places = layout.positions if self.shape.first == 0 else layout.positions_from(self.shape.first)
        mask = layout.mask if self.bias is None else _biased(self.bias, layout)
        if between is nothing:
            every: Tensor = whole(layout.ids, places, layout.block, layout.grid, layout.places, mask)
            return every
        rows = whole.embed(layout.ids, places)
        for layer in cast("Iterable[_Layer]", whole.layers):
            between()
            if len(rows) < _LARGE:
                rows = layer(rows, layout.block, layout.grid, layout.places, mask)
            else:
                rows = layer.attend(rows, layout.block, layout.grid, layout.places, mask)
                between()
                wide = layer.widen(rows)
                between()
                rows = layer.narrow_down(wide, rows)
                del wide  # or the next would be made beside it
        return rows

    def placed(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready to compute there."""
        self.to(device, dtype).eval().requires_grad_(False)
        self.few = settle([layer for layer in self.modules() if isinstance(layer, Linear)])
        if device.type == "cpu":
            self._whole = [compiled(self._whole[0])]
        return self

    @classmethod
    def load(cls, path: Path, config: dict[str, Any]) -> PackedBert:
        """Build from a model directory. Raises Unsupported for anything but a plain encoder of one of ARCHITECTURES."""
        shape = read_shape(config)
        weights = path / "model.safetensors"
        if not weights.is_file():
            raise Unsupported("its weights are in several files")
        with torch.device("meta"):
            network = cls(shape)
        network.load_state_dict(read_weights(weights, ARCHITECTURES[config["model_type"]], shape.layers), assign=True)
        return network


class _Embedding(nn.Embedding):
    """Weights are still to come. To draw random ones on the meta device, PyTorch would import SymPy for two seconds."""

    def reset_parameters(self) -> None:
        """Leave them as they are."""


class _Whole(nn.Module):
    """An encoder from token ids to token vectors, in pieces or in one call."""

    def __init__(self, words: nn.Module, places: nn.Module, norm: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.words, self.places, self.norm, self.layers = words, places, norm, layers

    def forward(
        self, ids: Tensor, positions: Tensor, block: int, grid: Tensor | None, places: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Everything at once: Python's lock is won back once and not after every layer."""
        rows = self.embed(ids, positions)
        for layer in self.layers:
            rows = layer(rows, block, grid, places, mask)
        return rows

    @torch.jit.export
    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """What the first layer reads: int64 [tokens] → [tokens, d]."""
        rows: Tensor = self.norm(self.words(ids) + self.places(positions))
        return rows


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.least, self.most = _TILE, _MOST_SCORES  # TorchScript reads no globals
        self.halves = False
        self.qkv: nn.Module = Linear(shape.width, 3 * shape.width)
        self.out: nn.Module = Linear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, shape.eps)
        self.wide: nn.Module = Linear(shape.width, shape.inner)
        self.narrow: nn.Module = Linear(shape.inner, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)

    def forward(self, rows: Tensor, block: int, grid: Tensor | None, places: Tensor | None, mask: Tensor | None) -> Tensor:
        """Rows [tokens, d] → [tokens, d]; the rest as Layout has it."""
        rows = self.attend(rows, block, grid, places, mask)
        return self.narrow_down(self.widen(rows), rows)

    @torch.jit.export
    def attend(self, rows: Tensor, block: int, grid: Tensor | None, places: Tensor | None, mask: Tensor | None) -> Tensor:
        """The layer's first part: each row with what it takes from the others of its text."""
        mixed = self._mix(self.qkv(rows), block, grid, places, mask)
        attended: Tensor = self.attention_norm(self.out(mixed, "none", rows))
        return attended

    @torch.jit.export
    def widen(self, rows: Tensor) -> Tensor:
        """The second: rows [tokens, d] → [tokens, inner]."""
        wide: Tensor = self.wide(rows, "gelu")
        return wide

    @torch.jit.export
    def narrow_down(self, wide: Tensor, rows: Tensor) -> Tensor:
        """The third: back to [tokens, d], added to what was widened."""
        narrow: Tensor = self.norm(self.narrow(wide, "none", rows))
        return narrow

    def _mix(self, qkv: Tensor, block: int, grid: Tensor | None, places: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attention within each text: [tokens, 3 d] → [tokens, d]. In bfloat16 where `halves` is set and it is written as products."""
        dtype = qkv.dtype
        products = qkv.is_cpu and (self.halves or dtype == torch.bfloat16)
        products = products and block >= self.least and self.heads * block * block <= self.most
        if products:
            qkv = qkv.to(torch.bfloat16)
        if grid is not None:
            qkv = qkv.index_select(0, grid)
        query, key, value = qkv.view(-1, block, 3, self.heads, qkv.shape[1] // (3 * self.heads)).permute(2, 0, 3, 1, 4).unbind(0)
        if products:
            mixed = _by_products(query, key, value, mask, self.most)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        rows = mixed.transpose(1, 2).flatten(2).flatten(0, 1)
        return (rows if places is None else rows.index_select(0, places)).to(dtype)


def _by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, most: int) -> Tensor:
    """Attention [blocks, heads, block, width], as many blocks at a time as have `most` scores."""
    blocks, heads, block, width = query.shape
    step = max(most // (heads * block * block), 1)
    keys, scale = key.transpose(2, 3), width**-0.5
    mixed: list[Tensor] = []
    for at in range(0, blocks, step):
        scores = (query[at : at + step] * scale) @ keys[at : at + step]
        if mask is not None:
            scores += mask if len(mask) == 1 else mask[at : at + step]
        mixed.append(scores.softmax(-1) @ value[at : at + step])
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _between(owners: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask of blocks whose places belong to `owners` [blocks, 1, size]."""
    mask = torch.zeros(len(owners), 1, owners.shape[2], owners.shape[2], dtype=dtype, device=owners.device)
    return mask.masked_fill_(owners.unsqueeze(-1) != owners.unsqueeze(-2), -torch.inf)


def _in_blocks(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """For each text the block it goes to and where it starts there; and the size of all blocks."""
    longest = int(lengths.max())
    if len(lengths) == 1:
        return np.zeros_like(lengths), np.zeros_like(lengths), longest
    size = -(-longest // _TILE) * _TILE
    blocks, starts = np.zeros_like(lengths), np.zeros_like(lengths)
    block = used = 0
    for index, length in enumerate(lengths.tolist()):
        if used + length > size:
            block, used = block + 1, 0
        blocks[index], starts[index] = block, used
        used += length
    return blocks, starts, size


def _biased(table: nn.Embedding, layout: Layout) -> Tensor:
    """MPNet's bias by how far apart two tokens are, added to the layout's mask: [1 or blocks, heads, longest, longest].

    Texts lie in one piece in their blocks, so places in a block are as far apart as positions in a text.
    """
    at = torch.arange(layout.block, device=table.weight.device)
    bias: Tensor = table(_buckets(at[None, :] - at[:, None], table.num_embeddings)).permute(2, 0, 1)[None]
    return bias.contiguous() if layout.mask is None else bias + layout.mask


def _buckets(distance: Tensor, buckets: int, furthest: int = 128) -> Tensor:
    """int64 distances to buckets: half for either direction, of each half one a distance at first, then ever wider ones up to `furthest`.

    As `relative_position_bucket` in transformers' MPNet, which has it from T5 (https://arxiv.org/abs/1910.10683).
    """
    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    wider = exact + (torch.log(far.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)).long()
    return torch.where(far < exact, far, wider.clamp(max=half - 1)) + half * (distance > 0)
