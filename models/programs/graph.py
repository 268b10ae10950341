"""A program's graph as an FX module, built anew from checked nodes.

Nothing that the file calls something becomes code: FX names the values, and operators come from a list. Devices in the
file give way to the device of the placement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule as FxModule
from torch.fx import Node as FxNode

from models.programs.operator_guards import guarded
from models.programs.operators import aten_operator, schema_of, size_function
from models.programs.schema import Argument, Graph, NamedArgument, Node, SubGraph
from models.programs.weights import DTYPES

_MAX_DEPTH = 16
_MAX_NODES = 200_000
_KEYWORD = 2
_STRIDED = 7
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_BY_NAME = {"as_sym_int", "as_sym_float", "as_sym_bool"}
_LISTS_BY_NAME = {"as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"}
_PLAIN = {"as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"}
# Arguments that PyTorch's schema has as numbers, by their real types.
_ENUMERATIONS = {"ScalarType": "as_scalar_type", "MemoryFormat": "as_memory_format", "Layout": "as_layout"}
_CONTROL = "torch.ops.higher_order."
Value = Any


class UnknownOperator(ValueError):
    """A node's operator is not one of the list."""


def build(graph: Graph, weights: Mapping[str, torch.Tensor], inputs: Sequence[str], device: torch.device) -> FxModule:
    """A module that takes the values called `inputs`, in order, and returns a tuple of the graph's outputs.

    `weights` are the values that it holds, by name. Raises ValueError for a graph that is not well formed, and
    UnknownOperator.
    """
    module = torch.nn.Module()
    builder = _Builder(module, device)
    values: dict[str, Value] = {}
    for number, (name, tensor) in enumerate(weights.items()):
        module.register_buffer(f"weight_{number}", tensor)
        values[name] = builder.graph.get_attr(f"weight_{number}")
    for number, name in enumerate(inputs):
        values[name] = builder.graph.placeholder(f"input_{number}")
    return builder.finish(graph, values)


class _Builder:
    """Builds the FX graph of one graph; control flow has builders of its own."""

    def __init__(self, module: torch.nn.Module, device: torch.device, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"expected at most {_MAX_DEPTH} graphs within each other")
        self.graph = FxGraph()
        self._module = module
        self._device = device
        self._depth = depth
        self._values: dict[str, Value] = {}
        self._subgraphs = 0

    def finish(self, graph: Graph, values: dict[str, Value]) -> FxModule:
        """Add all nodes to `values` that are there, and the output."""
        if len(graph.nodes) > _MAX_NODES:
            raise ValueError(f"expected at most {_MAX_NODES:,} nodes, got {len(graph.nodes):,}")
        self._values = values
        for node in graph.nodes:
            self._add(node)
        self.graph.output(tuple(self._value_of(output) for output in graph.outputs))
        return FxModule(self._module, self.graph)

    def _add(self, node: Node) -> None:
        if (function := size_function(node.target)) is not None:
            arguments = tuple(self._value_of(one.arg) for one in node.inputs)
            self._name(node.outputs, self.graph.call_function(function, arguments), single=True)
        elif (operator := aten_operator(node.target)) is not None:
            arguments, keywords = self._arguments(schema_of(operator).arguments, node.inputs)
            called = self.graph.call_function(guarded(operator), arguments, keywords)
            self._name(node.outputs, called, single=len(schema_of(operator).returns) == 1)
        elif node.target in _CONTROL_FLOW:
            arguments = tuple(self._value_of(one.arg) for one in node.inputs)
            called = self.graph.call_function(_CONTROL_FLOW[node.target], arguments)
            self._name(node.outputs, called, single=False)
        else:
            raise UnknownOperator(node.target)

    def _arguments(
        self, declared: Sequence[Any], given: Sequence[NamedArgument]
    ) -> tuple[tuple[Value, ...], dict[str, Value]]:
        """Positional and keyword arguments in the order of the operator's schema."""
        by_name = {one.name: one for one in given}
        if len(by_name) != len(given) or not by_name.keys() <= {argument.name for argument in declared}:
            raise ValueError("expected each argument of an operator once, by its name in the schema")
        positional: list[Value] = []
        keywords: dict[str, Value] = {}
        for argument in declared:
            if (found := by_name.get(argument.name)) is None:
                continue
            _require_kind(argument, found.arg)
            value = self._value_of(found.arg)
            follows_a_gap = declared[len(positional)].name != argument.name
            if argument.kwarg_only or found.kind == _KEYWORD or follows_a_gap:
                keywords[argument.name] = value
            else:
                positional.append(value)
        return tuple(positional), keywords

    def _name(self, outputs: Sequence[Argument], node: FxNode, *, single: bool) -> None:
        """Note a node's outputs by name; several are items of what it returns."""
        if single and [output.kind for output in outputs] != ["as_tensors"]:
            for name in (name for output in outputs for name in _names(output)):
                self._note(name, node)
            return
        for at, name in enumerate(name for output in outputs for name in _names(output)):
            if name is not None:
                self._note(name, self.graph.call_function(_item, (node, at)))

    def _note(self, name: str | None, value: FxNode) -> None:
        if name in self._values:
            raise ValueError(f"expected values of different names, got {name!r} twice")
        if name is not None:
            self._values[name] = value

    def _look_up(self, name: str) -> Value:
        if name not in self._values:
            raise ValueError(f"expected a value that was computed before, got {name[:80]!r}")
        return self._values[name]

    def _value_of(self, argument: Argument) -> Value:
        """An argument as FX takes it."""
        kind, value = argument.kind, argument.value
        if kind in _PLAIN:
            return value
        if kind == "as_tensor":
            return self._look_up(value.name)
        if kind == "as_tensors":
            return [self._look_up(one.name) for one in value]
        if kind in _BY_NAME or kind == "as_optional_tensor":
            return self._named(value)
        if kind in _LISTS_BY_NAME:
            return [self._named(one) for one in value]
        return self._constant(kind, value)

    def _constant(self, kind: str, value: Any) -> Value:
        match kind:
            case "as_none":
                return None
            case "as_scalar_type":
                return DTYPES[value]
            case "as_memory_format":
                return _MEMORY_FORMATS[value]
            case "as_layout" if value == _STRIDED:
                return torch.strided
            case "as_device":
                return self._device
            case "as_complex":
                return complex(value.real, value.imag)
            case "as_graph":
                return self._subgraph(value)
        raise ValueError(f"expected an argument of a kind that is computed with, got {kind}")

    def _named(self, value: Any) -> Value:
        """A size, a tensor or nothing, by name or as it is."""
        match value.kind:
            case "as_name":
                return self._look_up(value.value)
            case "as_tensor":
                return self._look_up(value.value.name)
            case "as_none":
                return None
        return value.value

    def _subgraph(self, sub: SubGraph) -> FxNode:
        """A graph of control flow, as a module of this one."""
        builder = _Builder(torch.nn.Module(), self._device, self._depth + 1)
        values: dict[str, Value] = {}
        for number, argument in enumerate(sub.graph.inputs):
            placeholder = builder.graph.placeholder(f"input_{number}")
            values.update((name, placeholder) for name in _names(argument) if name is not None)
        name = f"graph_{self._subgraphs}"
        self._subgraphs += 1
        self._module.add_module(name, builder.finish(sub.graph, values))
        return self.graph.get_attr(name)


