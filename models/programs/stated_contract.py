"""A contract that is stated beside a program, in the form in which others are shown."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from models.errors import source_error
from models.programs.contract import Contract, Limits, Size, TensorSpec
from models.programs.expressions import Expression, NotInGrammar, parse
from models.programs.tensors import NUMPY_DTYPES

Name = Annotated[str, Meta(min_length=1, max_length=256)]
StatedSize = Annotated[int, Meta(ge=0)] | Name


class StatedRange(Struct, frozen=True, forbid_unknown_fields=True):
    """The least and the most that a size, or an id, may be."""

    minimum: Annotated[int, Meta(ge=0)] = 1
    maximum: Annotated[int, Meta(ge=0)] | None = None


class StatedTensor(Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor; sizes that vary have names. `minimum` and `maximum` are of ids, which are looked up in a table."""

    name: Name
    dtype: Name
    shape: tuple[StatedSize, ...]
    minimum: int | None = None
    maximum: int | None = None


class StatedContract(Struct, frozen=True, forbid_unknown_fields=True):
    """A contract in the form in which `/v1/models` and `sonde export --json` show one."""

    inputs: Annotated[tuple[StatedTensor, ...], Meta(min_length=1, max_length=1000)]
    outputs: Annotated[tuple[StatedTensor, ...], Meta(min_length=1, max_length=1000)]
    dimensions: dict[Name, StatedRange] = {}

    def contract(self, name: str) -> Contract:
        """The contract. Raises ModelSourceError for what is none."""
        inputs = tuple(self._spec(one, name) for one in self.inputs)
        outputs = tuple(self._spec(one, name) for one in self.outputs)
        for one in self.inputs:
            if one.minimum is not None and one.maximum is None:
                raise source_error(
                    name, f"contract: {one.name}: expected a maximum beside the minimum of its ids, got none"
                )
        limits = {size: Limits(one.minimum, one.maximum) for size, one in self.dimensions.items()}
        ids = {one.name: Limits(one.minimum or 0, one.maximum) for one in self.inputs if one.maximum is not None}
        return Contract(inputs, outputs, limits, ids=ids)

    def _spec(self, stated: StatedTensor, name: str) -> TensorSpec:
        if stated.dtype not in NUMPY_DTYPES:
            expected = f"expected a dtype of {', '.join(NUMPY_DTYPES)}"
            raise source_error(name, f"contract: {stated.name}: {expected}, got {stated.dtype}")
        return TensorSpec(stated.name, stated.dtype, tuple(self._size(size, stated, name) for size in stated.shape))

    def _size(self, size: StatedSize, stated: StatedTensor, name: str) -> Size:
        if isinstance(size, int):
            return size
        try:
            parsed: Expression | None = parse(size)
        except NotInGrammar:
            parsed = None
        if parsed is None or parsed.symbol not in self.dimensions:
            raise source_error(name, f"contract: {stated.name}: expected {size!r} among dimensions, with its bounds")
        return parsed
