"""Loading of a run's batches, with processes that tokenise ahead where the GPU computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from models.runtime.cpu import count_cores
from models.training.tuning.batches import Batch, Batches


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
    """Processes that tokenise ahead: a quarter of the cores, at most 4; none on a CPU."""
    return 0 if device.type == "cpu" else min(cores // 4, 4)
