"""The commands of the README and of the documentation, run as they are printed against a real service.

A `bash` or `python` block runs; a `console` block is only shown. Blocks of one document run in order, in one
directory. A `json` block after a command shows an answer: each of its keys must be in the real one.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import SONDE, output_of, sonde_up
from tests.support.shell_commands import shell_commands

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PRINTED_URL = "http://127.0.0.1:8000"
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PYTHON_BLOCK = [sys.executable, "-m", "tests.support.python_block"]
_KEY = re.compile(r'"(\w+)":')
# It fails where the service answers with an error.
_CURL = '#!/bin/sh\nexec {} --silent --show-error --fail-with-body "$@"\n'


@dataclass(frozen=True)
class Example:
    """A runnable block of a document, and the answer shown below it."""

    language: str
    text: str
    answer: str = ""


def examples(document: Path) -> list[Example]:
    """The runnable blocks of a document."""
    blocks: list[tuple[str, str]] = _BLOCK.findall(document.read_text(encoding="utf-8"))
    following = [*blocks, ("", "")][1:]
    return [
        Example(language, text, answer if shown == "json" else "")
        for (language, text), (shown, answer) in zip(blocks, following, strict=True)
        if language in ("bash", "python")
    ]


# A translation has the blocks of its original, which a test below holds; so each block runs once.
TRANSLATIONS = {
    ROOT / "README.vi.md": ROOT / "README.md",
    ROOT / "docs/get-started.vi.md": ROOT / "docs/get-started.md",
}
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path not in TRANSLATIONS]
DOCUMENTS = [path for path in PAGES if examples(path)]
# Guides whose jobs take most of a minute each, where the machine is busy.
TRAINING = {"fine-tune.md", "get-started.md", "forecast.md", "live-streams.md", "sensors.md", "unusual-texts.md"}


@dataclass(frozen=True)
class Shell:
    """Runs blocks in a directory of their own, against a service at another address than the printed one."""

    directory: Path
    url: str
    commands: Path

    def run(self, example: Example) -> str:
        """What a block prints."""
        text = example.text.replace(PRINTED_URL, self.url)
        command = ["bash", "-euo", "pipefail", "-c"] if example.language == "bash" else _PYTHON_BLOCK
        environment = {"PATH": f"{self.commands}:{os.environ['PATH']}", "SONDE_URL": self.url}
        return output_of([*command, text], self.directory, environment)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sonde_up(tmp_path_factory.mktemp("up")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    curl = tmp_path_factory.mktemp("bin") / "curl"
    curl.write_text(_CURL.format(shutil.which("curl")))
    curl.chmod(0o755)
    with shell_commands(curl.parent, {"python": [sys.executable], "sonde": SONDE}) as directory:
        yield directory


@pytest.fixture
def shell(service: str, commands: Path, tmp_path: Path) -> Shell:
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # as in a clone
    return Shell(tmp_path, service, commands)


@pytest.mark.parametrize(
    "document",
    [pytest.param(path, marks=[pytest.mark.long] if path.name in TRAINING else []) for path in DOCUMENTS],
    ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS],
)
def test_examples_run_as_printed(document: Path, shell: Shell) -> None:
    for example in examples(document):
        printed = shell.run(example)
        shown = set(_KEY.findall(example.answer))
        assert shown <= set(_KEY.findall(printed)), f"{example.text}\nprinted {printed[:2000]}"
