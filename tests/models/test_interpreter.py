"""Processes of this program's modules, in a directory that has packages of the same names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from models.interpreter import RUN_MODULE

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_folder_of_the_same_name_is_not_executed(tmp_path: Path) -> None:
    for name in ("models", "service"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('of somebody else')")
    words = [*RUN_MODULE, "service.cli", "--version"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout[:6], ended.stderr) == (0, "sonde ", "")


def test_modules_are_started_in_no_other_way() -> None:
    sources = [path for folder in ("models", "service") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "sys.executable" in path.read_text("utf-8")] == ["interpreter.py"]
