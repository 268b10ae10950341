"""Preemption of a forward pass between two of its steps, by more urgent work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# bool [1]: urgent work raises it, and a running forward pass reads it, where possible without Python's lock.
PreemptionFlag = NDArray[np.bool_]


class Preemption(Protocol):
    """A function to call between two steps, which may run another batch.

    While all of its `flags` are down, a call does nothing. Read `flags` again after each call, since they may change.
    """

    @property
    def flags(self) -> Sequence[PreemptionFlag]: ...

    def __call__(self) -> None: ...  # noqa: D102


class _NoPreemption:
    """Never runs anything."""

    flags: Sequence[PreemptionFlag] = ()

    def __call__(self) -> None:
        pass


NO_PREEMPTION: Preemption = _NoPreemption()
