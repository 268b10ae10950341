"""A batch without padding: all tokens in one matrix, and its texts in blocks for attention.

Attention works on blocks of a few sizes, with few empty slots.
"""

# No `from __future__ import annotations`: TorchScript cannot read a NamedTuple whose types are strings
# (pytorch/pytorch#95858).

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.runtime.placement import has_amx
from models.text.tokenization import Tokens

# oneDNN compiles and keeps code for each number of rows (and of threads): 2 MB and 3 ms or more for a network. So only
# 8 numbers occur between two powers of two, and among the smallest every second one.
_SIZES_PER_DOUBLING = 8
_MIN_STEP = 2
# Texts of up to this many tokens share blocks of this size, with a mask between them: a block each would be mostly
# overhead.
SHARED = 32
# Explicit attention likes multiples of 32, and AMX those of its tiles' 16 rows, for a single text too.
TILE, AMX_TILE = 32, 16
# On a GPU one more kernel costs more than empty slots do: all blocks of a batch are as long as its longest text.
ONE_SIZE = 0
# With AVX2 alone, a block for each run of texts of one length is faster in any dtype: no row is moved, and no slot is
# empty. That pays for runs of this many rows on average.
EXACT, _MIN_RUN_ROWS = 1, 24
# What a mask adds to the score of two tokens.
_WITHIN, _BETWEEN = np.float32(0), np.float32(-np.inf)


class AttentionBlocks(NamedTuple):
    """The blocks of a batch: sizes, counts and attention masks.

    A block has `size` slots and holds one long text or several short ones. `row_of_slot` int64 [slots] is the row that
    each slot reads (row 0 for empty slots); `slot_of_row` int64 [rows] is its inverse. Both are None where slots are
    rows already. `masks` has for each size float32 [blocks, 1, size, size], which is added to the scores: 0 within a
    text, -inf between texts. It is None where each block is one text that fills it.
    """

    sizes: list[int]
    counts: list[int]
    masks: list[Tensor | None]
    row_of_slot: Tensor | None
    slot_of_row: Tensor | None

    @classmethod
    def of(cls, lengths: NDArray[np.int64], fillers: int, tile: int, device: torch.device) -> "AttentionBlocks":
        """Blocks of texts in row order.

        The `fillers` rows after them have the first row's slot, or none where slots are rows. On a CPU NumPy computes
        them: each operation of PyTorch would let go of Python's lock, and wait for the event loop to win it back.
        """
        if tile == EXACT:
            runs = [(size, len(list(same))) for size, same in groupby(lengths.tolist())]
            if lengths.sum() >= _MIN_RUN_ROWS * len(runs):
                return cls([size for size, _ in runs], [count for _, count in runs], [None] * len(runs), None, None)
            tile = TILE
        block_sizes = _block_sizes(lengths, tile)
        if len(lengths) == 1 and block_sizes[0] == lengths[0]:  # as below, in a tenth of the time
            return block_of_one(int(lengths[0]))
        starts, sizes, counts = _assign_slots(lengths.tolist(), block_sizes.tolist())
        rows, owner = np.arange(lengths.sum()), np.repeat(np.arange(len(lengths)), lengths)
        slots = rows + (starts - (lengths.cumsum() - lengths))[owner]
        ends = list(accumulate(size * count for size, count in zip(sizes, counts, strict=True)))
        owners = np.full(ends[-1], -1)
        owners[slots] = owner

        row_of_slot = slot_of_row = None
        if len(owners) != len(rows) or (slots != rows).any():
            inverse = np.zeros_like(owners)
            inverse[slots] = rows
            filled = np.zeros(len(rows) + fillers, dtype=np.int64)
            filled[: len(rows)] = slots
            row_of_slot, slot_of_row = _on_device(inverse, device), _on_device(filled, device)
        masks = [
            _mask(owners[end - size * count : end].reshape(count, 1, size), device)
            for size, count, end in zip(sizes, counts, ends, strict=True)
        ]
        return cls(sizes, counts, masks, row_of_slot, slot_of_row)


def block_of_one(count: int) -> AttentionBlocks:
    """One text of `count` tokens, whose slots are its rows."""
    masks: list[Tensor | None] = [None]
    return AttentionBlocks([count], [1], masks, None, None)


