"""Contexts for loading and running models, which convert the libraries' errors to Sonde's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.errors import DeviceLost, ModelOutOfMemory, ModelSourceError, SondeError, Unsupported
from models.runtime.memory import is_out_of_memory
from models.runtime.placement import Placement


@contextmanager
def loading(name: str, what: str) -> Iterator[None]:
    """Load a model's files; errors in them become ModelSourceErrors."""
    try:
        yield
    except (SondeError, Unsupported):
        raise
    except Exception as error:  # tokenizers raises bare exceptions, the other libraries a dozen classes
        raise ModelSourceError(f"{name}: not {what} that can be read: {error}", param="model") from error


@contextmanager
def inference_mode(placement: Placement) -> Iterator[None]:
    """Run a forward pass without autograd; converts out-of-memory and lost-device errors."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        placement.free_cached_memory()
        raise ModelOutOfMemory(f"the batch does not fit the memory of {placement.device}") from error
    except torch.AcceleratorError as error:
        raise DeviceLost(f"{placement.device} stopped answering: {type(error).__name__}") from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelOutOfMemory("the batch does not fit this machine's memory") from error
        raise
