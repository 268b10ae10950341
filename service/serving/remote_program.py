"""A program of a front: the contract is checked here, and the engine process computes."""

from __future__ import annotations

from service.engine.frames import Opened
from service.serving.tensor_frames import read_facts


class RemoteProgram:
    """A program of the engine process as its front knows it."""

    def __init__(self, opened: Opened) -> None:
        self.metadata = opened.metadata
        self.contract, self.description = read_facts(opened.program)
        self._memory_bytes = opened.memory_bytes

    def memory_bytes(self) -> int:
        """Bytes that it held on the device when it was opened."""
        return self._memory_bytes
