"""Where texts lie for attention: in blocks of a few sizes, so that little is computed for places which no text
fills.
"""

# No `from __future__ import annotations`: TorchScript cannot read a NamedTuple whose types are strings
# (pytorch/pytorch#95858).

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.runtime.placement import has_amx

# Texts up to so many tokens share blocks of this size, with a mask between them: one by one they would be mostly
# overhead.
SHARED = 32
# Attention as products likes multiples of 32, and AMX those of its tiles' 16 rows, for a single text too.
TILE, AMX_TILE = 32, 16
# On a GPU a kernel more costs more than the places that it saves: there all blocks of a batch are as long as the
# longest text.
ONE_SIZE = 0


class AttentionBlocks(NamedTuple):
    """The blocks of a batch, small ones first: for each size how many there are, and who sees whom within them.

    A block is a long text, or several short ones. `grid` int64 [places] gives the row of each place of the blocks
    (row 0 where there is none), `places` int64 [rows] is its inverse; both are None where the rows are the blocks
    already. `masks` has for each size [blocks, 1, size, size], which is added to the attention's scores: 0 within a
    text, -inf between texts; or None where each block is one text that fills it.
    """

    sizes: list[int]
    counts: list[int]
    masks: list[Tensor | None]
    grid: Tensor | None
    places: Tensor | None

    @classmethod
    def of(cls, lengths: NDArray[np.int64], extra: int, tile: int, device: torch.device, dtype: torch.dtype) -> Self:
        """Blocks of texts that lie one after another in rows. The `extra` rows past them are in none: they get the
        first row's place.
        """
        starts, blocks = _fill(lengths, _sizes(lengths, tile))
        rows, owner = np.arange(lengths.sum()), np.repeat(np.arange(len(lengths)), lengths)
        place = rows + (starts - (lengths.cumsum() - lengths))[owner]
        owners = np.full(blocks.sum(), -1)
        owners[place] = owner

        def there(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        grid = places = None
        if extra or len(owners) > len(rows) or (place != rows).any():
            inverse = np.zeros_like(owners)
            inverse[place] = rows
            grid, places = there(inverse), there(np.pad(place, (0, extra)))
        sizes, counts = np.unique(blocks, return_counts=True)
        ends = (sizes * counts).cumsum()
        masks = [
            _between(owners[end - size * count : end].reshape(-1, 1, size), dtype, there)
            for size, count, end in zip(sizes.tolist(), counts.tolist(), ends.tolist(), strict=True)
        ]
        return cls(sizes.tolist(), counts.tolist(), masks, grid, places)


def tile_of(device: torch.device) -> int:
    """What the sizes of blocks are multiples of."""
    if device.type != "cpu":
        return ONE_SIZE
    return AMX_TILE if has_amx() else TILE


def _sizes(lengths: NDArray[np.int64], tile: int) -> NDArray[np.int64]:
    """For each text the size of the block that it goes to."""
    longest = lengths.max()
    if len(lengths) == 1 and (tile != AMX_TILE or longest <= SHARED):
        return lengths
    if tile == ONE_SIZE:
        return np.full_like(lengths, -(-longest // TILE) * TILE)
    return np.maximum(-(-lengths // tile) * tile, SHARED)


def _fill(lengths: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each text where among all places it starts; and the size of each block, in their order."""
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


def _between(owners: NDArray[np.int64], dtype: torch.dtype, there: Callable[[NDArray[Any]], Tensor]) -> Tensor | None:
    """The mask of blocks whose places belong to `owners` [blocks, 1, size], or None where each belongs to one."""
    if (owners == owners[:, :, :1]).all():
        return None
    owned = there(owners)
    mask = torch.zeros(len(owners), 1, owners.shape[2], owners.shape[2], dtype=dtype, device=owned.device)
    return mask.masked_fill_(owned.unsqueeze(-1) != owned.unsqueeze(-2), -torch.inf)
