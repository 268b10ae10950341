"""Read an exported program: archive, weights, graph and contract. Nothing of the file is run or unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from models.errors import ModelError, ModelOutOfMemory, ModelSourceError
from models.programs import schema
from models.programs.archive import Archive
from models.programs.contract import Contract, Limits, Size, TensorSpec
from models.programs.expressions import Expression, NotInGrammar, parse
from models.programs.graph import UnknownOperator, build
from models.programs.tensors import NUMPY_DTYPES, dtype_name
from models.programs.weights import dtype_of, read_weights

_MAX_JSON_BYTES = 128 << 20
_FORMAT = "pt2"
_ARCHIVE_VERSION = "0"
_MODEL = "models/model.json"
# Kinds of inputs that are weights, and the field with the weight's name.
_WEIGHT_NAMES = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
_EMBEDDING = "torch.ops.aten.embedding.default"
# torch.export writes 2 where it did not try a size of 1, and its own modules then take 1, too.
_UNTRIED = 2


@dataclass(frozen=True, slots=True)
class ReadProgram:
    """A program as it was read: its module, its contract, and the version that wrote it."""

    module: torch.nn.Module
    contract: Contract
    written_by: str
    # The outputs that are tensors, by their place among all.
    outputs: tuple[int, ...]


def read_program(path: Path, device: torch.device) -> ReadProgram:
    """Read a `.pt2` file, with its weights on `device`.

    Raises UnsafeModelError for what would run code, and ModelSourceError for all else that cannot be read.
    """
    try:
        with Archive(path) as archive:
            return _read(archive, device)
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelOutOfMemory(f"{path.name}: its weights do not fit the memory of {device}") from error
    except UnknownOperator as error:
        message = f"{path.name}: the operator {str(error)[:120]!r} is not one of those that are run"
        raise ModelSourceError(message, param="model") from error
    except Exception as error:  # zipfile raises a dozen classes for broken files, and PyTorch its own
        reason = f"{type(error).__name__}: {error}"[:300]
        raise ModelSourceError(f"{path.name}: not a program of torch.export: {reason}", param="model") from error


def _read(archive: Archive, device: torch.device) -> ReadProgram:
    _require_format(archive)
    content = archive.read(_MODEL, _MAX_JSON_BYTES)
    written_by = _require_version(archive, content)
    program = msgspec.json.decode(content, type=schema.ExportedProgram)
    module_graph = program.graph_module
    _require_stateless(archive, module_graph.signature)
    inputs = _user_inputs(archive, module_graph)
    outputs = list(_user_outputs(module_graph))
    contract = _contract(archive, program, [_spec(archive, module_graph.graph, name) for name in inputs], outputs)
    weights = {name: tensor.to(device) for name, tensor in _weights(archive, module_graph).items()}
    module = build(module_graph.graph, weights, inputs, device)
    return ReadProgram(module, contract, written_by, tuple(at for at, _, _ in outputs))


def _require_format(archive: Archive) -> None:
    models = archive.names("models/")
    if models != [_MODEL]:
        raise archive.error(f"expected one program, {_MODEL}, got {', '.join(models)[:200] or 'none'}")
    found = [archive.read(part, 64).decode().strip() for part in ("archive_format", "archive_version", "byteorder")]
    if found != [_FORMAT, _ARCHIVE_VERSION, "little"]:
        raise archive.error(f"expected format {_FORMAT}, version {_ARCHIVE_VERSION}, little-endian; got {found}")


def _require_version(archive: Archive, content: bytes) -> str:
    """Which version wrote a program. Raises ModelSourceError for one with another schema."""
    versions = msgspec.json.decode(content, type=schema.ProgramVersions)
    version = versions.schema_version
    written_by = f"torch.export of PyTorch {versions.torch_version[:40]}, schema {version.major}.{version.minor}"
    if version.major != schema.SCHEMA_MAJOR:
        expected = f"expected schema {schema.SCHEMA_MAJOR}, as PyTorch 2.8 and later write it"
        raise archive.error(f"{expected}, got {written_by}: export it again")
    return written_by


def _require_stateless(archive: Archive, signature: schema.Signature) -> None:
    """Raise ModelSourceError for a program that writes to its weights, or has objects."""
    for spec in signature.input_specs:
        if spec.kind in ("custom_obj", "token"):
            raise archive.unsafe("it takes an object of its own class, which would be unpickled")
    wrong = {spec.kind for spec in signature.output_specs} - {"user_output"}
    if wrong:
        what = ", ".join(sorted(wrong))
        raise archive.error(f"expected a program that only computes, got {what}: export module.eval()")


def _user_inputs(archive: Archive, module: schema.GraphModule) -> list[str]:
    """The names of the inputs that callers give, which are tensors."""
    names = []
    for spec in module.signature.input_specs:
        if spec.kind != "user_input":
            continue
        argument = spec.value.arg
        if argument.kind == "as_tensor":
            names.append(argument.value.name)
        elif argument.kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            raise archive.error(f"its input {argument.value.value!r} is a number that varies: make it a tensor")
    if not names or len(set(names)) != len(names):
        raise archive.error("expected inputs that are tensors of different names")
    return names


def _user_outputs(module: schema.GraphModule) -> Iterator[tuple[int, str, str]]:
    """Of each output that is a tensor: its place, its name for callers, and its name in the graph."""
    arguments = [spec.value.arg for spec in module.signature.output_specs]
    names = _output_names(module, len(arguments))
    for at, (name, argument) in enumerate(zip(names, arguments, strict=True)):
        if argument.kind == "as_tensor":
            yield at, name, argument.value.name


def _output_names(module: schema.GraphModule, count: int) -> list[str]:
    """The outputs' names, from the keys of the dictionaries that the module returned; else numbers."""
    root = next((call.signature for call in module.module_call_graph if not call.fqn and call.signature), None)
    names: list[str] = []
    if root is not None:
        try:
            _, tree = msgspec.json.decode(root.out_spec, type=tuple[int, schema.TreeSpec])
        except (msgspec.DecodeError, RecursionError):
            tree = None
        names = list(_leaf_names(tree, "")) if tree is not None else []
    if len(names) != count or len(set(names)) != count:
        names = [""] if count == 1 else [str(at) for at in range(count)]
    return [name if name and not name[0].isdigit() else f"output_{name}".rstrip("_") for name in names]