def _require_kind(declared: Any, given: Argument) -> None:
    """Raise ValueError for a number as a dtype, layout or memory format: PyTorch takes any, and may crash."""
    expected = next((kind for name, kind in _ENUMERATIONS.items() if name in str(declared.real_type)), None)
    if expected is not None and given.kind not in (expected, "as_none"):
        raise ValueError(f"expected {expected} for {declared.name}, got {given.kind}")


def _names(argument: Argument) -> Iterator[str | None]:
    """The names of an output's values; None for one that is not used."""
    kind, value = argument.kind, argument.value
    if kind == "as_tensor":
        yield value.name
    elif kind == "as_tensors":
        yield from (one.name for one in value)
    elif kind in _BY_NAME:
        yield value.value if value.kind == "as_name" else None
    elif kind == "as_none":
        yield None
    else:
        raise ValueError(f"expected outputs that are tensors or sizes, got {kind}")


def _item(values: Sequence[Any], at: int) -> Any:
    """An item of what a node returned."""
    return values[at]


def _choose(condition: Any, if_true: FxModule, if_false: FxModule, operands: Sequence[Any]) -> Any:
    """torch.cond: one of two graphs."""
    return (if_true if condition else if_false).forward(*operands)


def _call_without_grad(_: bool, graph: FxModule, *operands: Any) -> Any:
    """A part under torch.no_grad or torch.enable_grad: nothing is differentiated here."""
    return graph.forward(*operands)


def _call_with_autocast(
    device_type: str, dtype: torch.dtype | None, enabled: bool, cache: bool | None, graph: FxModule, *operands: Any
) -> Any:
    """A part under torch.autocast, on the device where it runs."""
    where = next((one.device.type for one in operands if isinstance(one, torch.Tensor)), device_type)
    with torch.autocast(where, dtype, enabled, cache):
        return graph.forward(*operands)


_CONTROL_FLOW: dict[str, Callable[..., Any]] = {
    f"{_CONTROL}cond": _choose,
    f"{_CONTROL}wrap_with_set_grad_enabled": _call_without_grad,
    f"{_CONTROL}wrap_with_autocast": _call_with_autocast,
}
