"""FBGEMM, PyTorch's library for products of integers and of rounded weights on x86."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FBGEMM = "fbgemm"


def has_fbgemm() -> bool:
    """Whether this PyTorch has it for this processor."""
    return FBGEMM in torch.backends.quantized.supported_engines


@contextmanager
def fbgemm() -> Iterator[None]:
    """Pack weights for FBGEMM; PyTorch's engine is afterwards what it was."""
    before = torch.backends.quantized.engine
    # PyTorch warns that it will drop such tensors one day; there is no other way to FBGEMM yet.
    with warnings.catch_warnings(action="ignore"):
        torch.backends.quantized.engine = FBGEMM
        try:
            yield
        finally:
            torch.backends.quantized.engine = before
