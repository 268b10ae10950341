"""An exported program in service: tensors in, tensors out, through an engine."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import SondeError, TensorError
from models.programs.contract import Contract, Shaped
from models.programs.program import Program
from models.programs.tensors import HostTensor
from service.config import Settings
from service.engine.row_engine import RowEngine
from service.errors import InvalidOutput
from service.serving.servable import Caller, Servable, ServingContext, Timings

log = logging.getLogger(__name__)

# Numbers of an input that take about as long as one token of a small encoder. An id is a token.
ELEMENTS_PER_TOKEN = 256
# Tokens of one item. A larger request is several items, with other requests in between.
TOKENS_PER_ITEM = 256
# Dtypes of ids.
_IDS = {"int16", "int32", "int64"}
_item_numbers = itertools.count()
Tensors = Mapping[str, HostTensor]


@dataclass(slots=True, eq=False)
class TensorItem:
    """Inputs of a program, by name; the engine sets `result`, its outputs.

    The engine's row of an item is a single number: NaN where an output has NaN or infinity.
    """

    tensors: Tensors
    count: int
    result: Tensors | None = None
    # Unique, so that items are never cached or merged.
    key: bytes = field(default_factory=lambda: next(_item_numbers).to_bytes(8, "little"))

    @property
    def rows(self) -> int:
        """The size of the first dimension; 1 where there is none."""
        return [*next(iter(self.tensors.values())).shape, 1][0]

    def finished(self) -> Tensors:
        """The outputs, once the engine has answered."""
        if self.result is None:
            raise RuntimeError("the engine answered an item that it had not computed")
        return self.result


class ProgramBackend:
    """The backend of a program: items whose rows may share a batch are computed at once."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def forward(self, batch: Sequence[TensorItem], preempt: Callable[[], None]) -> NDArray[np.float32]:
        """Compute one number per item, float32 [len(batch), 1]. Others overtake between runs."""
        for group in self._groups(batch):
            self._compute(group)
            preempt()
        finite = [all(tensor.is_finite for tensor in item.finished().values()) for item in batch]
        return np.where(finite, 0.0, np.nan).astype(np.float32)[:, None]

    def _compute(self, items: Sequence[TensorItem]) -> None:
        """Run the program on the rows of several items, and give each its own."""
        if len(items) == 1:
            items[0].result = self._run_alone(items[0].tensors)
            return
        outputs = self._program.run(join([item.tensors for item in items]))
        rows = sum(item.rows for item in items)
        if wrong := [name for name, tensor in outputs.items() if len(tensor.values) != rows]:
            raise InvalidOutput(f"the program gave other than {rows} rows of {', '.join(wrong)}")
        begin = 0
        for item in items:
            end = begin + item.rows
            item.result = {name: tensor.rows(begin, end) for name, tensor in outputs.items()}
            begin = end

    def _run_alone(self, tensors: Tensors) -> Tensors:
        """Run the program on one request. Raises TensorError where it refuses values that its contract allows."""
        try:
            return self._program.run(tensors)
        except SondeError:
            raise
        except (RuntimeError, IndexError, ValueError, ArithmeticError) as error:
            log.warning("a program refused values", extra={"model": self._program.metadata.name}, exc_info=True)
            expected = (
                "expected values that the program computes: a division by zero or an index beyond a table is none"
            )
            raise TensorError(f"inputs: {expected}, got others ({type(error).__name__})", param="inputs") from error

    def _groups(self, batch: Sequence[TensorItem]) -> Iterator[list[TensorItem]]:
        """Items that are computed at once: of equal shapes but for the rows, and within the contract together."""
        if self._program.metadata.one_by_one:
            yield from ([item] for item in batch)
            return
        by_shape: dict[tuple[tuple[int, ...], ...], list[TensorItem]] = {}
        for item in batch:
            by_shape.setdefault(tuple(tensor.shape[1:] for tensor in item.tensors.values()), []).append(item)
        for items in by_shape.values():
            yield from _within_contract(items, self._program.contract)


