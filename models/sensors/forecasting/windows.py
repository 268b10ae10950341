"""Windows of a series: a context, and the steps after it that are to be forecast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of more windows a regular sample is used.
MAX_WINDOWS = 16_384
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows in `series` float32 [rows, d] that start at `starts` int64 [m]."""

    series: Tensor
    starts: Tensor
    context: int
    horizon: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def varying(self) -> Tensor:
        """The columns int64 [k] that vary: constant ones are standardised to 0. All where none does."""
        varies = (self.series != 0).any(dim=0)
        return torch.arange(len(varies))[varies | ~varies.any()]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts [k, d, context] and next steps [k, d, horizon] of windows `index` int64 [k]."""
        rows = self.starts[index][:, None] + torch.arange(self.context + self.horizon)
        both = self.series[rows].transpose(1, 2)
        return both[..., : self.context], both[..., self.context :]

    def batches(self, rows: int = _AT_ONCE) -> Iterator[tuple[Tensor, Tensor]]:
        """All windows in order, `rows` at a time."""
        for index in torch.split(torch.arange(len(self)), rows):
            yield self.take(index)


def cut_windows(runs: Sequence[Tensor], context: int, horizon: int, *, most: int = MAX_WINDOWS) -> Windows:
    """All windows of runs [n, d], or every k-th where there are more than `most`.

    Raises ValueError when no run is long enough.
    """
    starts, before = [], 0
    for run in runs:
        starts.append(torch.arange(before, before + max(0, len(run) - context - horizon + 1)))
        before += len(run)
    found = torch.cat(starts) if starts else torch.empty(0, dtype=torch.int64)
    if not len(found):
        longest = max((len(run) for run in runs), default=0)
        raise ValueError(
            f"expected a run of at least context + horizon = {context + horizon} rows, the longest has {longest}"
        )
    return Windows(torch.cat(list(runs)).float(), found[:: -(-len(found) // most)], context, horizon)
