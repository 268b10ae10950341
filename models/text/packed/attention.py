"""Attention within each text of a packed batch, block by block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.placement import has_amx, has_bfloat16_products
from models.text.packed.packed_batch import SHARED, AttentionBlocks

# On a CPU without AMX, explicit attention (product, softmax, product) in bfloat16 takes 0.5 to 0.7 of the time of
# PyTorch's kernel, where oneDNN multiplies bfloat16. With AMX it takes 1.3 to 3 times as long, and with AVX2 alone 7 to
# 29 times. It computes this many scores (8 MB) at a time, as many as a text of 512 tokens has with 16 heads.
_MAX_SCORES = 2**22
# In float32, PyTorch's kernel has MKL multiply small pieces within a team of threads. With several threads MKL begins a
# team of its own for each, at the price of four system calls. Explicit attention then takes 0.3 to 0.9 of the time, for
# blocks of fewer slots than this. For others the kernel's pieces are twice as large (benchmarks/NOTES.md).
_MIN_LARGE_PIECES = 192
NO_SIZE = 2**62


class Attention(nn.Module):
    """Self-attention in the dtype of its rows, or in bfloat16 where blocks are at least `bfloat16_min_size` long."""

    def __init__(self, heads: int, bfloat16_min_size: int = NO_SIZE) -> None:
        super().__init__()
        self.heads, self.bfloat16_min_size = heads, bfloat16_min_size
        # TorchScript reads no globals.
        self.min_explicit_size, self.max_scores, self.min_large_pieces = SHARED, _MAX_SCORES, _MIN_LARGE_PIECES
        self.explicit = has_bfloat16_products() and not has_amx()

    def forward(self, qkv: Tensor, blocks: AttentionBlocks, threads: int = 1) -> Tensor:
        """Queries, keys and values [tokens, 3 d] → [tokens, d], with the `threads` of the calling thread."""
        dtype = qkv.dtype
        if max(blocks.sizes) >= self.bfloat16_min_size:
            qkv = qkv.to(torch.bfloat16)
        row_of_slot, slot_of_row = blocks.row_of_slot, blocks.slot_of_row  # TorchScript narrows types of names only
        if row_of_slot is not None:
            qkv = qkv.index_select(0, row_of_slot)
        by_size: list[Tensor] = []
        begin = 0
        for number, size in enumerate(blocks.sizes):
            end = begin + size * blocks.counts[number]
            by_size.append(self._attend_blocks(qkv[begin:end], size, blocks.masks[number], threads))
            begin = end
        rows = by_size[0] if len(by_size) == 1 else torch.cat(by_size)
        if slot_of_row is not None:
            rows = rows.index_select(0, slot_of_row)
        elif begin < len(qkv):
            rows = functional.pad(rows, [0, 0, 0, len(qkv) - begin])  # fillers have no slots
        return rows.to(dtype)

    def _attend_blocks(self, qkv: Tensor, size: int, mask: Tensor | None, threads: int) -> Tensor:
        """Attention within blocks of one size: [slots, 3 d] → [slots, d]."""
        mask = mask if mask is None else mask.to(qkv.dtype)
        if self._is_explicit(qkv, size, threads):
            return explicit_attention(qkv, size, self.heads, mask, self.max_scores)
        width = qkv.shape[1] // (3 * self.heads)
        query, key, value = qkv.view(-1, size, 3, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return context.transpose(1, 2).flatten(2).flatten(0, 1)

    def _is_explicit(self, qkv: Tensor, size: int, threads: int) -> bool:
        """Whether explicit attention is faster than PyTorch's kernel."""
        if not qkv.is_cpu or self.heads * size * size > self.max_scores:
            return False
        if qkv.dtype == torch.bfloat16:
            return self.explicit and size >= self.min_explicit_size
        return threads > 1 and size < self.min_large_pieces


def explicit_attention(qkv: Tensor, size: int, heads: int, mask: Tensor | None, max_scores: int) -> Tensor:
    """Attention within blocks of one size by a product, softmax and another product: [slots, 3 d] → [slots, d].

    Computes at most `max_scores` scores at a time, to bound memory.
    """
    width = qkv.shape[1] // (3 * heads)
    step = max(max_scores // (heads * size * size), 1)
    parts: list[Tensor] = []
    for start in range(0, len(qkv) // size, step):
        part = qkv[start * size : (start + step) * size].view(-1, size, 3, heads, width)
        query, key, value = part.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)
        nothing = query.new_empty([1, 1, 1])  # `beta` leaves it out
        scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=width**-0.5)
        if mask is not None:
            scores.view(-1, heads, size, size).add_(mask if len(mask) == 1 else mask[start : start + step])
        context = torch.bmm(scores.softmax(-1), value)
        parts.append(context.view(-1, heads, size, width).transpose(1, 2).reshape(-1, heads * width))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
