"""How texts are arranged for attention: in blocks of a few sizes, with few empty slots."""

# No `from __future__ import annotations`: TorchScript cannot read a NamedTuple whose types are strings
# (pytorch/pytorch#95858).

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.runtime.placement import has_amx

# Texts of up to this many tokens share blocks of this size, with a mask between them: a block each would be mostly
# overhead.
SHARED = 32
# Explicit attention likes multiples of 32, and AMX those of its tiles' 16 rows, for a single text too.
TILE, AMX_TILE = 32, 16
# On a GPU one more kernel costs more than empty slots do: all blocks of a batch are as long as its longest text.
ONE_SIZE = 0


class AttentionBlocks(NamedTuple):
    """The blocks of a batch, small ones first: sizes, counts and attention masks.

    A block has `size` slots and holds one long text or several short ones. `row_of_slot` int64 [slots] is the row that
    each slot reads (row 0 for empty slots); `slot_of_row` int64 [rows] is its inverse. Both are None where slots are
    rows already. `masks` has for each size [blocks, 1, size, size], which is added to the scores: 0 within a text,
    -inf between texts. It is None where each block is one text that fills it.
    """

    sizes: list[int]
    counts: list[int]
    masks: list[Tensor | None]
    row_of_slot: Tensor | None
    slot_of_row: Tensor | None

    @classmethod
    def of(cls, lengths: NDArray[np.int64], fillers: int, tile: int, device: torch.device, dtype: torch.dtype) -> Self:
        """Blocks of texts in row order; the `fillers` rows after them read the first row's slot."""
        starts, blocks = _assign_slots(lengths, _block_sizes(lengths, tile))
        rows, owner = np.arange(lengths.sum()), np.repeat(np.arange(len(lengths)), lengths)
        slots = rows + (starts - (lengths.cumsum() - lengths))[owner]
        owners = np.full(blocks.sum(), -1)
        owners[slots] = owner

        def on_device(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        row_of_slot = slot_of_row = None
        if fillers or len(owners) > len(rows) or (slots != rows).any():
            inverse = np.zeros_like(owners)
            inverse[slots] = rows
            row_of_slot, slot_of_row = on_device(inverse), on_device(np.pad(slots, (0, fillers)))
        sizes, counts = np.unique(blocks, return_counts=True)
        ends = (sizes * counts).cumsum()
        masks = [
            _mask(owners[end - size * count : end].reshape(-1, 1, size), dtype, on_device)
            for size, count, end in zip(sizes.tolist(), counts.tolist(), ends.tolist(), strict=True)
        ]
        return cls(sizes.tolist(), counts.tolist(), masks, row_of_slot, slot_of_row)


def tile_of(device: torch.device) -> int:
    """The number that block sizes are multiples of on a device."""
    if device.type != "cpu":
        return ONE_SIZE
    return AMX_TILE if has_amx() else TILE


def _block_sizes(lengths: NDArray[np.int64], tile: int) -> NDArray[np.int64]:
    """For each text the size of its block."""
    longest = lengths.max()
    if len(lengths) == 1 and (tile != AMX_TILE or longest <= SHARED):
        return lengths
    if tile == ONE_SIZE:
        return np.full_like(lengths, -(-longest // TILE) * TILE)
    return np.maximum(-(-lengths // tile) * tile, SHARED)


def _assign_slots(lengths: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first slot of each text over all blocks, and the size of each block."""
    starts = np.empty_like(lengths)
    blocks: list[int] = []
    begin = used = 0
    for text in np.argsort(sizes, kind="stable").tolist():
        length, size = int(lengths[text]), int(sizes[text])
        if not blocks or blocks[-1] != size or used + length > size:
            begin += blocks[-1] if blocks else 0
            blocks.append(size)
            used = 0
        starts[text] = begin + used
        used += length
    return starts, np.array(blocks)


def _mask(owners: NDArray[np.int64], dtype: torch.dtype, on_device: Callable[[NDArray[Any]], Tensor]) -> Tensor | None:
    """The mask of blocks by their slots' texts `owners` [blocks, 1, size], or None."""
    if (owners == owners[:, :, :1]).all():
        return None
    owned = on_device(owners)
    mask = torch.zeros(len(owners), 1, owners.shape[2], owners.shape[2], dtype=dtype, device=owned.device)
    return mask.masked_fill_(owned.unsqueeze(-1) != owned.unsqueeze(-2), -torch.inf)
