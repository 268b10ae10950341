"""A batch without padding: all tokens in one matrix, and which rows belong to which text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.text.packed.attention_blocks import AttentionBlocks, tile_of
from models.text.packed.linear import pad_rows
from models.text.tokens import Tokens


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The packed rows of a batch, one per token, and the blocks that attention works on.

    `positions` int64 [tokens] counts within each text, `owner` int64 [tokens] is the text's index, and `lengths` is
    int64 [texts].

    After the batch's own `texts`, filler texts of one token may follow: linear layers are faster for some numbers of
    rows. Fillers are in no block. Attention gives them the first row's result, and pooling leaves them out.
    """

    texts: int
    ids: Tensor
    positions: Tensor
    owner: Tensor
    lengths: Tensor
    blocks: AttentionBlocks

    @classmethod
    def of(
        cls, batch: Sequence[Tokens], device: torch.device, dtype: torch.dtype, onednn_max_rows: int = 0
    ) -> PackedBatch:
        """Lay a batch out; oneDNN multiplies up to `onednn_max_rows` rows."""
        lengths = np.array([item.count for item in batch], dtype=np.int64)
        ids = np.concatenate([item.ids for item in batch]).astype(np.int64)
        fillers = pad_rows(len(ids), onednn_max_rows) - len(ids)
        ids = np.pad(ids, (0, fillers))
        padded = np.append(lengths, np.ones(fillers, dtype=np.int64))
        owner = np.repeat(np.arange(len(padded)), padded)
        positions = np.arange(len(ids)) - (padded.cumsum() - padded)[owner]

        def on_device(array: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(array).to(device)

        blocks = AttentionBlocks.of(lengths, fillers, tile_of(device), device, dtype)
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
        """Token vectors [tokens, d] → text vectors float32 [texts, d]: mean, first or last."""
        if mode == "mean":
            sums = torch.zeros(len(self.lengths), rows.shape[1], device=rows.device)
            return (sums.index_add_(0, self.owner, rows.float()) / self.lengths[:, None])[: self.texts]
        ends = self.lengths.cumsum(0)
        chosen = ends - self.lengths if mode == "cls" else ends - 1
        return rows[chosen[: self.texts]].float()
