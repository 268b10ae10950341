"""Tokens to the tensors a transformers model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from models.text.tokenization import Tokens

PaddingSide = Literal["right", "left"]


def collate(
    batch: Sequence[Tokens],
    pad_id: int,
    device: torch.device,
    *,
    with_types: bool,
    side: PaddingSide = "right",
    at_least: int = 0,
) -> dict[str, Tensor]:
    """Pad a batch on a side, to `at_least` a length: model inputs by name, int64 [n, longest]."""
    longest = max(at_least, *(item.count for item in batch))
    ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for row, item in enumerate(batch):
        own = slice(item.count) if side == "right" else slice(longest - item.count, longest)
        ids[row, own] = item.ids
        mask[row, own] = 1
        if item.types is not None:
            types[row, own] = item.types
    arrays = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if with_types else {})
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


class Padding:
    """How a model's batches are padded: by which token, and on which side.

    The right side comes first, because positions then count from a text's start.
    """

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self._id = find_pad_id(tokenizer, config)
        self._with_types = "token_type_ids" in tokenizer.model_input_names
        self._may_be_left = bool(tokenizer.padding_side == "left")
        self._side: PaddingSide = "right"

    def collate(self, batch: Sequence[Tokens], device: torch.device, at_least: int = 0) -> dict[str, Tensor]:
        """Model inputs by name, int64 [n, longest]."""
        return collate(batch, self._id, device, with_types=self._with_types, side=self._side, at_least=at_least)

    def turn_left(self) -> bool:
        """Pad on the left from now on, if the tokenizer does; else return False."""
        if self._may_be_left:
            self._side = "left"
        return self._may_be_left


def find_pad_id(tokenizer: Any, config: Any) -> int:
    """The token that fills up a batch: the configuration's, else the tokenizer's, else 0.

    The network finds a text's last token, or its positions, by the token in its configuration.
    """
    stated = getattr(config.get_text_config(), "pad_token_id", None)
    if isinstance(stated, int) and 0 <= stated < len(tokenizer):
        return stated
    return int(tokenizer.pad_token_id or 0)
