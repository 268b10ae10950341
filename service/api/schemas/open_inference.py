"""Bodies of the Open Inference Protocol, version 2.

They are read by msgspec, because a tensor's data stays as it came until its shape is known to be right. Null is the
same as an absent field, as MLServer's types send it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Size = Annotated[int, Meta(ge=0, le=2**40)]
# Of a request's priority: 1 is interactive if the request is small, this one and those above are bulk.
PRIORITY_LEVELS = 2
MOST_TENSORS = 1000
MOST_DIMENSIONS = 64
_LONGEST_US = 3_600_000_000


class _Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """An object that has no other fields than its own."""


class _CodecFields(_Fields, frozen=True):
    """What MLServer's codecs say of the values: that they are texts, or an array."""

    content_type: Literal["str", "np"] | None = None
    headers: None = None


class InputParameters(_CodecFields, frozen=True):
    binary_data_size: Size | None = None


class InferInput(_Fields, frozen=True):
    """A tensor: its values are in `data`, or `binary_data_size` bytes after the JSON."""

    name: Name
    datatype: Name
    shape: Annotated[list[Size], Meta(max_length=MOST_DIMENSIONS)]
    parameters: InputParameters | None = None
    data: Raw = Raw()

    @property
    def binary_size(self) -> int | None:
        """The bytes of its raw values; None where `data` has them."""
        return None if self.parameters is None else self.parameters.binary_data_size


class ShapeAsBytes(Struct, frozen=True):
    """A tensor of which only the shape is looked at, as it came."""

    shape: Raw = Raw()


class ShapesAsBytes(Struct, frozen=True):
    """The shapes of a request."""

    inputs: list[ShapeAsBytes] = []


class OutputParameters(_CodecFields, frozen=True):
    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=0, le=100_000)] = 0


class InferOutput(_Fields, frozen=True):
    """An output that the caller wants, or as text the `classification` best of its values."""

    name: Name
    parameters: OutputParameters | None = None


class InferParameters(_CodecFields, frozen=True):
    """`timeout` is in microseconds. A `priority` of 2 or more, which is lower than 1, makes a request bulk.

    `truncate` and `prompt_name` are for texts, `state` for series, `horizon` for forecasts.
    """

    binary_data_output: bool | None = None
    priority: Annotated[int, Meta(ge=0)] | None = None
    timeout: Annotated[int, Meta(ge=0, le=_LONGEST_US)] | None = None
    truncate: bool | None = None
    prompt_name: Name | None = None
    state: str | None = None
    horizon: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


_NO_PARAMETERS = InferParameters()


class InferBody(_Fields, frozen=True):
    """A request. KServe's client says the model in it, too; the path decides."""

    inputs: Annotated[list[InferInput], Meta(min_length=1, max_length=MOST_TENSORS)]
    id: Annotated[str, Meta(max_length=256)] | None = None
    outputs: Annotated[list[InferOutput], Meta(max_length=MOST_TENSORS)] | None = None
    parameters: InferParameters | None = None
    model_name: str | None = None

    @property
    def options(self) -> InferParameters:
        """The parameters, by default none."""
        return self.parameters or _NO_PARAMETERS


class IndexBody(_Fields, frozen=True):
    """Which models the repository's index names: all, or those that are `ready`."""

    ready: bool = False


class LoadBody(_Fields, frozen=True):
    """Nothing: models have no configuration or files that a request could replace."""


class UnloadParameters(_Fields, frozen=True):
    unload_dependents: bool = False


class UnloadBody(_Fields, frozen=True):
    """No model depends on another one that can be unloaded, so the parameter changes nothing."""

    parameters: UnloadParameters | None = None
