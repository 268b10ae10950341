"""Logits as probabilities."""

from __future__ import annotations

import torch

from models.linalg import Vectors


def probabilities(logits: Vectors, *, multi_label: bool = False) -> Vectors:
    """Logits float32 [n, labels] → probabilities: each label by itself, or all summing to 1.

    A single label is judged by itself, as Hugging Face's pipelines do: a sum of 1 would say nothing.
    """
    tensor = torch.from_numpy(logits)
    by_itself = multi_label or logits.shape[-1] == 1
    return (tensor.sigmoid() if by_itself else tensor.softmax(dim=-1)).numpy()
