"""Compiled forms of programs: taken where they agree and win, made of names of ours, kept for the same file."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.filesystem import TEMPORARY
from models.programs import compiled
from models.programs.compiled import compile_program
from models.programs.program import Program
from models.programs.row_check import check_rows
from tests.support.programs import open_program


class FakeLoader:
    """Compiled code that computes the program's outputs, changed."""

    def __init__(self, program: Program, factor: float) -> None:
        self._module = program.outputs_only()
        self._factor = factor

    def run(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self._factor * one for one in self._module(*values)]


@pytest.fixture
def program() -> Program:
    return check_rows(open_program("mlp"))


def _compile(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], factor: float = 1.0
) -> tuple[Program, int]:
    """The program that is taken, and how often one was made."""
    made: list[Path] = []

    def make(program: Program, file: Path) -> None:
        made.append(file)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
        file.chmod(0o600)

    monkeypatch.setattr(compiled, "_make", make)
    monkeypatch.setattr(compiled, "_time_both", lambda *both: seconds)
    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", lambda *_: FakeLoader(program, factor))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return compile_program(program, folder), len(made)


def test_what_agrees_and_wins_is_taken_and_kept(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, made = _compile(program, tmp_path, monkeypatch, (2e-5, 1e-5))
    assert taken is not program
    assert taken.metadata.forward == "compiled by AOTInductor: 10 µs for (1, 16) rows, as exported 20 µs"
    assert made == 1
    assert _compile(program, tmp_path, monkeypatch, (2e-5, 1e-5))[1] == 0
    [file] = tmp_path.glob("*.pt2")
    file.chmod(0o622)
    assert _compile(program, tmp_path, monkeypatch, (2e-5, 1e-5))[1] == 1  # others could have written it


def test_what_is_no_faster_is_not_taken(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, _ = _compile(program, tmp_path, monkeypatch, (1e-5, 1e-5))
    assert taken is program
    assert taken.metadata.forward.startswith("as exported; compiled it is no faster: 10 µs")


def test_what_differs_is_not_taken(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, _ = _compile(program, tmp_path, monkeypatch, (2e-5, 1e-5), factor=1.01)
    assert taken is program
    assert "not compiled: its output output differs by 0.01" in taken.metadata.forward


def test_processes_that_start_together_compile_once(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has the folder's lock. What a killed one left behind goes away."""
    (tmp_path / f"{TEMPORARY}1-left.pt2").touch()
    (tmp_path / f"{TEMPORARY}1-cache").mkdir()
    both_asked, made = threading.Barrier(2), []

    def make(program: Program, file: Path) -> None:
        made.append(file)
        time.sleep(0.2)  # the other one waits, or makes it, too
        file.write_bytes(b"")
        file.chmod(0o600)

    def which(name: str) -> str:
        both_asked.wait(10)  # before the lock
        return name

    monkeypatch.setattr(compiled, "_make", make)
    monkeypatch.setattr(compiled, "_time_both", lambda *both: (2e-5, 1e-5))
    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", lambda *_: FakeLoader(program, 1.0))
    monkeypatch.setattr(shutil, "which", which)
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(lambda _: compile_program(program, tmp_path), range(2)))
    assert len(made) == 1
    assert all(one is not program for one in taken)
    assert {path.name for path in tmp_path.iterdir()} == {made[0].name, "lock"}


def test_without_a_compiler_the_plain_program_serves(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compile_program(program, tmp_path) is program
    assert "program mlp is not compiled: there is no C++ compiler" in caplog.text


def test_texts_that_are_no_words_do_not_reach_the_compiler(program: Program) -> None:
    [graph] = program.graphs()
    node: Any = next(node for node in graph.nodes if node.op == "call_function")
    node.kwargs = {**node.kwargs, "approximate": 'none"); system("true'}
    with pytest.raises(compiled.NotCompiled, match="a text that is no word"):
        compiled._require_compilable(program)


@pytest.mark.parametrize("operator", ["remainder.Tensor", "floor_divide.default", "div.Tensor_mode"])
def test_quotients_of_integers_are_not_compiled(program: Program, operator: str) -> None:
    [graph] = program.graphs()
    node: Any = next(node for node in graph.nodes if node.op == "call_function")
    name, overload = operator.split(".")
    node.target = getattr(getattr(torch.ops.aten, name), overload)
    node.kwargs = {"rounding_mode": "trunc"} if name == "div" else {}
    with pytest.raises(compiled.NotCompiled, match="it may divide integers"):
        compiled._require_compilable(program)


@pytest.mark.parametrize("name", ["multiples", "doubled"])
def test_arithmetic_of_sizes_is_not_compiled(name: str) -> None:
    with pytest.raises(compiled.NotCompiled, match="its sizes are arithmetic of others"):
        compiled._shapes(open_program(name).contract)


class _Lookup(nn.Module):
    """Reads places of a table that its input says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.table = kind, nn.Embedding(100, 4)

    def forward(self, ids: torch.Tensor) -> Any:
        weight = self.table.weight
        if self.kind == "ids":
            return self.table(ids) + self.table(torch.arange(ids.shape[1]))
        if self.kind == "sums":
            return self.table(ids + 1)
        if self.kind == "gather":
            return weight[:, 0].expand(ids.shape[0], 100).gather(1, ids)
        if self.kind == "index":
            return weight[ids]
        if self.kind == "written":
            places = torch.zeros_like(ids)
            places[:, :2].copy_(ids[:, :2])
            return self.table(places)
        return torch.zeros(ids.shape[0], 100).scatter(1, ids, 1.0)


def _open_lookup(kind: str, folder: Path) -> Program:
    """The program read back, without the decomposition of operators that write."""
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(
        _Lookup(kind).eval(), (torch.zeros(3, 4, dtype=torch.int64),), dynamic_shapes=({0: batch},)
    )
    exported.example_inputs = None
    torch.export.save(exported, folder / f"{kind}.pt2")
    return open_program(folder / f"{kind}.pt2")


@pytest.mark.parametrize("kind", ["sums", "gather", "index", "written", "scatter"])
@pytest.mark.slow
def test_places_that_inputs_decide_are_not_compiled(kind: str, tmp_path: Path) -> None:
    with pytest.raises(compiled.NotCompiled, match="inputs decide which places of a tensor it reads"):
        compiled._require_compilable(_open_lookup(kind, tmp_path))


@pytest.mark.slow
def test_ids_with_bounds_in_the_contract_are_compiled(tmp_path: Path) -> None:
    program = _open_lookup("ids", tmp_path)
    assert program.contract.ids["ids"].most == 99
    compiled._require_compilable(program)


def test_another_gpu_gets_code_of_its_own(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "device", torch.device("cuda"))
    keys = set()
    for name in ("H200", "A100"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        keys.add(compiled._key(program))
    assert len(keys) == 2
