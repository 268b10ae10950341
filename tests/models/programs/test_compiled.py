"""Compiled forms of programs: taken where they agree and win, made of names of ours, kept for the same file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from models.programs import compiled
from models.programs.compiled import compile_program
from models.programs.program import Program
from models.programs.row_check import check_rows
from tests.support.programs import open_program


class FakeLoader:
    """Compiled code that computes the program's outputs, changed."""

    def __init__(self, program: Program, factor: float) -> None:
        self.loader = self
        self._module = program.outputs_only()
        self._factor = factor

    def run(self, values: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self._factor * one for one in self._module(*values)]


@pytest.fixture
def program() -> Program:
    return check_rows(open_program("mlp"))


def _compile(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, race: tuple[float, float], factor: float = 1.0
) -> tuple[Program, int]:
    """The program that is taken, and how often one was made."""
    made: list[Path] = []

    def make(program: Program, file: Path) -> None:
        made.append(file)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
        file.chmod(0o600)

    monkeypatch.setattr(compiled, "_make", make)
    monkeypatch.setattr(compiled, "_race", lambda *both: race)
    monkeypatch.setattr("torch._inductor.aoti_load_package", lambda path: FakeLoader(program, factor))
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
    [file] = tmp_path.iterdir()
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


def test_without_a_compiler_the_plain_program_serves(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compile_program(program, tmp_path) is program
    assert "program mlp is not compiled: there is no C++ compiler" in caplog.text


def test_texts_that_are_no_words_do_not_reach_the_compiler(program: Program, tmp_path: Path) -> None:
    [graph] = program.graphs()
    node: Any = next(node for node in graph.nodes if node.op == "call_function")
    node.kwargs = {**node.kwargs, "approximate": 'none"); system("true'}
    with pytest.raises(compiled.NotCompiled, match="a text that is no word"):
        compiled._make(program, tmp_path / "made.pt2")


@pytest.mark.parametrize("operator", ["remainder.Tensor", "floor_divide.default", "div.Tensor_mode"])
def test_quotients_of_integers_are_not_compiled(program: Program, tmp_path: Path, operator: str) -> None:
    [graph] = program.graphs()
    node: Any = next(node for node in graph.nodes if node.op == "call_function")
    name, overload = operator.split(".")
    node.target = getattr(getattr(torch.ops.aten, name), overload)
    node.kwargs = {"rounding_mode": "trunc"} if name == "div" else {}
    with pytest.raises(compiled.NotCompiled, match="it may divide integers"):
        compiled._make(program, tmp_path / "made.pt2")


@pytest.mark.parametrize("name", ["multiples", "doubled"])
def test_arithmetic_of_sizes_is_not_compiled(name: str) -> None:
    with pytest.raises(compiled.NotCompiled, match="its sizes are arithmetic of others"):
        compiled._shapes(open_program(name).contract)
