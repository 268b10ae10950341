"""A place to pause between the layers of a model that others wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from models.preemption import NO_PREEMPTION, Preemption


class _ThreadState(threading.local):
    """What a thread has called."""

    preempt: Preemption = NO_PREEMPTION


class LayerHooks:
    """Calls a function before each layer of a transformer: of its longest list of modules, whatever its architecture
    calls it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._here = _ThreadState()
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=[]):
            layer.register_forward_pre_hook(self._preempt)

    @contextmanager
    def calling(self, preempt: Preemption) -> Iterator[None]:
        """Have `preempt` called for this thread during this block; a block inside another one has its own."""
        before, self._here.preempt = self._here.preempt, preempt
        try:
            yield
        finally:
            self._here.preempt = before

    def _preempt(self, module: nn.Module, inputs: Any) -> None:
        self._here.preempt()
