"""Batches of texts or images as tensors, made ahead by other processes where the GPU computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.runtime.cpu import count_cores
from models.text.padding import collate, find_pad_id
from models.text.tokenization import TextProcessor, Tokens
from models.training.tuning.batch_plan import Plan

_CPU = torch.device("cpu")
_PART_ROWS_ON_CPU, _UNLIMITED = 16, 1_000_000


class Augment(Protocol):
    """Changes training texts, or keys of images; the same `epoch` gives the same changes (see `Augmenter`)."""

    def __call__(self, texts: Sequence[str], *, epoch: int = 0) -> list[str]:
        """One text for each."""
        ...


@dataclass(frozen=True, slots=True)
class InputPart:
    """Inputs of one shape: features [m, …] by name, and places [m] in the column.

    Texts are of similar length and have int64 [m, longest], images uint8 [m, 3, h, w].
    """

    features: dict[str, Tensor]
    places: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> InputPart:
        """The same with every tensor changed."""
        return InputPart({name: change(tensor) for name, tensor in self.features.items()}, change(self.places))


def restore_order(parts: Sequence[InputPart], rows: Sequence[Tensor]) -> Tensor:
    """Rows [m, …] of each part as rows [n, …] in the column's order."""
    joined = torch.cat(list(rows))
    return torch.empty_like(joined).index_copy(0, torch.cat([part.places for part in parts]), joined)


@dataclass(frozen=True, slots=True)
class ReadColumns:
    """The parts of each column of a batch, and the tokens of all its inputs."""

    columns: tuple[tuple[InputPart, ...], ...]
    tokens: int
    prompt_tokens: int = 0


class InputReader(Protocol):
    """Reads the inputs of a batch."""

    def read(self, columns: Sequence[Sequence[str]]) -> ReadColumns:
        """Columns of texts, or of keys of images, as tensors on the CPU."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of each column, targets [n] or None, row indices and token counts."""

    columns: tuple[tuple[InputPart, ...], ...]
    targets: Tensor | None
    rows: tuple[int, ...]
    tokens: int
    prompt_tokens: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if device == _CPU:
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for copying while the GPU computes.

        torch's loader calls this method.
        """
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        columns = tuple(tuple(part.each(change) for part in column) for column in self.columns)
        return replace(self, columns=columns, targets=None if self.targets is None else change(self.targets))


@dataclass(frozen=True)
class TextReader:
    """Reads texts as a model's input, like serving; with `pairs`, two columns are one input.

    A column is cut into parts of at most `part_rows` texts of similar length: on a CPU padding takes most of the
    time, on a GPU the calls do.
    """

    text: TextProcessor
    pad_id: int
    with_types: bool
    part_rows: int = _UNLIMITED
    pairs: bool = False
    prompt: str = ""
    excludes_prompt: bool = False

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        config: Any,
        max_tokens: int,
        device: torch.device,
        *,
        pairs: bool = False,
        prompt: str = "",
        excludes_prompt: bool = False,
    ) -> TextReader:
        """A reader with a transformers tokenizer and configuration, for a model that trains on a device."""
        return cls(
            TextProcessor(tokenizer.backend_tokenizer, max_tokens),
            find_pad_id(tokenizer, config),
            "token_type_ids" in tokenizer.model_input_names,
            _PART_ROWS_ON_CPU if device.type == "cpu" else _UNLIMITED,
            pairs,
            prompt,
            excludes_prompt,
        )

    def __call__(self, columns: Sequence[Sequence[str]]) -> list[list[Tokens]]:
        """The tokens of each column, cut at the model's limit."""
        if self.pairs:
            return [self.text.encode_pairs(list(zip(*columns, strict=True)))]
        return [self.text.encode(column, prompt=self.prompt, exclude_prompt=self.excludes_prompt) for column in columns]

    def read(self, columns: Sequence[Sequence[str]]) -> ReadColumns:
        """See InputReader."""
        tokens = self(columns)
        parts = tuple(self.parts(column) for column in tokens)
        return ReadColumns(parts, sum(item.count for column in tokens for item in column), tokens[0][0].prompt_tokens)

    def parts(self, tokens: Sequence[Tokens]) -> tuple[InputPart, ...]:
        """A column's texts, sorted by length and padded in parts."""
        order = sorted(range(len(tokens)), key=lambda place: tokens[place].count)
        cuts = [order[start : start + self.part_rows] for start in range(0, len(order), self.part_rows)]
        return tuple(self._pad(tokens, cut) for cut in cuts)

    def _pad(self, tokens: Sequence[Tokens], places: list[int]) -> InputPart:
        features = collate([tokens[place] for place in places], self.pad_id, _CPU, with_types=self.with_types)
        return InputPart(features, torch.tensor(places))


class Batches(Dataset[Batch]):
    """The batch of each step of a plan; `targets[i]` belongs to row i."""

    def __init__(
        self,
        columns: Sequence[Sequence[str]],
        targets: Tensor | None,
        plan: Plan,
        reader: InputReader,
        *,
        augment: Augment | None = None,
    ) -> None:
        self.plan = plan
        self._columns, self._targets, self._reader = columns, targets, reader
        self._augment = augment

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> Batch:
        rows = self.plan[step]
        texts = [[column[row] for row in rows] for column in self._columns]
        if self._augment is not None:
            # Each step is an epoch to the augmenter, so that a text is changed differently each time.
            texts = [self._augment(column, epoch=step) for column in texts]
        read = self._reader.read(texts)
        targets = None if self._targets is None else self._targets[rows]
        return Batch(read.columns, targets, tuple(rows), read.tokens, read.prompt_tokens)


def load_batches(batches: Batches, first: int, device: torch.device) -> Iterator[Batch]:
    """The batches of the steps after step `first`, on the CPU."""
    workers = loader_workers(device, count_cores())
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # A fork would copy the tokenizer's locks in whatever state they are.
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def loader_workers(device: torch.device, cores: int) -> int:
    """Processes that tokenize ahead: a quarter of the cores, at most 4; none on a CPU."""
    return 0 if device.type == "cpu" else min(cores // 4, 4)
