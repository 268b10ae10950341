"""An exported program in service: tensors in, tensors out, through an engine."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import SondeError, TensorError
from models.metadata import Computable
from models.programs.contract import Contract, Shaped
from models.programs.description import Description
from models.programs.program import Program
from models.programs.row_check import sample_inputs
from models.programs.tensors import HostTensor
from service.engine.row_engine import RowEngine
from service.errors import InvalidOutput, InvalidRequest
from service.serving.servable import Caller, Servable, ServingContext, Timings

log = logging.getLogger(__name__)

# Numbers of an input that take about as long as one token of a small encoder. An id is a token.
ELEMENTS_PER_TOKEN = 256
# Tokens of one item. A larger request is several items, with other requests in between.
TOKENS_PER_ITEM = 256
# Dtypes of ids.
_IDS = {"int16", "int32", "int64"}
# The event loop computes at most this many tokens itself, and only if they take it less than this: one request's share
# of HTTP takes as long.
_MOST_LOOP_TOKENS, _LOOP_S = 64, 0.0005
_TRIES = 3
_item_numbers = itertools.count()
Tensors = Mapping[str, HostTensor]


@dataclass(slots=True, eq=False)
class TensorItem:
    """Inputs of a program, by name; the engine sets `result`, its outputs.

    The engine's row of an item is a single number: NaN where an output has NaN or infinity.
    """

    tensors: Tensors
    count: int
    # The size of the first dimension; 1 where there is none.
    rows: int = field(init=False)
    result: Tensors | None = None
    # Unique, so that items are never cached or merged.
    key: bytes = field(default_factory=lambda: next(_item_numbers).to_bytes(8, "little"))

    def __post_init__(self) -> None:
        shape = next(iter(self.tensors.values())).shape
        self.rows = shape[0] if shape else 1

    def finished(self) -> Tensors:
        """The outputs, once the engine has answered."""
        if self.result is None:
            raise RuntimeError("the engine answered an item that it had not computed")
        return self.result


class DescribedProgram(Computable, Protocol):
    """What a model in service needs of a program, which may be in the engine process."""

    @property
    def contract(self) -> Contract: ...

    @property
    def description(self) -> Description: ...


class ProgramBackend:
    """The backend of a program: items whose rows may share a batch are computed at once."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def forward(self, batch: Sequence[TensorItem], preempt: Callable[[], None]) -> NDArray[np.float32]:
        """Compute one number per item, float32 [len(batch), 1]. Others overtake between runs."""
        all_finite = True
        for group in self._groups(batch):
            all_finite &= self._compute(group)
            preempt()
        rows = np.zeros((len(batch), 1), np.float32)
        if not all_finite:
            rows[[not _are_finite(item.finished()) for item in batch]] = np.nan
        return rows

    def _compute(self, items: Sequence[TensorItem]) -> bool:
        """Run the program on the rows of several items, and give each its own; whether all outputs are finite."""
        if len(items) == 1:
            items[0].result = outputs = self._run_alone(items[0].tensors)
            return _are_finite(outputs)
        outputs = self._program.run(join([item.tensors for item in items]))
        rows = sum(item.rows for item in items)
        if wrong := [name for name, tensor in outputs.items() if len(tensor.values) != rows]:
            raise InvalidOutput(f"the program gave other than {rows} rows of {', '.join(wrong)}")
        begin = 0
        for item in items:
            end = begin + item.rows
            item.result = {name: tensor.rows(begin, end) for name, tensor in outputs.items()}
            begin = end
        return _are_finite(outputs)

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
    rows = 0
    for item in items:
        if group and not _may_join(item, rows + item.rows, contract):
            yield group
            group, rows = [], 0
        group.append(item)
        rows += item.rows
    yield group


def _may_join(item: TensorItem, rows: int, contract: Contract) -> bool:
    """Whether `rows` of the shapes of an item may be computed at once."""
    if contract.most_rows is not None and rows > contract.most_rows:
        return False
    if not contract.conditions:
        return True
    shapes = {name: (rows, *tensor.shape[1:]) for name, tensor in item.tensors.items()}
    return contract.broken_condition(shapes) is None


