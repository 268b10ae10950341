"""A place to pause between the layers of a model that others wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from models.card import Between, nothing


class Pauses:
    """Calls a function before each layer of a transformer: of its longest list of modules, whatever its architecture calls it."""

    def __init__(self, model: nn.Module) -> None:
        self._between: Between = nothing
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=[]):
            layer.register_forward_pre_hook(self._pause)

    @contextmanager
    def calling(self, between: Between) -> Iterator[None]:
        """Have `between` called during this block; a block inside another one has its own."""
        before, self._between = self._between, between
        try:
            yield
        finally:
            self._between = before

    def _pause(self, module: nn.Module, inputs: Any) -> None:
        self._between()
