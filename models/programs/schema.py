"""The JSON of an exported program, as torch.export writes it: only what is read of it.

The names are those of `torch/_export/serde/schema.py`. A field of type Raw is not read. Other fields are refused.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

SCHEMA_MAJOR = 8


class _Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """An object that has no other fields than its own."""


class _OneOf(Struct, frozen=True, forbid_unknown_fields=True):
    """An object with one of its fields: the kind of a value, and the value."""

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not UNSET for name in self.__struct_fields__) != 1:
            raise ValueError(f"expected one of {', '.join(self.__struct_fields__)}")

    @property
    def kind(self) -> str:
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not UNSET)

    @property
    def value(self) -> Any:
        return getattr(self, self.kind)


class SymbolicExpression(_Fields, frozen=True):
    expr_str: str
    hint: Raw = Raw()


class Size(_OneOf, frozen=True):
    as_expr: SymbolicExpression | UnsetType = UNSET
    as_int: int | UnsetType = UNSET


class TensorDevice(_Fields, frozen=True):
    type: str
    index: int | None = None


class TensorMeta(_Fields, frozen=True):
    """A tensor's dtype and layout by torch.export's numbers, and its sizes."""

    dtype: int
    sizes: list[Size]
    requires_grad: bool
    device: TensorDevice
    strides: list[Size]
    storage_offset: Size
    layout: int


class TensorName(_Fields, frozen=True):
    name: str


class SymbolicInt(_OneOf, frozen=True):
    as_name: str | UnsetType = UNSET
    as_int: int | UnsetType = UNSET


class SymbolicFloat(_OneOf, frozen=True):
    as_name: str | UnsetType = UNSET
    as_float: float | UnsetType = UNSET


class SymbolicBool(_OneOf, frozen=True):
    as_name: str | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class OptionalTensor(_OneOf, frozen=True):
    as_tensor: TensorName | UnsetType = UNSET
    as_none: bool | UnsetType = UNSET


class Complex(_Fields, frozen=True):
    real: float
    imag: float


class SubGraph(_Fields, frozen=True):
    name: str
    graph: Graph


class Argument(_OneOf, frozen=True):
    """An argument of a node. Objects and operators as arguments are not among its kinds."""

    as_none: bool | UnsetType = UNSET
    as_tensor: TensorName | UnsetType = UNSET
    as_tensors: list[TensorName] | UnsetType = UNSET
    as_int: int | UnsetType = UNSET
    as_ints: list[int] | UnsetType = UNSET
    as_float: float | UnsetType = UNSET
    as_floats: list[float] | UnsetType = UNSET
    as_string: str | UnsetType = UNSET
    as_sym_int: SymbolicInt | UnsetType = UNSET
    as_sym_ints: list[SymbolicInt] | UnsetType = UNSET
    as_sym_float: SymbolicFloat | UnsetType = UNSET
    as_sym_floats: list[SymbolicFloat] | UnsetType = UNSET
    as_sym_bool: SymbolicBool | UnsetType = UNSET
    as_sym_bools: list[SymbolicBool] | UnsetType = UNSET
    as_scalar_type: int | UnsetType = UNSET
    as_memory_format: int | UnsetType = UNSET
    as_layout: int | UnsetType = UNSET
    as_device: TensorDevice | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_bools: list[bool] | UnsetType = UNSET
    as_graph: SubGraph | UnsetType = UNSET
    as_optional_tensor: OptionalTensor | UnsetType = UNSET
    as_optional_tensors: list[OptionalTensor] | UnsetType = UNSET
    as_complex: Complex | UnsetType = UNSET


class NamedArgument(_Fields, frozen=True):
    name: str
    arg: Argument
    kind: int | None = None


class Node(_Fields, frozen=True):
    target: str
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: Raw
    is_hop_single_tensor_return: bool | None = None
    name: str | None = None


class Graph(_Fields, frozen=True):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: Raw
    sym_bool_values: Raw
    is_single_tensor_return: bool = False
    custom_obj_values: dict[str, Raw] = {}
    sym_float_values: Raw = Raw()


class InputArgument(_Fields, frozen=True):
    arg: Argument


class ParameterInput(_Fields, frozen=True):
    arg: TensorName
    parameter_name: str


class BufferInput(_Fields, frozen=True):
    arg: TensorName
    buffer_name: str
    persistent: bool


class ConstantInput(_Fields, frozen=True):
    arg: TensorName
    tensor_constant_name: str


class ValueInput(_Fields, frozen=True):
    name: str
    value: Raw


class InputSpec(_OneOf, frozen=True):
    user_input: InputArgument | UnsetType = UNSET
    parameter: ParameterInput | UnsetType = UNSET
    buffer: BufferInput | UnsetType = UNSET
    tensor_constant: ConstantInput | UnsetType = UNSET
    constant_input: ValueInput | UnsetType = UNSET
    custom_obj: dict[str, Any] | UnsetType = UNSET
    token: dict[str, Any] | UnsetType = UNSET


class OutputSpec(_OneOf, frozen=True):
    user_output: InputArgument | UnsetType = UNSET
    loss_output: dict[str, Any] | UnsetType = UNSET
    buffer_mutation: dict[str, Any] | UnsetType = UNSET
    gradient_to_parameter: dict[str, Any] | UnsetType = UNSET
    gradient_to_user_input: dict[str, Any] | UnsetType = UNSET
    user_input_mutation: dict[str, Any] | UnsetType = UNSET
    token: dict[str, Any] | UnsetType = UNSET
    parameter_mutation: dict[str, Any] | UnsetType = UNSET


class Signature(_Fields, frozen=True):
    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class CallSignature(_Fields, frozen=True):
    inputs: Raw
    outputs: Raw
    in_spec: Raw
    out_spec: str
    forward_arg_names: Raw = Raw()


class ModuleCall(_Fields, frozen=True):
    fqn: str
    signature: CallSignature | None = None


class GraphModule(_Fields, frozen=True):
    graph: Graph
    signature: Signature
    module_call_graph: list[ModuleCall]
    metadata: Raw = Raw()
    treespec_namedtuple_fields: Raw = Raw()


class Range(_Fields, frozen=True):
    min_val: int | None
    max_val: int | None


class SchemaVersion(_Fields, frozen=True):
    major: int
    minor: int


class ProgramVersions(Struct, frozen=True):
    """Which version wrote a program; it is read before the rest, which depends on it."""

    schema_version: SchemaVersion
    torch_version: str = "2.4 or earlier"


class ExportedProgram(_Fields, frozen=True):
    graph_module: GraphModule
    opset_version: dict[str, int]
    range_constraints: dict[str, Range]
    schema_version: SchemaVersion
    verifiers: list[str] = []
    torch_version: str = ""
    guards_code: list[str] = []


class Payload(_Fields, frozen=True):
    """A weight's part of the archive, and its place in it."""

    path_name: str
    is_param: bool
    use_pickle: bool
    tensor_meta: TensorMeta | None


class Payloads(_Fields, frozen=True):
    config: dict[str, Payload]


class TreeSpec(_Fields, frozen=True):
    """How a program's outputs were nested."""

    type: str | None
    context: str | None
    children_spec: list[TreeSpec]
