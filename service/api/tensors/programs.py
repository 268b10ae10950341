"""Exported programs, whose tensors are those of the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.programs.contract import Contract, Shaped
from service.api.tensors.model import TensorCall, TensorModel, TensorOutput
from service.serving.program_model import ServedProgram


class ProgramTensors(TensorModel[ServedProgram]):
    """An exported program, whose contract is its own."""

    platform = "pytorch_exported_program"

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """See TensorModel."""
        described = self.served.description
        return {described.output: described.labels} if described.output else {}

    def _check_tensors(self, tensors: Mapping[str, Shaped]) -> None:
        self.served.check(tensors)

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        output = await self.served.infer(call.tensors, call.caller)
        return TensorOutput(output.tensors, [output])

    def _make_contract(self) -> Contract:
        return self.served.contract
