"""An exported program in memory: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.fx import Graph, GraphModule

from models.errors import ModelSourceError
from models.metadata import ModelMetadata
from models.programs.description import NO_TASK, Description, completed, description_file, width_of
from models.programs.reader import ReadProgram
from models.programs.tensors import HostTensor
from models.runtime.device import inference_mode
from models.runtime.placement import Placement
from models.source import ModelSource

Tensors = Mapping[str, HostTensor]
# Operators by which a value becomes a size.
_SIZES_BY_VALUES = {
    *("aten.item.default", "aten._local_scalar_dense.default", "aten.bincount.default", "aten.one_hot.default"),
    *("aten.repeat_interleave.Tensor", "aten.repeat_interleave.self_Tensor"),
}


class Program:
    """A program, its contract, its description and its metadata. It computes in the dtypes of its file."""

    def __init__(
        self, source: ModelSource, read: ReadProgram, placement: Placement, description: Description = NO_TASK
    ) -> None:
        """Raises ModelSourceError where the program cannot do the task that is described."""
        self.contract = read.contract
        self.description = completed(description, self.contract, description_file(source.path).name)
        self._module = read.module
        self._outputs = read.outputs
        self._placement = placement
        self._changes = self._count_changes()
        floating = [tensor.dtype for tensor in self.weights() if tensor.is_floating_point()]
        dtype = str(floating[0]).removeprefix("torch.") if floating else self.contract.inputs[0].dtype
        self.metadata = ModelMetadata(
            name=source.name,
            version=source.version,
            task=self.description.task,
            origin=source.origin,
            architecture=read.written_by,
            width=width_of(self.description, self.contract.outputs),
            max_tokens=0,
            vocabulary=0,
            device=str(placement.device),
            dtype=dtype,
            reason=f"{placement.reason.partition(';')[0]}; {dtype} as the program has it",
            labels=self.description.labels,
            multi_label=self.description.multi_label,
            forward="as exported",
            pads=False,
            tensors=self.contract.signature(),
        )

    @property
    def has_sizes_by_values(self) -> bool:
        """Whether the values of an input decide how large a tensor within it is, and so its time and memory."""
        return any(str(node.target) in _SIZES_BY_VALUES for graph in self.graphs() for node in graph.nodes)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._placement.device

    def graphs(self) -> list[Graph]:
        """Its graphs; none of compiled code."""
        return [module.graph for module in self._module.modules() if isinstance(module, GraphModule)]

    def outputs_only(self) -> torch.nn.Module:
        """A module that gives the contract's outputs alone, in order."""
        return _OutputsOnly(self._module, self._outputs)

    def compute_by(self, module: torch.nn.Module) -> None:
        """Take another module that gives the contract's outputs alone, in order."""
        self._module, self._outputs = module, tuple(range(len(self.contract.outputs)))
        self._changes = self._count_changes()

    def weights(self) -> list[torch.Tensor]:
        """All weights."""
        return [tensor for module in self._module.modules() for tensor in module.buffers(recurse=False)]

    def run(self, tensors: Tensors) -> dict[str, HostTensor]:
        """Compute the outputs, by name, for inputs that keep to the contract.

        Raises ModelOutOfMemory when they do not fit, DeviceLost when the device is gone, and what PyTorch raises.
        Raises ModelSourceError once it has changed its weights, by which requests would change each other's answers.
        """
        with inference_mode(self._placement.device):
            device = self._placement.device
            values = [tensors[spec.name].to_torch(device) for spec in self.contract.inputs]
            results = self._module.forward(*values)  # calling the module would load the compiler to report a failure
            made = [HostTensor.of(results[at]) for at in self._outputs]
        if self._count_changes() != self._changes:
            about = f"{self.metadata.name}: expected a program that keeps its weights, and it changes them as it runs"
            raise ModelSourceError(f"{about}: export module.eval()", param="model")
        return {spec.name: one for spec, one in zip(self.contract.outputs, made, strict=True)}

    def _count_changes(self) -> int:
        return sum(tensor._version for tensor in self.weights())  # noqa: SLF001

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()

    def describe(self, **fields: object) -> None:
        """Record in the metadata what was found at load."""
        self.metadata = replace(self.metadata, **fields)  # type: ignore[arg-type]


class _OutputsOnly(torch.nn.Module):
    """A module without those of its outputs that are no tensors."""

    def __init__(self, module: torch.nn.Module, places: tuple[int, ...]) -> None:
        super().__init__()
        self._module = module
        self._places = places

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """The outputs, in order."""
        results = self._module.forward(*inputs)
        return [results[place] for place in self._places]
