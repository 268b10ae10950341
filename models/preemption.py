"""What a forward pass does between two of its parts: let others in who have something more urgent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# bool [1], written by whoever wants something and read by a forward pass while it runs, without Python's lock where it
# can.
PreemptionFlag = NDArray[np.bool_]


class Preemption(Protocol):
    """To be called between two parts; it may run another batch. While all of its `flags` are down, a call would do
    nothing.

    They are to be read anew after each call, since other flags may matter then.
    """

    @property
    def flags(self) -> Sequence[PreemptionFlag]: ...

    def __call__(self) -> None: ...  # noqa: D102


class _NoPreemption:
    """Where nobody has anything more urgent."""

    flags: Sequence[PreemptionFlag] = ()

    def __call__(self) -> None:
        pass


NO_PREEMPTION: Preemption = _NoPreemption()


def new_flag(*, up: bool = False) -> PreemptionFlag:
    """A new one."""
    return np.array([up])
