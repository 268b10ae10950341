"""Compiled forms of programs: made by AOTInductor of our own graph, kept, and taken only where they agree and win.

The compiler gets source text, so nothing of a file may name what is in it. Our reader has built the graph anew: its
values, weights and inputs have names of ours. Texts among the arguments are words.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import Dim
from torch.fx import Graph, Node

from models.filesystem import TEMPORARY, make_directory, remove_temporary, temporary_in
from models.programs.contract import Contract
from models.programs.expressions import Expression
from models.programs.native import NativeModule, load_code
from models.programs.operators import schema_of
from models.programs.program import Program
from models.programs.row_check import TOLERANCES, find_difference, sample_inputs
from models.runtime.autotune_cache import describe_machine

log = logging.getLogger(__name__)

_LOCK = "lock"
# Rows of the samples: of the comparison, and of the timing.
_COMPARED, _TIMED = (1, 3, 17), (1, 16)
_TRIES = 7
# A smaller gain is decided by chance.
_WORTH_IT = 0.95
_QUOTIENTS = {"floor_divide", "remainder", "fmod", "gcd", "lcm"}
# Arguments that say which places of a tensor are read or written.
_PLACES = {"index", "indices"}
_ASSERTIONS = {"_assert_async", "_functional_assert_async"}
# Operators whose results depend on the shapes of what they are given alone.
_OF_SHAPES = {"sym_size", "sym_numel", "sym_stride", "zeros_like", "ones_like", "full_like"}
_OF_SHAPES |= {"new_zeros", "new_ones", "new_full", "rand_like", "randn_like", "randint_like"}
_WORD = re.compile(r"[A-Za-z0-9_]*", re.ASCII)


class NotCompiled(Exception):
    """Why a program is not compiled."""


def compile_program(program: Program, folder: Path) -> Program:
    """The compiled form of a program, else the program itself; its metadata says which, and why. `folder` keeps it."""
    try:
        made = _compiled(program, folder)
        _require_agreement(program, made)
        plain, compiled = _time_both(program, made)
    except Exception as error:  # the compiler and PyTorch raise dozens of classes
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        log.warning("program %s is not compiled: %s", program.metadata.name, reason)
        program.describe(forward=f"as exported; not compiled: {reason}")
        return program
    about = f"{compiled * 1e6:.0f} µs for {_TIMED} rows, as exported {plain * 1e6:.0f} µs"
    if compiled > plain * _WORTH_IT:
        program.describe(forward=f"as exported; compiled it is no faster: {about}")
        return program
    made.describe(forward=f"compiled by AOTInductor: {about}")
    return made


def _compiled(program: Program, folder: Path) -> Program:
    """The program as compiled code, made now or before. Raises NotCompiled."""
    _require_compilable(program)
    file = folder / f"{_key(program)}.pt2"
    if not _is_ours(file):
        if not any(shutil.which(name) for name in ("g++", "clang++")):
            raise NotCompiled("there is no C++ compiler (g++ or clang++) here")
        with _compiling_in(folder):
            if not _is_ours(file):  # another process may have made it meanwhile
                _make(program, file)
    made = copy(program)
    made.compute_by(NativeModule(load_code(file, program.device), program.contract, program.metadata.name))
    return made


def _key(program: Program) -> str:
    """What the compiled code is for: a file, a device with the name of a GPU, and this machine with its versions."""
    gpu = torch.cuda.get_device_name(program.device) if program.device.type == "cuda" else ""
    parts = (program.metadata.version, program.metadata.device, gpu, describe_machine())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _is_ours(file: Path) -> bool:
    """Whether a file is there that no other user could have written."""
    try:
        found = file.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


@contextmanager
def _compiling_in(folder: Path) -> Iterator[None]:
    """Let one process at a time compile into a folder. Others wait for it; unfinished files of killed ones go away."""
    make_directory(folder)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_temporary(folder)
        yield


def _make(program: Program, file: Path) -> None:
    """Compile a program into a file. Inductor's own cache is a private directory that goes away."""
    from torch._inductor.utils import fresh_cache

    sample = sample_inputs(program.contract, 3)
    if sample is None or program.has_sizes_by_values:
        raise NotCompiled("its sizes depend on values")
    written = temporary_in(file.parent).with_suffix(".pt2")
    began = time.perf_counter()
    try:
        # By itself, `fresh_cache` keeps its directory where the compiler fails.
        with (
            tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=file.parent) as cache,
            fresh_cache(dir=cache),
            torch.no_grad(),
        ):
            values = tuple(sample[spec.name].to_torch(program.device) for spec in program.contract.inputs)
            exported = torch.export.export(program.outputs_only(), values, dynamic_shapes=(_shapes(program.contract),))
            torch._inductor.aoti_compile_and_package(exported, package_path=str(written))  # noqa: SLF001  # its only name
        written.chmod(0o600)
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)
    log.info("compiled program %s in %.0f s", program.metadata.name, time.perf_counter() - began)


