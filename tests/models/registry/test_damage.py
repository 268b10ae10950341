"""Pointers and aliases that are empty, lost, damaged or older than they were, and how a promotion repairs them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import NotRegistered, RegistryConflict, RegistryDamaged
from models.registry.reader import Pointer
from models.registry.registry import Registry
from tests.support.artifacts import NAME, numbered, staging

BY: dict[str, Any] = {"by": "key-1", "why": "a test"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 3 is in service at generation 3; version 1 was at generation 1, version 2 at generation 2."""
    home = tmp_path_factory.mktemp("whole")
    made = Registry(home / "models")
    for _ in range(4):
        made.publish(NAME, staging(home / "staging"), numbered())
    for version in (1, 2, 3):
        made.promote(NAME, version, **BY)
    return home / "models"


@pytest.fixture
def registry(whole: Path, tmp_path: Path) -> Registry:
    """A copy that a test may damage."""
    return Registry(Path(shutil.copytree(whole, tmp_path / "models")))


def pointer_of(registry: Registry) -> Path:
    return registry.path(NAME, 1).parents[1] / "current.json"


def ledger_of(registry: Registry) -> Path:
    return pointer_of(registry).with_name("ledger.jsonl")


def older(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "version": 2, "generation": 2, "previous": 1}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "half": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "a list": lambda path: path.write_text("[]"),
    "too deep": lambda path: path.write_text("[" * 100_000),
    "another object": lambda path: path.write_text("{}"),
    "other types": lambda path: path.write_text('{"version": "3", "generation": 3, "previous": 2}'),
    "no generation": lambda path: path.write_text('{"version": 3, "generation": null, "previous": 2}'),
    "older": older,
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@damaged
def test_a_damaged_pointer_is_an_error_that_says_what_to_do(
    registry: Registry, damage: Callable[[Path], object]
) -> None:
    damage(pointer_of(registry))
    stamp = registry.stamp()
    for read in (registry.current, registry.generation, registry.previous, registry.last_move):
        with pytest.raises(RegistryDamaged, match=r"current\.json.*version 3 in service, generation 3: .* promote"):
            read(NAME)
    with pytest.raises(RegistryDamaged):
        registry.rollback(NAME, **BY)
    with pytest.raises(RegistryDamaged):
        registry.withdraw(NAME, **BY)
    with pytest.raises(RegistryDamaged):
        registry.delete(NAME, 3)
    assert registry.stamp() == stamp, "nothing has changed"
    assert registry.versions(NAME) == [1, 2, 3, 4]
    assert [line.get("generation") for line in registry.ledger(NAME)] == [None] * 4 + [1, 2, 3]


@damaged
@pytest.mark.parametrize(
    ("version", "after"), [(3, Pointer(3, 3, 2)), (4, Pointer(4, 4, 3)), (1, Pointer(1, 4, 3))], ids=str
)
def test_a_promotion_goes_on_from_the_ledger(
    registry: Registry, damage: Callable[[Path], object], version: int, after: Pointer, caplog: pytest.LogCaptureFixture
) -> None:
    damage(pointer_of(registry))
    with caplog.at_level(logging.WARNING):
        assert registry.promote(NAME, version, **BY) == registry.current(NAME) == after
    assert "restored as the ledger has it" in caplog.text
    generations = [line["generation"] for line in registry.ledger(NAME) if "generation" in line]
    assert generations == list(range(1, after.generation + 1))


def test_a_promotion_on_an_old_view_of_a_damaged_pointer_is_refused(registry: Registry) -> None:
    pointer_of(registry).unlink()
    with pytest.raises(RegistryConflict, match="is at generation 3, expected 2"):
        registry.promote(NAME, 4, **BY, expected=2)
    assert registry.promote(NAME, 4, **BY, expected=3) == Pointer(4, 4, 3)


