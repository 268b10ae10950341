"""Tensors as the Open Inference Protocol has them in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from service.client.errors import BadInput
from service.datatypes import BINARY_ALONE, DATATYPES

# Those whose numbers JSON can carry; NumPy and PyTorch give dtypes the same names.
_DATATYPES = {dtype: name for dtype, name in DATATYPES.items() if dtype not in {*BINARY_ALONE, "bytes"}}


class Array(Protocol):
    """An array of NumPy, or a tensor of PyTorch."""

    @property
    def dtype(self) -> Any:
        """Its dtype, whose text is a name such as float32."""

    @property
    def shape(self) -> Sequence[int]:
        """Its sizes."""

    def tolist(self) -> Any:
        """Its numbers in lists as deep as its shape; a number where it has no dimension."""


class Tensor(TypedDict):
    """An input of an exported program; `data` has the numbers in lists as deep as the shape, or in one list."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any]


# An array for each input's name, or tensors as they are sent.
Tensors = Mapping[str, Array] | Sequence[Tensor]
# Rows of a program with one float input [batch, columns]: lists, or an array of two dimensions.
Rows = Sequence[Sequence[float]] | Array


def describe_tensors(inputs: Tensors) -> list[Tensor]:
    """Tensors with datatype and shape. Raises BadInput for an array of another dtype."""
    if not isinstance(inputs, Mapping):
        return list(inputs)
    return [
        {"name": name, "datatype": _datatype(name, array), "shape": list(array.shape), "data": _data(array)}
        for name, array in inputs.items()
    ]


def _datatype(name: str, array: Array) -> str:
    if not all(hasattr(array, needed) for needed in ("dtype", "shape", "tolist")):
        raise BadInput(f"inputs: {name}: expected an array, got {type(array).__name__}")
    dtype = str(array.dtype).removeprefix("torch.")
    if dtype not in _DATATYPES:
        raise BadInput(f"inputs: {name}: expected one of the dtypes {', '.join(_DATATYPES)}, got {dtype}")
    return _DATATYPES[dtype]


def _data(array: Array) -> Sequence[Any]:
    """The numbers in lists; those of a scalar in a list of one."""
    values = array.tolist()
    return values if isinstance(values, list) else [values]
