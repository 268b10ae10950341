"""Tests of what is compiled before the processes of tests start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.bytecode import compile_tests


def test_files_that_cannot_be_compiled_are_left_to_pytest(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_broken.py").write_text("assert (\n")
    (tmp_path / "test_whole.py").write_text("assert True\n")
    missing = tmp_path / "missing" / "test_x.py"
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(pytestconfig, "args", [str(tmp_path), str(missing)])
    compile_tests(pytestconfig)
    [compiled] = (tmp_path / "__pycache__").iterdir()
    assert compiled.name.startswith("test_whole.")
    assert not missing.parent.exists()
