"""The contract of a program: what its inputs and outputs are called, their dtypes, and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.errors import TensorError
from models.programs.expressions import Expression
from models.programs.tensors import HostTensor

# Kinds of requests whose check is not made again.
_MOST_PASSED = 256
# A number, or arithmetic of sizes that vary; None where an output's arithmetic is unknown.
Size = int | Expression | None


class Shaped(Protocol):
    """What a contract is about: a tensor, or what a request says of one before its values are read."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Described:
    """The dtype and shape of a tensor whose values are not there yet."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """The least and the most that a size may be."""

    least: int = 1
    most: int | None = None

    def __contains__(self, size: int) -> bool:
        return self.least <= size and (self.most is None or size <= self.most)

    def __str__(self) -> str:
        return f"{self.least}..{'' if self.most is None else self.most}"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, dtype and shape; an input may be `optional`, and may come in another dtype."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    optional: bool = False
    other_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """What a program takes and gives.

    `limits` has the bounds of each size that varies. `conditions` must hold between sizes; they are what torch.export
    took for granted. `ids` has the bounds of inputs that are looked up in a table. `batch` is the size that all tensors
    begin with, where there is one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: Mapping[str, Limits]
    conditions: tuple[Expression, ...] = ()
    ids: Mapping[str, Limits] = field(default_factory=dict)
    batch: str | None = field(init=False)
    _names: frozenset[str] = field(init=False, repr=False)
    # Inputs that have passed the check: most requests are like others.
    _passed: set[tuple[tuple[str, str, tuple[int, ...]], ...]] = field(
        init=False, repr=False, compare=False, default_factory=set
    )
    # Inputs with a size that is arithmetic of other sizes.
    _with_formulas: tuple[TensorSpec, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch", _batch_symbol([*self.inputs, *self.outputs]))
        object.__setattr__(self, "_names", frozenset(spec.name for spec in self.inputs))
        object.__setattr__(
            self, "_with_formulas", tuple(spec for spec in self.inputs if any(map(_is_formula, spec.shape)))
        )

    @property
    def most_rows(self) -> int | None:
        """The most rows of one run; None without a bound."""
        return self.limits[self.batch].most if self.batch else None

    def check(self, tensors: Mapping[str, Shaped]) -> None:
        """Raise TensorError naming the first input that is not as the contract has it."""
        given = tuple((name, one.dtype, one.shape) for name, one in tensors.items())
        if given in self._passed:
            return
        self._check(tensors)
        if len(self._passed) < _MOST_PASSED:
            self._passed.add(given)

    def _check(self, tensors: Mapping[str, Shaped]) -> None:
        for name in tensors:
            if name not in self._names:
                known = ", ".join(spec.name for spec in self.inputs)
                raise TensorError(f"inputs: no input {name[:80]!r}; the model has: {known}", param="inputs")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            if spec.name in tensors:
                self._check_one(spec, tensors[spec.name], sizes)
            elif not spec.optional:
                raise TensorError(f"{spec.name}: {self._expected(spec)}, got none", param=spec.name)
        for spec in self._with_formulas:  # they come last, when all sizes in them are known
            self._check_formulas(spec, tensors[spec.name], sizes)
        if (broken := self.broken_condition({name: one.shape for name, one in tensors.items()})) is not None:
            shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in tensors.items())
            raise TensorError(f"inputs: expected sizes with {broken.text}, got {shapes}", param="inputs")

    def check_values(self, tensors: Mapping[str, HostTensor]) -> None:
        """Raise TensorError for ids that a table has no row for: a GPU would be lost by them."""
        for name, limits in self.ids.items():
            values = tensors[name].values
            wrong = values[(values < limits.least) | (values > (limits.most or 0))]
            if wrong.size:
                raise TensorError(f"{name}: expected ids {limits}, got {wrong.flat[0]}", param=name)

    def broken_condition(self, shapes: Mapping[str, tuple[int, ...]]) -> Expression | None:
        """The first condition that does not hold for inputs of these shapes."""
        if not self.conditions:
            return None
        sizes = {f"{name}[{at}]": size for name, shape in shapes.items() for at, size in enumerate(shape)}
        return next((one for one in self.conditions if not _value_of(one, sizes)), None)

    def signature(self) -> dict[str, Any]:
        """Names, dtypes and shapes as JSON; a size that varies has its name and its limits."""
        return {
            "inputs": [self._shown(spec) for spec in self.inputs],
            "outputs": [self._shown(spec) for spec in self.outputs],
            "dimensions": {
                self._size(name): {"minimum": limits.least, "maximum": limits.most}
                for name, limits in self.limits.items()
            },
        }

    def shape_of(self, spec: TensorSpec) -> list[int | str]:
        """A shape with the names of sizes that vary; the batch is called `batch`."""
        return [size if isinstance(size, int) else self._size(size) for size in spec.shape]

    def _check_one(self, spec: TensorSpec, got: Shaped, sizes: dict[str, int]) -> None:
        """Compare dtype and sizes; note those that vary in `sizes`."""
        if got.dtype not in (spec.dtype, spec.other_dtype):
            raise TensorError(f"{spec.name}: {self._expected(spec)}, got dtype {got.dtype}", param=spec.name)
        if len(got.shape) != len(spec.shape):
            raise TensorError(f"{spec.name}: {self._expected(spec)}, got {list(got.shape)}", param=spec.name)
        for at, (size, actual) in enumerate(zip(spec.shape, got.shape, strict=True)):
            if isinstance(size, int):
                if actual != size:
                    raise self._wrong_size(spec, got, at, f"expected {size}")
            elif size is not None and (symbol := size.symbol) is not None:
                if sizes.setdefault(symbol, actual) != actual:
                    other = f"expected {sizes[symbol]}, as {self._size(symbol)} is elsewhere in this request"
                    raise self._wrong_size(spec, got, at, other)
                if actual not in self.limits[symbol]:
                    raise self._wrong_size(spec, got, at, f"expected {self.limits[symbol]}")

    def _check_formulas(self, spec: TensorSpec, got: Shaped, sizes: Mapping[str, int]) -> None:
        for at, (size, actual) in enumerate(zip(spec.shape, got.shape, strict=True)):
            if isinstance(size, Expression) and _is_formula(size):
                expected = _value_of(size, sizes)
                if actual != expected:
                    raise self._wrong_size(spec, got, at, f"expected {'another' if expected is None else expected}")

    def _wrong_size(self, spec: TensorSpec, got: Shaped, at: int, reason: str) -> TensorError:
        about = f"{spec.name}: {self._expected(spec)}, got {list(got.shape)}: dimension {at} is {got.shape[at]}"
        return TensorError(f"{about}, {reason}", param=spec.name)

    def _expected(self, spec: TensorSpec) -> str:
        dtypes = spec.dtype if spec.other_dtype is None else f"{spec.dtype} or {spec.other_dtype}"
        return f"expected {dtypes} {self.shape_of(spec)}".replace("'", "")

    def _shown(self, spec: TensorSpec) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": spec.name, "dtype": spec.dtype, "shape": self.shape_of(spec)}
        if (limits := self.ids.get(spec.name)) is not None:
            shown.update(minimum=limits.least, maximum=limits.most)
        return shown

    def _size(self, size: Expression | str | None) -> str:
        if size is None:
            return "?"
        text = size if isinstance(size, str) else size.text
        return "batch" if text == self.batch else text


def _is_formula(size: Size) -> bool:
    """Whether a size is arithmetic of other sizes."""
    return isinstance(size, Expression) and size.symbol is None


def _value_of(expression: Expression, sizes: Mapping[str, int]) -> int | None:
    """The value of an expression, or whether a condition holds; None where it divides by zero or is too large."""
    try:
        return expression.value(sizes)
    except ArithmeticError:
        return None


def _batch_symbol(specs: list[TensorSpec]) -> str | None:
    """The symbol that all shapes begin with, and have nowhere else."""
    first = [spec.shape[0] if spec.shape else None for spec in specs]
    symbols = {one.symbol if isinstance(one, Expression) else None for one in first}
    symbol = symbols.pop() if len(symbols) == 1 else None
    elsewhere = [one for spec in specs for one in spec.shape[1:] if isinstance(one, Expression)]
    if symbol is None or any(symbol in one.symbols for one in elsewhere):
        return None
    return symbol