def _are_finite(tensors: Tensors) -> bool:
    """Whether none has NaN or infinity."""
    return all(tensor.is_finite for tensor in tensors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOutput(Timings):
    """The program's outputs, by name, and the seconds they took."""

    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Uncut:
    """An input of a program, of which nothing is ever cut."""

    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRows(Timings):
    """The rows of the task that a program does, float32 [n, width], and the seconds they took."""

    values: NDArray[np.float32]

    @property
    def tokens(self) -> Sequence[Uncut]:
        """What was read of each input, as other outputs say it."""
        return [Uncut()] * len(self.values)


class ServedProgram(Servable):
    """A program that reads tensors."""

    reads = "tensors"

    def __init__(self, program: DescribedProgram, engine: RowEngine[TensorItem], context: ServingContext) -> None:
        super().__init__(program, engine, context)
        self._contract = program.contract
        self.description = program.description

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
            self._metrics.inputs.labels(self.metadata.name, self.metadata.task).inc(sum(item.rows for item in items))
            return await self._compute(items, caller)

    async def rows(self, tensors: Tensors, caller: Caller) -> ProgramRows:
        """The rows of the task that the program does. Raises as `infer` does."""
        made = await self.infer(tensors, caller)
        values = self.description.rows_of(made.tensors)
        return ProgramRows(
            inputs=made.inputs,
            token_count=made.token_count,
            queue_s=made.queue_s,
            inference_s=made.inference_s,
            values=values,
        )

    def probabilities(self, rows: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
        """The probabilities [n, labels] of a classifier's rows: all summing to 1, or each label by itself.

        Raises InvalidRequest for `multi_label` where the program computes probabilities that sum to 1.
        """
        stated = self.description
        if multi_label and stated.scores == "probabilities" and not stated.multi_label:
            states = f"{self.metadata.name} computes probabilities, of which its description states no multi_label"
            raise InvalidRequest.at("multi_label", f"{states}: leave it out")
        return stated.probabilities(rows, multi_label=multi_label)

    async def _compute(self, items: Sequence[TensorItem], caller: Caller) -> ProgramOutput:
        """Queue items that are admitted, and wait for the outputs."""
        _, queue_s, inference_s = await self._compute_rows(items, caller)
        return ProgramOutput(
            inputs=sum(item.rows for item in items),
            token_count=sum(item.count for item in items),
            queue_s=queue_s,
            inference_s=inference_s,
            tensors=join([item.finished() for item in items]),
        )

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
    return max(-(-math.prod(tensor.shape) // _elements_per_token(tensor)), 1)


def _elements_per_token(tensor: Shaped) -> int:
    return 1 if tensor.dtype in _IDS else ELEMENTS_PER_TOKEN


def loop_tokens(program: Program) -> int:
    """The most tokens that the event loop computes itself, because they take it less than `_LOOP_S`; 0 for none."""
    if program.metadata.one_by_one or program.metadata.device != "cpu" or program.has_sizes_by_values:
        return 0
    tokens = _MOST_LOOP_TOKENS
    while tokens and _seconds_of(program, tokens) > _LOOP_S:
        tokens //= 2
    return tokens


def _seconds_of(program: Program, tokens: int) -> float:
    """The seconds of the largest batch of this number of tokens that the contract allows; infinite without a try."""
    alone = sample_inputs(program.contract, 1)
    if alone is None:
        return math.inf
    rows = min(tokens * _elements_per_token(tensor) // max(math.prod(tensor.shape), 1) for tensor in alone.values())
    sample = sample_inputs(program.contract, max(rows, 1))
    if sample is None:
        return math.inf
    try:
        return min(_timed(program, sample) for _ in range(_TRIES))
    except SondeError:
        raise
    except Exception:  # a program may raise anything for values that it was not made for; a thread computes it then
        return math.inf


def _timed(program: Program, sample: Tensors) -> float:
    """The processor time of one run; others that hold Python's lock or the processor, as at the start, do not count."""
    began = time.thread_time()
    program.run(sample)
    return time.thread_time() - began


def join(parts: Sequence[Tensors]) -> Tensors:
    """Tensors of equal names, one after the other along their first dimension."""
    if len(parts) == 1:
        return parts[0]
    return {
        name: HostTensor(first.dtype, np.concatenate([part[name].values for part in parts]))
        for name, first in parts[0].items()
    }