def _within_contract(items: Sequence[TensorItem], contract: Contract) -> Iterator[list[TensorItem]]:
    """Cut items of equal shapes into groups whose rows the contract allows together."""
    group: list[TensorItem] = []
    for item in items:
        if group and not _may_join([*group, item], contract):
            yield group
            group = []
        group.append(item)
    yield group


def _may_join(items: Sequence[TensorItem], contract: Contract) -> bool:
    rows = sum(item.rows for item in items)
    if contract.most_rows is not None and rows > contract.most_rows:
        return False
    shapes = {name: (rows, *tensor.shape[1:]) for name, tensor in items[0].tensors.items()}
    return contract.broken_condition(shapes) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOutput(Timings):
    """The program's outputs, by name, and the seconds they took."""

    tensors: Tensors


class ServedProgram(Servable):
    """A program that reads tensors."""

    reads = "tensors"

    def __init__(self, program: Program, engine: RowEngine[TensorItem], context: ServingContext) -> None:
        super().__init__(program, engine, context)
        self._contract = program.contract

    @property
    def contract(self) -> Contract:
        """The names, dtypes and shapes of its inputs and outputs."""
        return self._contract

    def check(self, tensors: Mapping[str, Shaped]) -> None:
        """Check inputs, whose values need not be read yet, against the contract.

        Raises TensorError naming an input that does not fit, and InvalidRequest for too much work.
        """
        self._contract.check(tensors)
        self._require_room(cost_in_tokens(tensors), "inputs")

    async def infer(self, tensors: Tensors, caller: Caller) -> ProgramOutput:
        """Queue inputs whose shapes were checked, and wait for the outputs.

        Raises TensorError for an id without a row in its table, Overloaded before any work, and DeadlineExceeded.
        """
        self._contract.check_values(tensors)
        items = self._cut({spec.name: tensors[spec.name] for spec in self._contract.inputs})
        cost = sum(item.count for item in items)
        with self._admission.admit(len(items), cost, lambda: self.engine.tokens_per_s):
            rows = sum(item.rows for item in items)
            self._metrics.inputs.labels(self.metadata.name, self.metadata.task).inc(rows)
            _, queue_s, inference_s = await self._compute_rows(items, caller)
        outputs = join([item.finished() for item in items])
        return ProgramOutput(inputs=rows, token_count=cost, queue_s=queue_s, inference_s=inference_s, tensors=outputs)

    def _cut(self, tensors: Tensors) -> list[TensorItem]:
        """The request as items of at most `TOKENS_PER_ITEM` each, where its rows are independent."""
        whole = TensorItem(tensors, cost_in_tokens(tensors))
        if self.metadata.one_by_one or whole.count <= TOKENS_PER_ITEM:
            return [whole]
        size = max(whole.rows * TOKENS_PER_ITEM // whole.count, 1)
        parts = [
            {name: tensor.rows(begin, begin + size) for name, tensor in tensors.items()}
            for begin in range(0, whole.rows, size)
        ]
        shapes = [{name: tensor.shape for name, tensor in part.items()} for part in parts]
        if any(self._contract.broken_condition(one) is not None for one in shapes):
            return [whole]
        return [TensorItem(part, cost_in_tokens(part)) for part in parts]


def cost_in_tokens(tensors: Mapping[str, Shaped]) -> int:
    """The cost of inputs for the scheduler: that of the largest one."""
    return max(_tokens(tensor) for tensor in tensors.values())


def _tokens(tensor: Shaped) -> int:
    per_token = 1 if tensor.dtype in _IDS else ELEMENTS_PER_TOKEN
    return max(-(-math.prod(tensor.shape) // per_token), 1)


def join(parts: Sequence[Tensors]) -> Tensors:
    """Tensors of equal names, one after the other along their first dimension."""
    if len(parts) == 1:
        return parts[0]
    return {
        name: HostTensor(first.dtype, np.concatenate([part[name].values for part in parts]))
        for name, first in parts[0].items()
    }


def open_programs(settings: Settings) -> Iterator[Program]:
    """Load the exported programs of the settings into this process. Raises ModelError."""
    from models.loader import open_programs as load_all

    return load_all(settings.programs, settings.device, settings.dtype, settings.threads)
