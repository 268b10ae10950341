"""Tensors at a program's edges: their dtypes, and their values in this process's memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# The dtypes that requests can send. NumPy lacks bfloat16, whose bits are held as uint16.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "uint8": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
# Values whose squares are summed by one thread.
_SMALL = 4096
_CPU = torch.device("cpu")
TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in NUMPY_DTYPES}


@dataclass(frozen=True, slots=True)
class HostTensor:
    """A dtype's name and values [shape]; of bfloat16, the bits as uint16."""

    dtype: str
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def to_torch(self, device: torch.device = _CPU) -> torch.Tensor:
        """A tensor of its own memory, on a device."""
        tensor = torch.from_numpy(np.array(self.values, order="C"))
        if self.dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        return tensor if device == _CPU else tensor.to(device)

    @classmethod
    def of(cls, tensor: torch.Tensor) -> HostTensor:
        """The values of a tensor on any device."""
        name = dtype_name(tensor.dtype)
        values = (tensor.view(torch.uint16) if name == "bfloat16" else tensor).numpy(force=True)
        return cls(name, np.asarray(values, order="C"))  # `ascontiguousarray` would give a scalar a dimension

    def rows(self, begin: int, end: int) -> HostTensor:
        """The rows [begin, end) of its first dimension."""
        return HostTensor(self.dtype, self.values[begin:end])

    @property
    def is_finite(self) -> bool:
        """Whether it has neither NaN nor infinity."""
        if self.dtype == "bfloat16":
            return not _has_full_exponent(self.values)
        if self.dtype[:5] != "float":
            return True
        # A sum of squares is as quick as it is finite only if all values are; a sum that is too large says nothing.
        is_small = self.values.size <= _SMALL and self.dtype != "float16"
        return (is_small and isfinite(np.vdot(self.values, self.values))) or bool(np.isfinite(self.values).all())


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as `float32`."""
    return str(dtype).removeprefix("torch.")


def _has_full_exponent(bits: NDArray[np.uint16]) -> bool:
    """Whether a bfloat16 has all exponent bits set: NaN or infinity."""
    return bool(((bits & 0x7F80) == 0x7F80).any())
