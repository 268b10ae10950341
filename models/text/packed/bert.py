"""BERT and its relatives without padding: all tokens of a batch in one matrix, attention apart for each text.

Against the general path this saves the padding, two thirds of the matrix calls for Q, K and V, and the Python around
each layer, which is most of the time of a single short text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.errors import Unsupported
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.placement import has_amx
from models.text.packed.architectures import ARCHITECTURES, BertShape, read_shape, read_weights
from models.text.packed.attention_blocks import SHARED, AttentionBlocks, tile_of
from models.text.packed.linear import Linear, pad_rows, prepare_for_cpu
from models.text.packed.torchscript import script
from models.text.tokenization import Tokens

# As products (scores, softmax, sums) attention in bfloat16 takes 0.5 to 0.7 of the time of PyTorch's own on a CPU
# without AMX, and with it 1.3 to 3 times. So many scores are made at a time, 8 MB: as many as a text of 512 tokens has
# with 16 heads.
_MOST_SCORES = 2**22
# A layer has so many parts between which others are let in.
_PARTS = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each text lies: in the packed matrix of all tokens, and in the blocks that attention works on.

    `positions` int64 [tokens] counts within each text and `owner` int64 [tokens] names it; `lengths` int64 [texts].

    Past the batch's own `texts` there may be others of one token each, which make the number of rows one that linear
    layers like. They are in no block: attention gives them what it gives the first row, and pooling leaves them out.
    """

    texts: int
    ids: Tensor
    positions: Tensor
    owner: Tensor
    lengths: Tensor
    blocks: AttentionBlocks

    @classmethod
    def of(cls, batch: Sequence[Tokens], device: torch.device, dtype: torch.dtype, onednn_max_rows: int = 0) -> Layout:
        """Lay a batch out; `onednn_max_rows` is up to how many rows oneDNN multiplies."""
        lengths = np.array([item.count for item in batch], dtype=np.int64)
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)
        extra = pad_rows(len(ids), onednn_max_rows) - len(ids)
        ids = np.pad(ids, (0, extra))
        every = np.append(lengths, np.ones(extra, dtype=np.int64))
        owner = np.repeat(np.arange(len(every)), every)
        positions = np.arange(len(ids)) - (every.cumsum() - every)[owner]

        def there(array: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(array).to(device)

        blocks = AttentionBlocks.of(lengths, extra, tile_of(device), device, dtype)
        return cls(len(batch), there(ids), there(positions), there(owner), there(every), blocks)

    def positions_from(self, first: int) -> Tensor:
        """Positions int64 [tokens] as RoBERTa counts them: from `first`, past padding tokens (id `first` - 1), which
        have `first` - 1.
        """
        real = (self.ids != first - 1).long()
        counted = real.cumsum(0)
        starts = self.lengths.cumsum(0) - self.lengths
        return (counted - (counted - real)[starts][self.owner]) * real + first - 1

    def pool(self, rows: Tensor, mode: str) -> Tensor:
        """Token vectors [tokens, d] → text vectors float32 [texts, d]: their mean, the first or the last."""
        if mode == "mean":
            sums = torch.zeros(len(self.lengths), rows.shape[1], device=rows.device).index_add_(
                0, self.owner, rows.float()
            )
            return (sums / self.lengths[:, None])[: self.texts]
        ends = self.lengths.cumsum(0)
        at = ends - self.lengths if mode == "cls" else ends - 1
        return rows[at[: self.texts]].float()


class PackedBert(nn.Module):
    """BERT's encoder, or a relative's, over a packed batch. Dropout is left out: this is for inference."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = _Embedding(shape.vocabulary, shape.width)
        self.places = _Embedding(shape.positions, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)
        self.bias = _Embedding(shape.buckets, shape.heads) if shape.buckets else None
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        # In a list, since its parts are this module's: as another module here they would be there twice.
        self._whole = [_EncoderStack(self.words, self.places, self.norm, self.layers)]
        self.onednn_max_rows = 0

    def forward(self, layout: Layout, preempt: Preemption = NO_PREEMPTION) -> Tensor:
        """Token vectors [tokens, d] in the weights' dtype; `preempt` is called within each layer while a flag of its
        is up.
        """
        whole = self._whole[0]
        places = layout.positions if self.shape.first == 0 else layout.positions_from(self.shape.first)
        blocks = layout.blocks if self.bias is None else _biased(self.bias, layout.blocks)
        rows, widened, done = whole(layout.ids, places, blocks, _flags(preempt))
        while done < _PARTS * self.shape.layers:
            preempt()
            rows, widened, done = whole.resume(rows, widened, done, blocks, _flags(preempt))
        return cast("Tensor", rows)

    def placed(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready to compute there."""
        self.to(device, dtype).eval().requires_grad_(False)
        self.onednn_max_rows = prepare_for_cpu([layer for layer in self.modules() if isinstance(layer, Linear)])
        if device.type == "cpu":
            self._whole = [script(self._whole[0])]
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


class _EncoderStack(nn.Module):
    """An encoder from token ids to token vectors in one call, which ends early when somebody wants to be let in.

    Python's lock is won back once and not after every layer, and layers take a tenth less time than one call each
    (docs/performance.md).
    """

    def __init__(self, words: nn.Module, places: nn.Module, norm: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.words, self.places, self.norm = words, places, norm
        self.layers: Any = layers  # of _Layers, as which mypy does not know their items
        self.parts = _PARTS  # TorchScript reads no globals

    def forward(
        self, ids: Tensor, positions: Tensor, blocks: AttentionBlocks, flags: list[Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        """From the beginning: ids and positions int64 [tokens]."""
        rows: Tensor = self.norm(self.words(ids) + self.places(positions))
        return self.resume(rows, rows, 0, blocks, flags)

    @torch.jit.export
    def resume(
        self, rows: Tensor, widened: Tensor, done: int, blocks: AttentionBlocks, flags: list[Tensor]
    ) -> tuple[Tensor, Tensor, int]:
        """All parts but the first `done`, or up to the end of one after which a flag is up.

        Gives the rows [tokens, d], what they were widened to where the next part needs it, and how many parts are done.
        """
        first, going = 0, True
        for layer in self.layers:
            if going and done <= first:
                rows = layer.attend(rows, blocks)
                done, going = first + 1, not _any_up(flags)
            if going and done <= first + 1:
                widened = layer.project_up(rows)
                done, going = first + 2, not _any_up(flags)
            if going and done <= first + 2:
                rows = layer.project_down(widened, rows)
                widened = rows
                done, going = first + 3, not _any_up(flags)
            first += self.parts
        return rows, widened, done


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.least, self.most = SHARED, _MOST_SCORES  # TorchScript reads no globals
        self.products = not has_amx()
        self.halves = False
        self.qkv: nn.Module = Linear(shape.width, 3 * shape.width)
        self.out: nn.Module = Linear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, shape.eps)
        self.up_proj: nn.Module = Linear(shape.width, shape.inner)
        self.down_proj: nn.Module = Linear(shape.inner, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)

    def attend(self, rows: Tensor, blocks: AttentionBlocks) -> Tensor:
        """The layer's first part: each row with what it takes from the others of its text."""
        mixed = self._mix(self.qkv(rows), blocks)
        attended: Tensor = self.attention_norm(self.out(mixed, "none", rows))
        return attended

    def project_up(self, rows: Tensor) -> Tensor:
        """The second: rows [tokens, d] → [tokens, inner]."""
        widened: Tensor = self.up_proj(rows, "gelu")
        return widened

    def project_down(self, widened: Tensor, rows: Tensor) -> Tensor:
        """The third: back to [tokens, d], added to what was widened."""
        narrowed: Tensor = self.norm(self.down_proj(widened, "none", rows))
        return narrowed

    def _mix(self, qkv: Tensor, blocks: AttentionBlocks) -> Tensor:
        """Attention within each text: [tokens, 3 d] → [tokens, d]. In bfloat16 where `halves` is set."""
        dtype = qkv.dtype
        if self.halves:
            qkv = qkv.to(torch.bfloat16)
        grid, places = blocks.grid, blocks.places  # TorchScript knows of names alone that they are not None
        if grid is not None:
            qkv = qkv.index_select(0, grid)
        mixed: list[Tensor] = []
        begin = 0
        for number, size in enumerate(blocks.sizes):
            end = begin + size * blocks.counts[number]
            mixed.append(self._within(qkv[begin:end], size, blocks.masks[number]))
            begin = end
        rows = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        return (rows if places is None else rows.index_select(0, places)).to(dtype)

    def _within(self, qkv: Tensor, size: int, mask: Tensor | None) -> Tensor:
        """Attention within blocks of one size: [places, 3 d] → [places, d]."""
        query, key, value = (
            qkv.view(-1, size, 3, self.heads, qkv.shape[1] // (3 * self.heads)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        if (
            self.products
            and qkv.is_cpu
            and qkv.dtype == torch.bfloat16
            and self.heads * size * size <= self.most
            and size >= self.least
        ):
            mixed = _by_products(query, key, value, mask, self.most)
        else:
            mask = mask if mask is None else mask.to(qkv.dtype)
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _flags(preempt: Preemption) -> list[Tensor]:
    return [torch.from_numpy(flag) for flag in preempt.flags]


def _any_up(flags: list[Tensor]) -> bool:
    for flag in flags:  # noqa: SIM110  # TorchScript has no any() of a generator
        if bool(flag):
            return True
    return False


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


def _biased(table: nn.Embedding, blocks: AttentionBlocks) -> AttentionBlocks:
    """MPNet's bias by how far apart two tokens are, added to the masks: [1 or blocks, heads, size, size].

    Texts lie in one piece in their blocks, so places in a block are as far apart as positions in a text.
    """
    masks: list[Tensor | None] = []
    for size, mask in zip(blocks.sizes, blocks.masks, strict=True):
        at = torch.arange(size, device=table.weight.device)
        bias: Tensor = table(_buckets(at[None, :] - at[:, None], table.num_embeddings)).permute(2, 0, 1)[None]
        masks.append(bias.contiguous() if mask is None else bias + mask)
    return blocks._replace(masks=masks)


def _buckets(distance: Tensor, buckets: int, furthest: int = 128) -> Tensor:
    """int64 distances to buckets: half for either direction, of each half one a distance at first, then ever wider
    ones up to `furthest`.

    As `relative_position_bucket` in transformers' MPNet, which has it from T5 (https://arxiv.org/abs/1910.10683).
    """
    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    wider = exact + (torch.log(far.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)).long()
    return torch.where(far < exact, far, wider.clamp(max=half - 1)) + half * (distance > 0)
