"""Bodies of the Open Inference Protocol, version 2.

They are read by msgspec, because a tensor's data stays as it came until its shape is known to be right.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Size = Annotated[int, Meta(ge=0, le=2**40)]
_MOST = 1000


class _Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """An object that has no other fields than its own."""


class InputParameters(_Fields, frozen=True):
    binary_data_size: Size | None = None


class InferInput(_Fields, frozen=True):
    """A tensor: its values are in `data`, or `binary_data_size` bytes after the JSON."""

    name: Name
    datatype: Name
    shape: Annotated[list[Size], Meta(max_length=64)]
    parameters: InputParameters = InputParameters()
    data: Raw = Raw()


class OutputParameters(_Fields, frozen=True):
    binary_data: bool | None = None


class InferOutput(_Fields, frozen=True):
    """An output that the caller wants."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class InferParameters(_Fields, frozen=True):
    binary_data_output: bool = False


class InferBody(_Fields, frozen=True):
    inputs: Annotated[list[InferInput], Meta(min_length=1, max_length=_MOST)]
    id: Annotated[str, Meta(max_length=256)] = ""
    outputs: Annotated[list[InferOutput], Meta(max_length=_MOST)] = []
    parameters: InferParameters = InferParameters()