def test_a_name_that_was_never_promoted_has_no_damage(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    registry.publish(NAME, staging(tmp_path / "staging"), numbered())
    assert (registry.current(NAME), registry.generation(NAME)) == (None, 0)


def test_a_damaged_first_pointer_without_a_ledger_is_repaired_too(registry: Registry) -> None:
    pointer_of(registry).write_bytes(b"")
    ledger_of(registry).unlink()
    with pytest.raises(RegistryDamaged, match="no version in service, generation 0"):
        registry.current(NAME)
    assert registry.promote(NAME, 2, **BY, served=3) == Pointer(2, 4, None)


@pytest.mark.parametrize("rest", [b'{"at": 1, "action": "pro', b"\0" * 40, b"{"])
def test_half_a_line_of_the_ledger_is_no_damage(registry: Registry, rest: bytes) -> None:
    with ledger_of(registry).open("ab") as ledger:
        ledger.write(rest)
    assert registry.current(NAME) == Pointer(3, 3, 2)
    assert registry.promote(NAME, 4, **BY) == Pointer(4, 4, 3)


def test_a_ledger_a_line_behind_is_no_damage(registry: Registry) -> None:
    lines = ledger_of(registry).read_bytes().splitlines(keepends=True)
    ledger_of(registry).write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])
    assert registry.current(NAME) == Pointer(3, 3, 2)
    assert [line.get("generation") for line in registry.ledger(NAME)][-1] == 3


@pytest.mark.parametrize("line", [b"garbage\n", b"[]\n", b"\xff\n"])
def test_a_damaged_line_of_the_ledger_takes_nothing_out_of_service(registry: Registry, line: bytes) -> None:
    ledger_of(registry).write_bytes(line + ledger_of(registry).read_bytes())
    assert registry.current(NAME) == Pointer(3, 3, 2)
    with pytest.raises(RegistryDamaged, match=r"line 1 of ft--fake--team--intents/ledger\.jsonl is no JSON object"):
        registry.ledger(NAME)


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (lambda registry: registry.promote(NAME, 2, **BY, served=9), Pointer(2, 10, 3)),
        (lambda registry: registry.promote(NAME, 3, **BY, served=9), Pointer(3, 10, 2)),
        (lambda registry: registry.promote(NAME, 3, **BY, served=3), Pointer(3, 3, 2)),
        (lambda registry: registry.rollback(NAME, **BY, served=9), Pointer(2, 10, 3)),
    ],
)
def test_a_move_is_above_the_generation_in_service(
    registry: Registry, change: Callable[[Registry], Pointer], after: Pointer
) -> None:
    """As after a restore of the whole directory from an older backup."""
    assert change(registry) == registry.current(NAME) == after


def test_a_withdrawal_is_above_the_generation_in_service(registry: Registry) -> None:
    registry.withdraw(NAME, **BY, served=9)
    assert (registry.current(NAME), registry.generation(NAME)) == (None, 10)


def test_readers_never_take_a_move_in_progress_for_damage(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader reads the ledger before the pointer, as a writer writes the pointer before the ledger."""
    history = registry._files(NAME).history
    last_recorded = history._last_recorded

    def moved_meanwhile() -> object:
        found = last_recorded()
        registry.promote(NAME, 4, **BY)
        return found

    monkeypatch.setattr(history, "_last_recorded", moved_meanwhile)
    assert history.last().generation == 4


# --- aliases
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"\0" * 9])
def test_damaged_aliases_are_an_error_and_the_next_one_repairs_them(
    registry: Registry, tmp_path: Path, content: bytes
) -> None:
    registry.set_alias("prod", NAME)
    (tmp_path / "models" / "aliases.json").write_bytes(content)
    with pytest.raises(RegistryDamaged, match=r"models/aliases\.json"):
        registry.aliases()
    with pytest.raises(RegistryDamaged):
        registry.remove_alias("prod")
    registry.set_alias("test", f"{NAME}:v1", served={"prod": NAME})
    assert registry.aliases() == {"prod": NAME, "test": f"{NAME}:v1"}


def test_lost_aliases_are_an_error_only_where_some_are_known(registry: Registry, tmp_path: Path) -> None:
    assert registry.aliases() == {}
    registry.set_alias("prod", NAME)
    (tmp_path / "models" / "aliases.json").unlink()
    with pytest.raises(RegistryDamaged, match=r"aliases\.json is gone"):
        registry.aliases(known=True)
    registry.set_alias("test", NAME, served={"prod": NAME})
    assert registry.aliases() == {"prod": NAME, "test": NAME}


def test_aliases_of_a_lost_registry_do_not_make_another(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "models").rename(tmp_path / "away")
    with pytest.raises(NotRegistered):
        registry.set_alias("prod", NAME)
    with pytest.raises(NotRegistered):
        registry.remove_alias("prod")
    assert not (tmp_path / "models").exists()