def _leaf_names(tree: schema.TreeSpec, prefix: str) -> Iterator[str]:
    """A name for each leaf: the keys or indices on the way to it."""
    if not tree.children_spec:
        if tree.type is None:
            yield prefix
        return
    keys = _keys(tree)
    for key, child in zip(keys, tree.children_spec, strict=True):
        yield from _leaf_names(child, f"{prefix}_{key}" if prefix else key)


def _keys(tree: schema.TreeSpec) -> list[str]:
    """The keys of a dictionary or of a data class; the indices of a sequence."""
    count = len(tree.children_spec)
    try:
        keys = json.loads(tree.context or "null")
    except ValueError:
        keys = None
    if isinstance(keys, list) and len(keys) == count and all(isinstance(key, str) and key for key in keys):
        return keys
    return [str(at) for at in range(count)]


def _contract(
    archive: Archive, program: schema.ExportedProgram, inputs: list[TensorSpec], outputs: Sequence[tuple[int, str, str]]
) -> Contract:
    """What the program takes and gives. Raises ModelSourceError for sizes that no request could state."""
    if not outputs:
        raise archive.error("expected an output that is a tensor")
    graph = program.graph_module.graph
    stated = {size.symbol for spec in inputs for size in spec.shape if isinstance(size, Expression)} - {None}
    used = {name for spec in inputs for size in spec.shape if isinstance(size, Expression) for name in size.symbols}
    if not used <= stated:
        raise archive.error(f"expected sizes that inputs state by themselves, got {', '.join(sorted(used - stated))}")
    given = tuple(_output_spec(archive, graph, name, source, used) for _, name, source in outputs)
    limits = {name: _limits(program.range_constraints.get(name)) for name in sorted(used)}
    known = {f"{spec.name}[{at}]" for spec in inputs for at in range(len(spec.shape))}
    conditions = tuple(_conditions(archive, program.guards_code, known))
    tables = sorted(_id_limits(graph), key=lambda one: one[1].most or 0, reverse=True)  # the smallest one counts
    ids = {name: bounds for name, bounds in tables if name in {spec.name for spec in inputs}}
    return Contract(tuple(inputs), given, limits, conditions, ids)