def _require_compilable(program: Program) -> None:
    """Raise NotCompiled for a text that is no word, which the compiler would get, and for what ends the process.

    Compiled code checks no divisor, and raises from several threads for a place outside a tensor. A caller's 0, or a
    caller's index, would end the process, where PyTorch raises.
    """
    nodes = [node for graph in program.graphs() for node in graph.nodes if node.op == "call_function"]
    for node in nodes:
        values = (*node.args, *node.kwargs.values())
        if not all(_WORD.fullmatch(one) for one in values if isinstance(one, str)):
            raise NotCompiled("an operator has a text that is no word")
        if _operator(node).rstrip("_") in _QUOTIENTS or "floor" in values or "trunc" in values:
            raise NotCompiled("it may divide integers")
    for at, graph in enumerate(program.graphs()):
        _require_known_places(graph, _bounded_ids(program) if at == 0 else set())


def _operator(node: Node) -> str:
    return str(_target(node)).removeprefix("aten.").partition(".")[0]


def _target(node: Node) -> Any:
    """What a node calls, without the check before it."""
    return inspect.unwrap(node.target) if callable(node.target) else node.target


def _bounded_ids(program: Program) -> set[str]:
    """The placeholders whose ids the contract bounds by the table that they are looked up in."""
    contract = program.contract
    return {f"input_{at}" for at, spec in enumerate(contract.inputs) if spec.name in contract.ids}


def _require_known_places(graph: Graph, bounded: set[str]) -> None:
    """Raise NotCompiled where callers' values, other than `bounded` ids of a table, decide which places are read."""
    given: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            given.add(node)
        if node.op != "call_function" or _operator(node) in _OF_SHAPES or given.isdisjoint(node.all_input_nodes):
            continue
        is_lookup = _operator(node) == "embedding"
        places = [one for one in _places(node) if not (is_lookup and one.target in bounded)]
        if not given.isdisjoint(places) or _operator(node) in _ASSERTIONS:
            raise NotCompiled("inputs decide which places of a tensor it reads")
        if _writes(node) and node.all_input_nodes[0] not in given:
            given.update(graph.nodes)  # what is written to may have other names
        given.add(node)


def _writes(node: Node) -> bool:
    target = _target(node)
    return isinstance(target, OpOverload) and schema_of(target).is_mutable


def _places(node: Node) -> Iterator[Node]:
    """The nodes by which an operator finds places of a tensor."""
    if isinstance(target := _target(node), OpOverload):
        names = [one.name for one in schema_of(target).arguments]
        for name, value in [*zip(names, node.args, strict=False), *node.kwargs.items()]:
            if name in _PLACES:
                yield from _nodes(value)


def _nodes(value: Any) -> list[Node]:
    """The nodes of an argument, which may be a list with gaps."""
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, Node)]


def _shapes(contract: Contract) -> tuple[dict[int, Dim], ...]:
    """The sizes that vary, of each input. Raises NotCompiled for arithmetic of sizes."""
    names = {
        symbol: Dim(f"size_{at}", min=one.least, max=one.most)
        for at, (symbol, one) in enumerate(contract.limits.items())
    }
    shapes = []
    for spec in contract.inputs:
        varying = {at: size for at, size in enumerate(spec.shape) if isinstance(size, Expression)}
        if contract.conditions or any(size.symbol is None for size in varying.values()):
            raise NotCompiled("its sizes are arithmetic of others")
        shapes.append({at: names[str(size.symbol)] for at, size in varying.items()})
    return tuple(shapes)


def _require_agreement(program: Program, made: Program) -> None:
    for rows in _COMPARED:
        if (sample := sample_inputs(program.contract, rows)) is None:
            continue
        expected = program.run(sample)
        for name, got in made.run(sample).items():
            difference = find_difference(got, expected[name]) if got.shape == expected[name].shape else float("inf")
            if not difference <= TOLERANCES.get(got.dtype, 0.0):
                raise NotCompiled(f"its output {name} differs by {difference:.3g} of the largest value when compiled")


def _time_both(program: Program, made: Program) -> tuple[float, float]:
    """The seconds of the program and of its compiled form, in turn, for the samples together."""
    samples = [sample for rows in _TIMED if (sample := sample_inputs(program.contract, rows)) is not None]
    if not samples:
        raise NotCompiled("no inputs were found that keep to its contract")
    best = [[float("inf")] * len(samples) for _ in range(2)]
    for _ in range(_TRIES):
        for times, one in zip(best, (program, made), strict=True):
            for at, sample in enumerate(samples):
                began = time.perf_counter()
                one.run(sample)
                times[at] = min(times[at], time.perf_counter() - began)
    return sum(best[0]), sum(best[1])
