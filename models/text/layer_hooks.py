"""A place to pause between the layers of a model that others wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from models.preemption import Between, nothing


class _Here(threading.local):
    """What a thread has called."""

    between: Between = nothing


class Pauses:
    """Calls a function before each layer of a transformer: of its longest list of modules, whatever its architecture calls it."""

    def __init__(self, model: nn.Module) -> None:
        self._here = _Here()
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=[]):
            layer.register_forward_pre_hook(self._pause)

    @contextmanager
    def calling(self, between: Between) -> Iterator[None]:
        """Have `between` called for this thread during this block; a block inside another one has its own."""
        before, self._here.between = self._here.between, between
        try:
            yield
        finally:
            self._here.between = before

    def _pause(self, module: nn.Module, inputs: Any) -> None:
        self._here.between()
