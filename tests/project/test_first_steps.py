"""The README and *Get started*: blocks that run, sample files that ship, and translations with the same blocks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.project.test_examples import DOCUMENTS, ROOT, TRANSLATIONS

FIRST = [ROOT / "README.md", ROOT / "docs/get-started.md"]
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SAMPLE = re.compile(r"examples/data/[\w.-]+\w")
_TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)


def _blocks(document: Path) -> list[tuple[str, str]]:
    """Languages and texts, without the comments behind commands, which are prose."""
    found = _BLOCK.findall(document.read_text(encoding="utf-8"))
    return [(language, re.sub(r"  +#.*", "", text)) for language, text in found]


def test_their_blocks_run_in_the_tests() -> None:
    assert set(FIRST) <= set(DOCUMENTS)


@pytest.mark.parametrize("document", FIRST, ids=lambda path: path.name)
def test_what_is_only_shown_are_commands_of_this_repository(document: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    shown = [line for language, text in _blocks(document) if language == "console" for line in text.splitlines()]
    made = {line.removeprefix("$ make ") for line in shown} - {"$ source .venv/bin/activate"}
    assert made <= targets
    assert "serve" in made


@pytest.mark.parametrize("document", FIRST, ids=lambda path: path.name)
def test_the_sample_files_ship(document: Path) -> None:
    named = set(_SAMPLE.findall(document.read_text(encoding="utf-8")))
    tracked = subprocess.run(
        ["git", "ls-files", "examples/data"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert named
    assert named <= set(tracked)


@pytest.mark.parametrize(("translation", "original"), TRANSLATIONS.items(), ids=lambda path: path.name)
def test_a_translation_has_the_blocks_of_its_original(translation: Path, original: Path) -> None:
    assert _blocks(translation) == _blocks(original)


@pytest.mark.parametrize(("translation", "original"), TRANSLATIONS.items(), ids=lambda path: path.name)
def test_a_translation_has_the_headings_and_links_of_its_original(translation: Path, original: Path) -> None:
    ours, theirs = (path.read_text(encoding="utf-8") for path in (translation, original))
    assert len(re.findall(r"^#+ ", ours, re.MULTILINE)) == len(re.findall(r"^#+ ", theirs, re.MULTILINE))
    links = [
        {link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.endswith(".vi.md")} for text in (ours, theirs)
    ]
    assert links[0] >= links[1]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