def _id_limits(graph: schema.Graph) -> Iterator[tuple[str, Limits]]:
    """The ids that a table has rows for, with the name of the value that is looked up in it."""
    for node in graph.nodes:
        arguments = {one.name: one.arg for one in node.inputs}
        table, ids = arguments.get("weight"), arguments.get("indices")
        if node.target != _EMBEDDING or table is None or ids is None or {table.kind, ids.kind} != {"as_tensor"}:
            continue
        meta = graph.tensor_values.get(table.value.name)
        if meta is not None and meta.sizes and meta.sizes[0].kind == "as_int":
            yield ids.value.name, Limits(0, meta.sizes[0].value - 1)


def _conditions(archive: Archive, guards: list[str], known: set[str]) -> Iterator[Expression]:
    for text in guards:
        condition = _parse(archive, text, "condition")
        if not condition.symbols <= known:
            raise archive.error(f"its condition {text[:80]!r} is about no size of an input")
        yield condition


def _limits(constraint: schema.Range | None) -> Limits:
    if constraint is None:
        return Limits()
    least = constraint.min_val or 0
    return Limits(1 if least <= _UNTRIED else least, constraint.max_val)


def _spec(archive: Archive, graph: schema.Graph, name: str) -> TensorSpec:
    """The spec of an input, all of whose sizes must be known."""
    meta = _meta(archive, graph, name)
    sizes: list[Size] = [
        size.value if size.kind == "as_int" else _parse(archive, size.value.expr_str, f"size of {name[:80]}")
        for size in meta.sizes
    ]
    return TensorSpec(name, _served_dtype(archive, name, meta), tuple(sizes))


def _output_spec(archive: Archive, graph: schema.Graph, name: str, source: str, known: set[str]) -> TensorSpec:
    """The spec of an output; its sizes may depend on the inputs' values."""
    meta = _meta(archive, graph, source)
    sizes: list[Size] = []
    for size in meta.sizes:
        try:
            parsed = size.value if size.kind == "as_int" else parse(size.value.expr_str)
        except NotInGrammar:
            parsed = None
        sizes.append(parsed if isinstance(parsed, int) or (parsed and parsed.symbols <= known) else None)
    return TensorSpec(name, _served_dtype(archive, name, meta), tuple(sizes))


def _meta(archive: Archive, graph: schema.Graph, name: str) -> schema.TensorMeta:
    if name not in graph.tensor_values:
        raise archive.error(f"expected the shape of {name[:80]!r}, which it lacks")
    return graph.tensor_values[name]


def _served_dtype(archive: Archive, name: str, meta: schema.TensorMeta) -> str:
    dtype = dtype_name(dtype_of(meta))
    if dtype not in NUMPY_DTYPES:
        raise archive.error(f"{name[:80]}: expected a dtype of {', '.join(NUMPY_DTYPES)}, got {dtype}")
    return dtype


def _parse(archive: Archive, text: str, what: str) -> Expression:
    try:
        return parse(text)
    except NotInGrammar as error:
        raise archive.unsafe(f"its {what} {text[:80]!r} is no arithmetic of sizes, and is not run") from error


def _weights(archive: Archive, module: schema.GraphModule) -> dict[str, torch.Tensor]:
    """The graph's weights by their names in it, with the dtypes and sizes that it states."""
    tensors = read_weights(archive)
    weights: dict[str, torch.Tensor] = {}
    for spec in module.signature.input_specs:
        if spec.kind not in _WEIGHT_NAMES:
            continue
        name = getattr(spec.value, _WEIGHT_NAMES[spec.kind])
        if name not in tensors:
            raise archive.error(f"it lacks the weight {name[:80]!r}")
        meta, tensor = _meta(archive, module.graph, spec.value.arg.name), tensors[name]
        if dtype_of(meta) != tensor.dtype or [size.value for size in meta.sizes] != list(tensor.shape):
            raise archive.error(f"{name[:80]}: the weight has another dtype or shape than the graph states")
        weights[spec.value.arg.name] = tensor
    return weights
