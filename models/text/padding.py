"""Tokens to the tensors a transformers model reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.text.tokens import Tokens


def collate(batch: Sequence[Tokens], pad_id: int, device: torch.device, *, with_types: bool) -> dict[str, Tensor]:
    """Pad a batch on the right: model inputs by name, int64 [n, longest]."""
    longest = max(item.count for item in batch)
    ids = np.full((len(batch), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for row, item in enumerate(batch):
        ids[row, : item.count] = item.ids
        mask[row, : item.count] = 1
        if item.types is not None:
            types[row, : item.count] = item.types
    arrays = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if with_types else {})
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
