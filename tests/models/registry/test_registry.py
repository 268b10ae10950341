"""The registry: versions that stay, a pointer that moves in one step, names that never become paths unchecked."""

from __future__ import annotations

import errno
import json
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError, BadName, NotRegistered, RegistryConflict, RegistryError
from models.registry.names import check_alias, model_name, parse_name
from models.registry.pointer_history import PointerHistory
from models.registry.reader import Pointer
from models.registry.registry import Registry
from tests.support.artifacts import NAME, PowerCut, cut_power, numbered, staging, tree

OTHER = "ft:fake:team:other"
BY: dict[str, Any] = {"by": "key-1", "why": "a test"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", clock=lambda: 1_700_000_000.5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return staging(tmp_path / "staging")


def filled(registry: Registry, source: Path, versions: int = 3, name: str = NAME) -> Registry:
    for _ in range(versions):
        registry.publish(name, source, numbered(name))
    return registry


def test_an_empty_registry_has_nothing_and_makes_nothing(registry: Registry, tmp_path: Path) -> None:
    assert (registry.names(), registry.versions(NAME), registry.aliases(), registry.ledger(NAME)) == ([], [], {}, [])
    assert (registry.current(NAME), registry.generation(NAME)) == (None, 0)
    assert not (tmp_path / "models").exists()


def test_versions_are_numbered_from_1_on(registry: Registry, source: Path) -> None:
    assert [registry.publish(NAME, source, numbered()) for _ in range(3)] == [1, 2, 3]
    assert registry.publish(OTHER, source, numbered(OTHER)) == 1
    assert (registry.names(), registry.versions(NAME)) == ([NAME, OTHER], [1, 2, 3])
    assert registry.manifest(NAME, 2).version == 2
    assert registry.path(NAME, 2).name == "2"
    assert registry.current(NAME) is None, "publishing puts nothing in service"


def test_a_manifest_of_another_model_is_refused(registry: Registry, source: Path) -> None:
    with pytest.raises(RegistryError, match=rf"the manifest is of {OTHER}:v1, expected {NAME}:v1"):
        registry.publish(NAME, source, numbered(OTHER))
    assert registry.versions(NAME) == []


def test_a_job_finds_what_it_has_published(registry: Registry, source: Path) -> None:
    for job in ("ftjob-1", "ftjob-2"):
        registry.publish(NAME, source, numbered(job=job))
    assert [registry.published(NAME, job) for job in ("ftjob-1", "ftjob-2", "ftjob-3")] == [1, 2, None]


def test_a_broken_manifest_does_not_stop_other_jobs(
    registry: Registry, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for job in ("ftjob-1", "ftjob-2"):
        registry.publish(NAME, source, numbered(job=job))
    (registry.path(NAME, 1) / "manifest.json").write_text("{")
    assert [registry.published(NAME, job) for job in ("ftjob-1", "ftjob-2", "ftjob-3")] == [None, 2, None]
    assert "skipped a version: 1/manifest.json" in caplog.text


def test_promoting_moves_the_pointer_and_rolling_back_moves_it_again(registry: Registry, source: Path) -> None:
    filled(registry, source)
    assert registry.promote(NAME, 1, **BY) == registry.current(NAME) == Pointer(1, 1, None)
    assert registry.promote(NAME, 3, **BY) == registry.current(NAME) == Pointer(3, 2, 1)
    assert registry.rollback(NAME, **BY) == registry.current(NAME) == Pointer(1, 3, 3)
    assert registry.rollback(NAME, **BY) == registry.current(NAME) == Pointer(3, 4, 1)
    assert registry.generation(NAME) == 4


def test_promoting_what_serves_changes_nothing(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.promote(NAME, 1, **BY)
    registry.promote(NAME, 2, **BY)
    stamp = registry.stamp()
    assert registry.promote(NAME, 2, **BY) == Pointer(2, 2, 1)
    assert registry.stamp() == stamp


def test_the_ledger_says_who_did_what_when_and_why(registry: Registry, source: Path) -> None:
    filled(registry, source, 2)
    registry.promote(NAME, 1, by="ftjob-1", why="better")
    registry.promote(NAME, 2, by="key-1", why="better still")
    registry.rollback(NAME, by="key-1", why="no")
    registry.withdraw(NAME, by="key-2", why="not at all")
    registry.delete(NAME, 2, by="key-3")
    told = [
        (line["action"], line["version"], line.get("generation"), line["by"], line["why"], line["owner"])
        for line in registry.ledger(NAME)
    ]
    assert told == [
        ("publish", 1, None, "ftjob-1", "", "key-0"),
        ("publish", 2, None, "ftjob-1", "", "key-0"),
        ("promote", 1, 1, "ftjob-1", "better", "key-0"),
        ("promote", 2, 2, "key-1", "better still", "key-0"),
        ("rollback", 1, 3, "key-1", "no", "key-0"),
        ("withdraw", None, 4, "key-2", "not at all", None),
        ("delete", 2, None, "key-3", "", None),
    ]
    assert {line["at"] for line in registry.ledger(NAME)} == {1_700_000_000}


def test_a_version_and_a_ledger_from_before_owners_are_read(registry: Registry, source: Path, tmp_path: Path) -> None:
    filled(registry, source, 1)
    directory = tmp_path / "models" / "ft--fake--team--intents"
    for path in (directory / "ledger.jsonl", directory / "versions" / "1" / "manifest.json"):
        read = json.loads(path.read_text())
        del read["owner"]
        path.write_text(json.dumps(read) + "\n")
    assert registry.manifest(NAME, 1).owner is None
    registry.promote(NAME, 1, **BY)
    assert [line.get("owner", "absent") for line in registry.ledger(NAME)] == ["absent", None]


def test_a_promotion_on_an_old_view_is_refused(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.promote(NAME, 1, **BY, expected=0)
    with pytest.raises(RegistryConflict, match="is at generation 1, expected 0: another change came first"):
        registry.promote(NAME, 2, **BY, expected=0)
    assert registry.current(NAME) == Pointer(1, 1, None)
    assert registry.promote(NAME, 2, **BY, expected=1).generation == 2


def _race(root: Path, version: int, start: Any, outcomes: Any) -> None:
    registry = Registry(root)
    start.wait()
    try:
        outcomes.put(("won", registry.promote(NAME, version, by=str(version), why="", expected=0).version))
    except RegistryConflict:
        outcomes.put(("lost", version))


@pytest.mark.slow
def test_of_two_processes_that_race_one_wins(registry: Registry, source: Path, tmp_path: Path) -> None:
    filled(registry, source, 2)
    context = multiprocessing.get_context("spawn")
    start, outcomes = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path / "models", version, start, outcomes)) for version in (1, 2)]
    for racer in racers:
        racer.start()
    told = dict(outcomes.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join()
    assert set(told) == {"won", "lost"}
    assert registry.current(NAME) == Pointer(told["won"], 1, None)
    assert [line["version"] for line in registry.ledger(NAME) if line["action"] == "promote"] == [told["won"]]


def test_publications_at_once_get_numbers_of_their_own(registry: Registry, source: Path) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(registry.publish(NAME, source, numbered()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == registry.versions(NAME) == list(range(1, 9))


@pytest.mark.parametrize("version", [0, -1, 4, 10**12])
def test_a_version_that_is_not_there_cannot_be_promoted(registry: Registry, source: Path, version: int) -> None:
    filled(registry, source)
    with pytest.raises(NotRegistered, match=rf"has no version {version}; there is: v1, v2, v3"):
        registry.promote(NAME, version, **BY)


def test_a_changed_artifact_cannot_be_promoted(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.promote(NAME, 1, **BY)
    (registry.path(NAME, 2) / "head.json").write_text("changed")
    with pytest.raises(ArtifactError, match="SHA-256"):
        registry.promote(NAME, 2, **BY)
    assert registry.current(NAME) == Pointer(1, 1, None)


def test_there_must_be_something_to_roll_back_to(registry: Registry, source: Path) -> None:
    filled(registry, source)
    with pytest.raises(RegistryConflict, match="no version served before"):
        registry.rollback(NAME, **BY)
    registry.promote(NAME, 1, **BY)
    with pytest.raises(RegistryConflict, match="no version served before"):
        registry.rollback(NAME, **BY)
    registry.promote(NAME, 2, **BY)
    registry.delete(NAME, 1)
    with pytest.raises(RegistryConflict, match="version 1 was deleted"):
        registry.rollback(NAME, **BY)
    assert registry.current(NAME) == Pointer(2, 2, 1)


def test_what_was_withdrawn_can_come_back(registry: Registry, source: Path) -> None:
    filled(registry, source)
    with pytest.raises(RegistryConflict, match="is not in service"):
        registry.withdraw(NAME, **BY)
    registry.promote(NAME, 2, **BY)
    registry.withdraw(NAME, **BY)
    assert (registry.current(NAME), registry.generation(NAME)) == (None, 2)
    assert registry.rollback(NAME, **BY) == Pointer(2, 3, None)
    registry.withdraw(NAME, **BY)
    assert registry.promote(NAME, 3, **BY, expected=4) == Pointer(3, 5, 2)


@pytest.mark.parametrize("back", ["rollback", "promote"])
def test_what_came_back_from_a_withdrawal_leads_to_the_one_before_it(
    registry: Registry, source: Path, back: str
) -> None:
    filled(registry, source)
    for version in (1, 2):
        registry.promote(NAME, version, **BY)
    for generation in (4, 6):
        registry.withdraw(NAME, **BY)
        again = registry.rollback(NAME, **BY) if back == "rollback" else registry.promote(NAME, 2, **BY)
        assert again == Pointer(2, generation, 1)
    assert registry.rollback(NAME, **BY) == Pointer(1, 7, 2)


def test_a_rollback_that_would_change_nothing_is_refused(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.promote(NAME, 2, **BY)
    pointer = registry.path(NAME, 2).parents[1] / "current.json"
    pointer.write_text(pointer.read_text().replace('"previous": null', '"previous": 2'))
    with pytest.raises(RegistryConflict, match="version 2 serves already; promote the version that you want"):
        registry.rollback(NAME, **BY)


def test_the_version_in_service_is_not_deleted(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.promote(NAME, 2, **BY)
    with pytest.raises(RegistryConflict, match=r":v2 is in service: promote another or withdraw it first"):
        registry.delete(NAME, 2)
    with pytest.raises(RegistryConflict, match=r":v2 is in service"):
        registry.delete_all(NAME)
    registry.delete(NAME, 1)
    assert registry.versions(NAME) == [2, 3]
    with pytest.raises(NotRegistered):
        registry.path(NAME, 1)


def test_numbers_are_never_used_again(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.delete(NAME, 3)
    assert registry.publish(NAME, source, numbered()) == 4
    registry.delete_all(NAME)
    assert (registry.versions(NAME), registry.names()) == ([], [])
    assert registry.publish(NAME, source, numbered()) == 5
    assert len(registry.ledger(NAME)) == 9, "the ledger stays"


@pytest.mark.parametrize(
    "change",
    [
        lambda registry: registry.delete(OTHER, 1),
        lambda registry: registry.delete_all(OTHER),
        lambda registry: registry.withdraw(OTHER, **BY),
        lambda registry: registry.promote(OTHER, 1, **BY),
        lambda registry: registry.set_alias("prod", OTHER),
        lambda registry: registry.set_alias("prod", f"{NAME}:v9"),
        lambda registry: registry.remove_alias("prod"),
    ],
)
def test_what_is_not_there_is_named_and_not_made(
    registry: Registry, source: Path, change: Callable[[Registry], object]
) -> None:
    filled(registry, source)
    with pytest.raises(NotRegistered):
        change(registry)
    assert registry.names() == [NAME]
    assert [path.name for path in (source.parent / "models").glob("ft*")] == ["ft--fake--team--intents"]


def test_aliases_name_a_model_or_one_version_of_it(registry: Registry, source: Path) -> None:
    filled(registry, source)
    registry.set_alias("prod", NAME)
    registry.set_alias("old", f"{NAME}:v1")
    registry.set_alias("prod", f"{NAME}:v2")
    assert registry.aliases() == {"prod": f"{NAME}:v2", "old": f"{NAME}:v1"}
    with pytest.raises(RegistryConflict, match=r":v1 is what alias 'old' means"):
        registry.delete(NAME, 1)
    registry.remove_alias("old")
    registry.delete(NAME, 1)
    registry.set_alias("prod", NAME)
    with pytest.raises(RegistryConflict, match=r"is what alias 'prod' means"):
        registry.delete_all(NAME)
    registry.delete(NAME, 2)
    with pytest.raises(RegistryConflict, match=r"is what alias 'prod' means"):
        registry.delete(NAME, 3)
    assert registry.versions(NAME) == [3]


def test_the_stamp_tells_of_every_change_of_what_serves(registry: Registry, source: Path) -> None:
    stamps = [registry.stamp()]
    filled(registry, source)
    filled(registry, source, 1, OTHER)
    for change in (
        lambda: registry.promote(NAME, 1, **BY),
        lambda: registry.promote(NAME, 2, **BY),
        lambda: registry.promote(OTHER, 1, **BY),
        lambda: registry.rollback(NAME, **BY),
        lambda: registry.set_alias("prod", NAME),
        lambda: registry.set_alias("prod", OTHER),
        lambda: registry.remove_alias("prod"),
        lambda: registry.withdraw(NAME, **BY),
    ):
        change()
        stamps.append(registry.stamp())
        assert registry.stamp() == stamps[-1]
    assert all(one != other for index, one in enumerate(stamps) for other in stamps[:index])


# --- names
# ------------------------------------------------------------------------------------------------------------------

ATTACKS = [
    "",
    "ft",
    "ft:a:b",
    "ft:a:b:c:d",
    "ft:a:b:c:v0",
    "ft:a:b:c:v01",
    "ft:a:b:c:v-1",
    "ft:a:b:c:v1:v2",
    "ft:a:b:c:v1234567890",
    "ft::b:c",
    "ft:..:b:c",
    "ft:a:..:c",
    "ft:a:b:..",
    "ft:a:b:../../etc",
    "../ft:a:b:c",
    "ft:a/b:c:d",
    "/etc/passwd",
    "ft:a:b:/c",
    "ft:a\\b:c:d",
    "ft:a:b:c\x00",
    "ft:a:b:\x00",
    "ft:a:b:c\n",
    "ft:a:b:c ",
    " ft:a:b:c",
    "ft:.a:b:c",
    "ft:-a:b:c",
    "ft:a:b:c--d",
    "ft:a--b:c:d",
    "FT:a:b:c",
    "ft:a:b:" + "c" * 65,
    "ft:a:b:" + "c" * 100_000,
    "ft:а:b:c",  # noqa: RUF001  # a Cyrillic a, as in the attack
    "ft:a:b:c１",  # noqa: RUF001  # a fullwidth digit
    "ft：a:b:c",  # noqa: RUF001  # a fullwidth colon
    "ft:a:b:․․",  # noqa: RUF001  # one-dot leaders
    "ft:a:b:c∕d",  # noqa: RUF001  # a division slash
    "ft:a:b:c:v１",  # noqa: RUF001  # a fullwidth digit
    "ft:a:b:é",
    "ft:a:b:%2e%2e",
    "~root",
]


@pytest.mark.parametrize("name", ATTACKS, ids=lambda name: ascii(name)[:40])
def test_no_name_becomes_a_path_unchecked(registry: Registry, source: Path, tmp_path: Path, name: str) -> None:
    filled(registry, source, 1)
    before = tree(tmp_path)
    for use in (
        lambda: registry.versions(name),
        lambda: registry.path(name, 1),
        lambda: registry.manifest(name, 1),
        lambda: registry.current(name),
        lambda: registry.ledger(name),
        lambda: registry.publish(name, source, numbered()),
        lambda: registry.promote(name, 1, **BY),
        lambda: registry.rollback(name, **BY),
        lambda: registry.withdraw(name, **BY),
        lambda: registry.delete(name, 1),
        lambda: registry.delete_all(name),
        lambda: registry.set_alias("prod", name),
        lambda: parse_name(name),
    ):
        with pytest.raises(BadName) as caught:
            use()
        assert len(caught.value.message) < 600
    assert tree(tmp_path) == before


@pytest.mark.parametrize("alias", ["", "ft:a:b:c", "..", "a/b", "a\x00", "a\n", "-a", ".a", "a" * 65, "é", "а"])  # noqa: RUF001  # a Cyrillic a
def test_no_alias_is_taken_unchecked(registry: Registry, source: Path, alias: str) -> None:
    filled(registry, source, 1)
    with pytest.raises(BadName):
        registry.set_alias(alias, NAME)
    with pytest.raises(BadName):
        check_alias(alias)


@pytest.mark.parametrize(
    ("asked", "parsed"),
    [
        ("ft:a:b:c", ("ft:a:b:c", None)),
        ("ft:a:b:c:v3", ("ft:a:b:c", 3)),
        ("ft:a.b-c_d:b-:v1", ("ft:a.b-c_d:b-:v1", None)),
        ("ft:a.b-c_d:b-:v1:v12", ("ft:a.b-c_d:b-:v1", 12)),
    ],
)
def test_names_are_read_with_and_without_version(asked: str, parsed: tuple[str, int | None]) -> None:
    assert parse_name(asked) == parsed


@pytest.mark.parametrize("name", ["ft:a-:b-:c-", "ft:a.b:c_d:0", "ft:a:b:v1", "ft:" + ":".join(["x" * 64] * 3)])
def test_every_good_name_is_found_again_on_disk(registry: Registry, source: Path, name: str) -> None:
    filled(registry, source, 1, name)
    registry.promote(name, 1, **BY)
    assert registry.names() == [name]


@pytest.mark.parametrize(
    ("base", "name"),
    [("all-MiniLM-L6-v2", "ft:all-MiniLM-L6-v2:local:support"), ("BAAI/bge-small-en", "ft:bge-small-en:local:support")],
)
def test_a_name_has_the_last_part_of_its_base(base: str, name: str) -> None:
    assert model_name(base, "local", "support") == name
    with pytest.raises(BadName):
        model_name(base, "local", "../x")


def test_what_others_put_there_is_not_taken_for_models(registry: Registry, source: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    filled(registry, source, 1)
    (root / "ft--a--b--c").symlink_to(root / "ft--fake--team--intents")
    (root / "elsewhere").mkdir()
    (root / "ft--a--b--d").touch()
    versions = root / "ft--fake--team--intents" / "versions"
    (versions / "7").symlink_to(versions / "1")
    (versions / "08").mkdir()
    assert (registry.names(), registry.versions(NAME)) == ([NAME], [1])


def test_a_broken_pointer_is_named(registry: Registry, source: Path, tmp_path: Path) -> None:
    filled(registry, source, 1)
    for content in ("{", "[]", "{}"):
        (tmp_path / "models" / "ft--fake--team--intents" / "current.json").write_text(content)
        with pytest.raises(RegistryError, match=r"current\.json"):
            registry.current(NAME)


# --- power cuts
# -------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Callable[[Registry, Path], object], Pointer]] = {
    "promote": (lambda registry, source: registry.promote(NAME, 2, **BY), Pointer(2, 2, 1)),
    "rollback": (lambda registry, source: registry.rollback(NAME, **BY), Pointer(1, 4, 2)),
}


def test_the_next_change_removes_what_a_killed_one_left(registry: Registry, source: Path, tmp_path: Path) -> None:
    filled(registry, source, 1)
    left = [tmp_path / "models" / NAME.replace(":", "--") / ".tmp-1-a", tmp_path / "models" / ".tmp-1-b"]
    for path in left:
        path.write_bytes(b"half a poin")
    registry.promote(NAME, 1, **BY)
    registry.set_alias("intents", NAME)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_leaves_the_old_pointer_or_the_new_one(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, change: str, before: bool
) -> None:
    act, new = CHANGES[change]
    outcomes = []
    for step in range(100):
        registry = filled(Registry(tmp_path / str(step)), source, 2)
        registry.promote(NAME, 1, **BY)
        if change == "rollback":
            registry.promote(NAME, 2, **BY)
            registry.rollback(NAME, **BY)
            registry.rollback(NAME, **BY)
            new = Pointer(1, 5, 2)
        old = registry.current(NAME)
        try:
            with monkeypatch.context() as cut:
                cut_power(cut, step, before=before)
                act(registry, source)
        except PowerCut:
            after = Registry(tmp_path / str(step))
            assert after.current(NAME) in (old, new)
            outcomes.append(after.current(NAME) == new)
            told = [line["generation"] for line in after.ledger(NAME) if "generation" in line]
            assert told == list(range(1, after.generation(NAME) + 1)), (
                "the ledger tells of every move that happened, and of no other"
            )
            # and it goes on as if nothing had been
            assert after.promote(NAME, after.publish(NAME, source, numbered()), **BY).version == 3
            assert [line["generation"] for line in after.ledger(NAME) if "generation" in line] == list(
                range(1, after.generation(NAME) + 1)
            )
            continue
        break
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


@pytest.mark.parametrize("before", [True, False])
def test_a_power_cut_while_publishing_leaves_whole_versions_alone(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    outcomes = []
    for step in range(100):
        registry = filled(Registry(tmp_path / str(step)), source, 1)
        try:
            with monkeypatch.context() as cut:
                cut_power(cut, step, before=before)
                registry.publish(NAME, source, numbered())
        except PowerCut:
            after = Registry(tmp_path / str(step))
            outcomes.append(len(after.versions(NAME)))
            for version in after.versions(NAME):
                assert after.promote(NAME, version, **BY).version == version
            assert after.publish(NAME, source, numbered()) == outcomes[-1] + 1
            assert not list((tmp_path / str(step)).rglob(".tmp-*")), "what was left is gone"
            continue
        break
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}


@pytest.mark.parametrize("before", [True, False])
def test_a_power_cut_while_deleting_leaves_a_whole_version_or_none(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    outcomes = []
    for step in range(100):
        registry = filled(Registry(tmp_path / str(step)), source, 2)
        try:
            with monkeypatch.context() as cut:
                cut_power(cut, step, before=before)
                registry.delete(NAME, 2)
        except PowerCut:
            after = Registry(tmp_path / str(step))
            outcomes.append(2 not in after.versions(NAME))
            for version in after.versions(NAME):
                assert after.promote(NAME, version, **BY).version == version
            assert after.publish(NAME, source, numbered()) == 3
            assert after.path(NAME, 3).parent.joinpath("2").exists() is not outcomes[-1]
            continue
        break
    assert outcomes == sorted(outcomes)
    assert True in outcomes


def test_a_move_whose_line_finds_no_space_in_the_ledger_has_happened(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(registry, source, 2)

    def full(self: PointerHistory, entry: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PointerHistory, "_append", full)
        assert registry.promote(NAME, 1, **BY) == registry.current(NAME) == Pointer(1, 1, None)
        with pytest.raises(OSError, match="No space left"):
            registry.promote(NAME, 2, **BY)
    assert registry.current(NAME) == Pointer(1, 1, None), "a second line would have been lost"
    registry.promote(NAME, 2, **BY)
    assert [line.get("generation") for line in registry.ledger(NAME)] == [None, None, 1, 2]


def test_deleting_makes_room_on_a_full_disk(registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(registry, source, 2)
    place, append = registry.path(NAME, 1), PointerHistory._append

    def full(self: PointerHistory, entry: dict[str, Any]) -> None:
        if place.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, entry)

    monkeypatch.setattr(PointerHistory, "_append", full)
    registry.delete(NAME, 1)
    assert (registry.versions(NAME), place.exists(), registry.ledger(NAME)[-1]["action"]) == ([2], False, "delete")


def test_half_a_line_in_the_ledger_is_cut_off(registry: Registry, source: Path, tmp_path: Path) -> None:
    filled(registry, source, 2)
    registry.promote(NAME, 1, **BY)
    path = tmp_path / "models" / "ft--fake--team--intents" / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert [line["action"] for line in registry.ledger(NAME)] == ["publish", "publish", "promote"]
    registry.promote(NAME, 2, **BY)
    assert [line.get("generation") for line in registry.ledger(NAME)] == [None, None, 1, 2]
