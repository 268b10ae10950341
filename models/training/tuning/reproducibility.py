"""Reproducible tuning: a seed for each step, and deterministic kernels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step of a run."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") >> 1
    # torch.manual_seed would read the stack for each kind of device that is not there: 0.8 ms a step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Use deterministic kernels on a GPU, and restore the caller's random state afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if devices:
            # cuBLAS is deterministic only with a fixed workspace, which it reads from the environment.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
