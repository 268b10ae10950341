"""Exported programs, whose tensors are those of the protocol."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from models.programs.contract import Contract, Shaped
from service.api.schemas.open_inference import InferParameters
from service.api.tensors.model import TensorModel, TensorOutput
from service.serving.program_model import ServedProgram, Tensors
from service.serving.servable import Caller


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

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        output = await self.served.infer(tensors, caller)
        return TensorOutput(output.tensors, [output])

    def _make_contract(self) -> Contract:
        return self.served.contract
