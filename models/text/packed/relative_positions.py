"""MPNet's attention bias by relative position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.text.packed.packed_batch import AttentionBlocks


def add_relative_bias(table: nn.Embedding, blocks: AttentionBlocks) -> AttentionBlocks:
    """Add the bias to the blocks' masks: [1 or blocks, heads, size, size].

    A text is contiguous in its block, so slots of a block are as far apart as positions of the text. A small block has
    a part of the largest one's bias.
    """
    slots = torch.arange(max(blocks.sizes), device=table.weight.device)
    buckets = _buckets(slots[None, :] - slots[:, None], table.num_embeddings)
    largest: Tensor = table(buckets).permute(2, 0, 1)[None].contiguous()
    masks: list[Tensor | None] = []
    for size, mask in zip(blocks.sizes, blocks.masks, strict=True):
        bias = largest[..., :size, :size]
        masks.append(bias.contiguous() if mask is None else bias + mask)
    return blocks._replace(masks=masks)


def _buckets(distance: Tensor, buckets: int, furthest: int = 128) -> Tensor:
    """Buckets int64 of distances int64: one half for each direction.

    In each half, small distances have a bucket each, and larger ones share ever wider buckets up to `furthest`. As
    `relative_position_bucket` in transformers' MPNet, which has it from T5 (https://arxiv.org/abs/1910.10683).
    """
    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    wider = exact + (torch.log(far.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)).long()
    return torch.where(far < exact, far, wider.clamp(max=half - 1)) + half * (distance > 0)
