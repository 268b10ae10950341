"""A preemption for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.preemption import PreemptionFlag


class Calling:
    """Calls a function between any two steps."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.flags: Sequence[PreemptionFlag] = (np.array([True]),)
        self._function = function

    def __call__(self) -> None:
        self._function()