def masks_in(blocks: AttentionBlocks, dtype: torch.dtype) -> AttentionBlocks:
    """The blocks with masks in the dtype of a pass."""
    masks: list[Tensor | None] = []
    for mask in blocks.masks:
        masks.append(mask if mask is None else mask.to(dtype))  # noqa: PERF401  # TorchScript loses the type
    return AttentionBlocks(blocks.sizes, blocks.counts, masks, blocks.row_of_slot, blocks.slot_of_row)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The packed rows of a batch, one per token, and the blocks that attention works on.

    `positions` int64 [tokens] counts within each text, `owner` int64 [tokens] is the text's index, and `lengths` is
    int64 [texts].

    After the batch's own `texts`, filler texts of one token may follow: linear layers are faster for some numbers of
    rows. Attention gives them zeros, or the first row's result, and pooling leaves them out.
    """

    texts: int
    ids: Tensor
    positions: Tensor
    owner: Tensor
    lengths: Tensor
    blocks: AttentionBlocks

    @classmethod
    def of(cls, batch: Sequence[Tokens], device: torch.device, onednn_rows: range = range(0)) -> Self:
        """Lay a batch out; with one thread, oneDNN multiplies numbers of rows in `onednn_rows`."""
        counts = [item.count for item in batch]
        rows = sum(counts)
        most = (onednn_rows.stop - 1) * torch.get_num_threads()
        fillers = pad_rows(rows, range(onednn_rows.start, most + 1)) - rows
        ids = np.zeros(rows + fillers, dtype=np.int64)
        np.concatenate([item.ids for item in batch], out=ids[:rows])
        padded = np.array(counts + [1] * fillers, dtype=np.int64)
        owner = np.repeat(np.arange(len(padded)), padded)
        positions = np.arange(len(ids)) - (padded.cumsum() - padded)[owner]
        blocks = AttentionBlocks.of(padded[: len(batch)], fillers, tile_of(device), device)
        on_device = partial(_on_device, device=device)
        return cls(len(batch), on_device(ids), on_device(positions), on_device(owner), on_device(padded), blocks)

    def positions_from(self, first: int) -> Tensor:
        """Positions int64 [tokens] as RoBERTa counts them, from `first` on.

        Padding tokens (id `first` - 1) inside a text are not counted and have position `first` - 1.
        """
        real = (self.ids != first - 1).long()
        counted = real.cumsum(0)
        starts = self.lengths.cumsum(0) - self.lengths
        return (counted - (counted - real)[starts][self.owner]) * real + first - 1

    def pool(self, rows: Tensor, mode: str) -> Tensor:
        """Token vectors [tokens, d] → vectors float32 [texts, d] of its own texts."""
        return pool(rows, self.owner, self.lengths, mode)[: self.texts]


def pool(rows: Tensor, owner: Tensor, lengths: Tensor, mode: str) -> Tensor:
    """Token vectors [tokens, d] → vectors float32 [texts, d]: each text's mean, first ("cls") or last."""
    if mode == "mean":
        sums = torch.zeros(len(lengths), rows.shape[1], device=rows.device)
        return sums.index_add_(0, owner, rows.float()) / lengths[:, None]
    ends = lengths.cumsum(0)
    return rows[ends - lengths if mode == "cls" else ends - 1].float()


def pool_one(rows: Tensor, count: int, mode: str) -> Tensor:
    """The same for one text of `count` tokens, in a fifth of the time."""
    if mode == "mean":
        return rows[:count].float().mean(0, keepdim=True)
    chosen = 0 if mode == "cls" else count - 1
    return rows[chosen : chosen + 1].float()


def pad_rows(rows: int, onednn_rows: range) -> int:
    """`rows` rounded up to a size for oneDNN, unless one of them is not in `onednn_rows`."""
    step = max(_MIN_STEP, (1 << (rows - 1).bit_length()) // (2 * _SIZES_PER_DOUBLING))
    size = -(-rows // step) * step
    return size if rows in onednn_rows and size in onednn_rows else rows


def tile_of(device: torch.device) -> int:
    """The number that block sizes are multiples of on a device."""
    if device.type != "cpu":
        return ONE_SIZE
    if has_amx():
        return AMX_TILE
    return EXACT if torch.backends.cpu.get_cpu_capability() == "AVX2" else TILE


def _block_sizes(lengths: NDArray[np.int64], tile: int) -> NDArray[np.int64]:
    """For each text the size of its block; a single text fills its own."""
    longest = lengths.max()
    if len(lengths) == 1 and (tile != AMX_TILE or longest <= SHARED):
        return lengths
    if tile == ONE_SIZE:
        return np.full_like(lengths, -(-longest // TILE) * TILE)
    return np.maximum(-(-lengths // tile) * tile, SHARED)


def _assign_slots(lengths: list[int], sizes: list[int]) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """The first slot of each text over all blocks, and the sizes of blocks with their counts."""
    starts = np.empty(len(lengths), dtype=np.int64)
    blocks: list[int] = []
    begin = used = 0
    for text in sorted(range(len(sizes)), key=sizes.__getitem__):
        length, size = lengths[text], sizes[text]
        if not blocks or blocks[-1] != size or used + length > size:
            begin += blocks[-1] if blocks else 0
            blocks.append(size)
            used = 0
        starts[text] = begin + used
        used += length
    counts = {size: len(list(same)) for size, same in groupby(blocks)}
    return starts, list(counts), list(counts.values())


def _mask(owners: NDArray[np.int64], device: torch.device) -> Tensor | None:
    """The mask of blocks by their slots' texts `owners` [blocks, 1, size], or None."""
    if (owners == owners[:, :, :1]).all():
        return None
    if device.type == "cpu":
        same = owners[:, :, :, None] == owners[:, :, None, :]
        return torch.from_numpy(np.where(same, _WITHIN, _BETWEEN))
    owned = _on_device(owners, device)
    mask = torch.zeros(len(owners), 1, owners.shape[2], owners.shape[2], device=device)
    return mask.masked_fill_(owned.unsqueeze(-1) != owned.unsqueeze(-2), -torch.inf)


def _on_device(array: NDArray[np.int64], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device)
