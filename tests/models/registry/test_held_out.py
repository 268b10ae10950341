"""Rows bound to a name: copied, hashed, replaced and removed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import NotRegistered, RegistryError
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from tests.support.artifacts import NAME, PowerCut, cut_power, numbered, staging

ROWS = b'{"text": "a", "label": "yes"}\n'


def held_out(content: bytes = ROWS, file: str = "file-1") -> HeldOut:
    digest = hashlib.sha256(content).hexdigest()
    return HeldOut(file, "jsonl", digest, 1, "key-1", 1_700_000_000, "classification", {}, {"mode": "frozen"})


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload.jsonl"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "models")
    made.publish(NAME, staging(tmp_path / "staging"), numbered())
    return made


def copies(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in (tmp_path / "models").glob("*/held_out/*")]


def test_bound_rows_outlive_the_upload(registry: Registry, upload: Path, tmp_path: Path) -> None:
    assert registry.held_out(NAME) is None
    assert registry.copy_held_out(NAME, tmp_path) is None
    registry.bind_held_out(NAME, upload, held_out())
    upload.unlink()
    found = registry.copy_held_out(NAME, tmp_path)
    assert found == (held_out(), tmp_path / "bound.jsonl")
    assert found[1].read_bytes() == ROWS
    line = registry.ledger(NAME)[-1]
    assert (line["action"], line["by"], line["why"]) == ("bind_held_out", "key-1", "file-1")


def test_another_file_replaces_the_one_before(registry: Registry, upload: Path, tmp_path: Path) -> None:
    registry.bind_held_out(NAME, upload, held_out())
    upload.write_bytes(ROWS * 2)
    registry.bind_held_out(NAME, upload, held_out(ROWS * 2, "file-2"))
    now = registry.held_out(NAME)
    assert now is not None
    assert now.file == "file-2"
    assert copies(tmp_path) == [ROWS * 2]


def test_removing_them_removes_the_copy(registry: Registry, upload: Path, tmp_path: Path) -> None:
    registry.bind_held_out(NAME, upload, held_out())
    registry.unbind_held_out(NAME, by="key-2")
    assert registry.held_out(NAME) is None
    assert copies(tmp_path) == []
    assert registry.ledger(NAME)[-1]["action"] == "unbind_held_out"
    with pytest.raises(NotRegistered, match="no rows are bound"):
        registry.unbind_held_out(NAME, by="key-2")


def test_a_file_that_changed_since_it_was_checked_is_not_bound(registry: Registry, upload: Path) -> None:
    with pytest.raises(RegistryError, match="expected 0000: bind them again"):
        registry.bind_held_out(NAME, upload, replace(held_out(), sha256="0000"))
    assert registry.held_out(NAME) is None


def test_damaged_rows_are_an_error_and_not_the_same_as_none(registry: Registry, upload: Path, tmp_path: Path) -> None:
    registry.bind_held_out(NAME, upload, held_out())
    directory = tmp_path / "models" / "ft--fake--team--intents"
    [copy] = (directory / "held_out").iterdir()
    copy.write_bytes(b"other")
    with pytest.raises(RegistryError, match="bind them again"):
        registry.copy_held_out(NAME, tmp_path)
    copy.unlink()
    with pytest.raises(RegistryError, match="are gone"):
        registry.copy_held_out(NAME, tmp_path)
    for content in ("", '{"file": 1}', "{"):
        (directory / "held_out.json").write_text(content)
        with pytest.raises(RegistryError):
            registry.held_out(NAME)
    registry.bind_held_out(NAME, upload, held_out())
    assert registry.held_out(NAME) == held_out()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(6))
def test_after_a_power_cut_the_old_rows_or_the_new_ones_judge(
    registry: Registry, upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, before: bool
) -> None:
    registry.bind_held_out(NAME, upload, held_out())
    upload.write_bytes(ROWS * 2)
    with monkeypatch.context() as patch:
        cut_power(patch, at, before=before)
        with pytest.raises(PowerCut):
            registry.bind_held_out(NAME, upload, held_out(ROWS * 2, "file-2"))
    found = registry.copy_held_out(NAME, tmp_path)
    assert found is not None
    assert found[1].read_bytes() == (ROWS if found[0].file == "file-1" else ROWS * 2)
    registry.bind_held_out(NAME, upload, held_out(ROWS * 2, "file-2"))
    assert copies(tmp_path) == [ROWS * 2]
