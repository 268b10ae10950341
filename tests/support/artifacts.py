"""Artifacts and their files, and power cuts. Needs no torch, so that processes that use it start at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.registry.artifact import Golden, Manifest

if TYPE_CHECKING:
    import pytest

NAME = "ft:fake:team:intents"
MANIFEST = Manifest(
    name=NAME,
    version=1,
    task="classification",
    base="fake",
    base_version="0",
    encoder="base",
    labels=("yes", "no"),
    metrics={"macro_f1": 0.9},
    golden=Golden(("hello",), ((0.25, 0.75),), 1e-3),
    created=1_700_000_000,
    job="ftjob-1",
    seed=7,
    hyperparameters={"mode": "frozen"},
    owner="key-0",
)
PLAIN = {"head.json": "{}", "encoder/config.json": "{}"}


class PowerCut(BaseException):
    """What no code of ours catches."""


def staging(path: Path, files: dict[str, str] = PLAIN) -> Path:
    """A directory with files to publish."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


def numbered(name: str = NAME, **changes: Any) -> Callable[[int], Manifest]:
    """What `Registry.publish` asks for the manifest."""
    return lambda version: replace(MANIFEST, name=name, version=version, **changes)


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def cut_power(monkeypatch: pytest.MonkeyPatch, at: int, *, before: bool) -> None:
    """End everything before or after the `at`-th step (from 0) that reaches the disk, and let nothing tidy up after
    it.
    """
    steps = iter(range(1_000_000))

    def ending(real: Callable[..., None]) -> Callable[..., None]:
        def step(*given: Any, **more: Any) -> None:
            now = next(steps)
            if now > at:
                raise PowerCut
            if now == at and before:
                raise PowerCut
            real(*given, **more)
            if now == at:
                raise PowerCut

        return step

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, ending(getattr(os, name)))
    monkeypatch.setattr("shutil.rmtree", ending(lambda *given, **more: None))
    monkeypatch.setattr(Path, "unlink", ending(lambda *given, **more: None))
