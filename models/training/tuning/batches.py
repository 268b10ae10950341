"""Rows to the tensors of a batch, on the CPU and, where it helps, in the loader's processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.text.padding import collate
from models.text.tokenization import TextProcessor
from models.text.tokens import Tokens
from models.training.tuning.batch_plan import Plan


class Augment(Protocol):
    """Changes training texts; the same way for the same `epoch` (`models.training.tuning.augment.Augmenter`)."""

    def __call__(self, texts: Sequence[str], *, epoch: int = 0) -> list[str]:
        """As many texts as came."""
        ...


_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class PaddedTexts:
    """Texts of like length of one column: their features (int64 [m, longest]) and their places [m] in the column."""

    features: dict[str, Tensor]
    places: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> PaddedTexts:
        """The same with every tensor changed."""
        return PaddedTexts({name: change(tensor) for name, tensor in self.features.items()}, change(self.places))


@dataclass(frozen=True, slots=True)
class Batch:
    """`columns`: for each text column its parts; `targets` [n] or None; `rows`: which rows these are."""

    columns: tuple[tuple[PaddedTexts, ...], ...]
    targets: Tensor | None
    rows: tuple[int, ...]
    tokens: int
    prompt_tokens: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device == _CPU:
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Page-locked, for copying to a GPU while it computes; the loader calls it by this name."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        columns = tuple(tuple(part.each(change) for part in column) for column in self.columns)
        return replace(self, columns=columns, targets=None if self.targets is None else change(self.targets))


@dataclass(frozen=True)
class TextReader:
    """How texts become a model's input: as in serving. With `pairs`, two columns are read as one input.

    A column is cut into parts of at most `rows_at_once` texts of like length: on a CPU padding is most of the time,
    on a GPU more calls are.
    """

    text: TextProcessor
    pad_id: int
    with_types: bool
    rows_at_once: int = 1_000_000
    pairs: bool = False
    prompt: str = ""
    excludes_prompt: bool = False

    def __call__(self, columns: Sequence[Sequence[str]]) -> list[list[Tokens]]:
        """Tokens of each column, cut at the model's limit."""
        if self.pairs:
            return [self.text.encode_pairs(list(zip(*columns, strict=True)))]
        return [self.text.encode(column, prompt=self.prompt, exclude_prompt=self.excludes_prompt) for column in columns]

    def parts(self, tokens: Sequence[Tokens]) -> tuple[PaddedTexts, ...]:
        """The features of a column."""
        order = sorted(range(len(tokens)), key=lambda place: tokens[place].count)
        cuts = [order[start : start + self.rows_at_once] for start in range(0, len(order), self.rows_at_once)]
        return tuple(
            PaddedTexts(
                collate([tokens[place] for place in cut], self.pad_id, _CPU, with_types=self.with_types),
                torch.tensor(cut),
            )
            for cut in cuts
        )


class Batches(Dataset[Batch]):
    """The batch of each step of a plan. `targets[i]` belongs to row i; `augment` changes texts in training, never
    elsewhere.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[str]],
        targets: Tensor | None,
        plan: Plan,
        reading: TextReader,
        *,
        augment: Augment | None = None,
    ) -> None:
        self.plan = plan
        self._columns, self._targets, self._reading = columns, targets, reading
        self._augment = augment

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> Batch:
        rows = self.plan[step]
        texts = [[column[row] for row in rows] for column in self._columns]
        if self._augment is not None:
            # Each step is an epoch to the augmenter, so that a text comes back changed otherwise.
            texts = [self._augment(column, epoch=step) for column in texts]
        tokens = self._reading(texts)
        columns = tuple(self._reading.parts(column) for column in tokens)
        return Batch(
            columns,
            None if self._targets is None else self._targets[rows],
            tuple(rows),
            sum(item.count for column in tokens for item in column),
            tokens[0][0].prompt_tokens,
        )
