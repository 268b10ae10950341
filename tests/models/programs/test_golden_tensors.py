"""Golden tensors of programs: written where a program gives the same outputs again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest

from models.programs.golden_tensors import GOLDEN, reproduce, write_golden
from models.programs.tensors import HostTensor
from tests.support.programs import open_program


def test_a_program_reproduces_its_golden_tensors(tmp_path: Path) -> None:
    program = open_program("mlp")
    assert write_golden(tmp_path, program) == ""
    assert reproduce(tmp_path, program)


def test_a_program_that_draws_its_outputs_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, drawn = open_program("mlp"), count()
    plain = program.run

    def run(tensors: Mapping[str, HostTensor]) -> dict[str, HostTensor]:
        return {name: HostTensor(one.dtype, one.values + next(drawn)) for name, one in plain(tensors).items()}

    monkeypatch.setattr(program, "run", run)
    assert write_golden(tmp_path, program) == "it gives other outputs for the same inputs"
    assert not (tmp_path / GOLDEN).exists()
    assert not reproduce(tmp_path, program)
