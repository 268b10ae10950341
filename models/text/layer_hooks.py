"""Preemption between the layers of transformers models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from models.preemption import NO_PREEMPTION, Preemption


class _ThreadState(threading.local):
    """A thread's preemption."""

    preempt: Preemption = NO_PREEMPTION


class LayerHooks:
    """Calls a thread's preemption before each layer, an item of a model's longest ModuleList."""

    def __init__(self, *models: nn.Module) -> None:
        self._here = _ThreadState()
        for model in models:
            lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
            for layer in max(lists, key=len, default=[]):
                layer.register_forward_pre_hook(self._preempt)

    @contextmanager
    def calling(self, preempt: Preemption) -> Iterator[None]:
        """Call `preempt` before layers in this thread, within this block; blocks can be nested."""
        before, self._here.preempt = self._here.preempt, preempt
        try:
            yield
        finally:
            self._here.preempt = before

    def _preempt(self, module: nn.Module, inputs: Any) -> None:
        self._here.preempt()
