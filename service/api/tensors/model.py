"""A model in service as the Open Inference Protocol sees it: by a contract of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from models.programs.contract import Contract, Limits, Shaped, TensorSpec
from models.programs.expressions import parse
from models.programs.tensors import HostTensor
from service.api.routes.label_scores import LabelScores
from service.api.schemas.open_inference import InferParameters
from service.api.tensors.data import bytes_tensor
from service.config import Settings
from service.errors import InvalidRequest
from service.serving.program_model import Tensors
from service.serving.servable import Caller, Servable, Timings

ServedT = TypeVar("ServedT", bound=Servable)
# Names of tensors, with dtype and shape.
Specs = dict[str, tuple[str, tuple[int | str, ...]]]
# What an answer says beside its tensors.
AnswerParameters = dict[str, str | bool]
# Parameters that are for some kinds of models.
_OF_KINDS = ("truncate", "prompt_name", "state", "horizon")


@dataclass(frozen=True, slots=True)
class TensorCall:
    """Inputs that were checked, the names of the outputs that are wanted, parameters, and the caller."""

    tensors: Tensors
    wanted: Collection[str]
    parameters: InferParameters
    caller: Caller


@dataclass(frozen=True, slots=True)
class TensorOutput:
    """A model's outputs by name, what was computed for them, and the answer's parameters."""

    tensors: Tensors
    parts: Sequence[Timings]
    parameters: Mapping[str, str | bool] = field(default_factory=dict)


class TensorModel(ABC, Generic[ServedT]):
    """A model in service with its contract.

    `inputs` have one dimension that varies, n. `takes` are the parameters of its kind. `has_batches` says that the rows
    of a request are independent, and `with_missing` that NaN is a missing value.
    """

    platform: ClassVar[str] = "sonde"
    inputs: ClassVar[Specs] = {}
    takes: ClassVar[Collection[str]] = ()
    has_batches: ClassVar[bool] = True
    with_missing: ClassVar[bool] = False

    def __init__(self, served: ServedT, settings: Settings) -> None:
        self.served = served
        self._settings = settings
        self.contract = self._make_contract()

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The names of an output's columns, by output."""
        return {}

    @property
    def most_rows(self) -> int:
        """The most rows of a request; 0 where they are no batch."""
        if not self.has_batches or self.contract.batch is None:
            return 0
        return self.contract.most_rows or self._settings.max_inputs

    def check(self, tensors: Mapping[str, Shaped], parameters: InferParameters) -> None:
        """Check inputs, whose values need not be read yet, and parameters.

        Raises TensorError naming an input that does not fit, and InvalidRequest.
        """
        for name in _OF_KINDS:
            if getattr(parameters, name) is not None and name not in self.takes:
                known = ", ".join(self.takes) or "none"
                about = f"{self.served.metadata.name} has no such parameter; those of its kind: {known}"
                raise InvalidRequest.at(f"parameters.{name}", about)
        self._check_tensors(tensors)

    def _check_tensors(self, tensors: Mapping[str, Shaped]) -> None:
        self.contract.check(tensors)

    @abstractmethod
    async def infer(self, call: TensorCall) -> TensorOutput:
        """Compute outputs, at least those wanted.

        Raises Overloaded before any work, DeadlineExceeded, and InvalidRequest for values that the model cannot read.
        """

    def _outputs(self) -> Specs:
        """The outputs of those kinds whose contract is not made elsewhere."""
        return {}

    def _make_contract(self) -> Contract:
        return make_contract(self.inputs, self._outputs(), {"n": self._settings.max_inputs})


def make_contract(inputs: Specs, outputs: Specs, most: Mapping[str, int]) -> Contract:
    """A contract of tensors by name, where `most` bounds the sizes that vary."""

    def specs(given: Specs) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, dtype, tuple(map(_size, shape))) for name, (dtype, shape) in given.items())

    return Contract(specs(inputs), specs(outputs), {name: Limits(1, limit) for name, limit in most.items()})


def label_tensors(scored: LabelScores) -> Tensors:
    """A classifier's outputs: the best label, and the scores of all labels."""
    best = [scored.names[at].encode() for at in scored.in_scope.argmax(axis=1)]
    return {"label": bytes_tensor(best), "scores": HostTensor("float32", scored.scores)}


def _size(size: int | str) -> Any:
    return parse(size) if isinstance(size, str) else size
