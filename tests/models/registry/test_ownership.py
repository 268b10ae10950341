"""Names belong to the key that published first, and to those that an admin chose since."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import NotRegistered, RegistryError
from models.registry.ownership import Ownership
from models.registry.registry import Registry
from tests.support.artifacts import NAME, numbered, staging

A, B = "key-a", "key-b"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return staging(tmp_path / "staging")


def owner_file(tmp_path: Path) -> Path:
    return tmp_path / "models" / "ft--fake--team--intents" / "owner.json"


def test_the_first_version_gives_the_name_an_owner_and_later_ones_do_not(registry: Registry, source: Path) -> None:
    assert registry.ownership(NAME) is None
    registry.publish(NAME, source, numbered(owner=A))
    registry.publish(NAME, source, numbered(owner=B))
    assert registry.ownership(NAME) == Ownership(A)


def test_a_name_from_before_owners_stays_without_one(registry: Registry, source: Path) -> None:
    registry.publish(NAME, source, numbered(owner=None))
    registry.publish(NAME, source, numbered(owner=B))
    assert registry.ownership(NAME) is None


def test_deleting_every_version_leaves_the_owner(registry: Registry, source: Path) -> None:
    registry.publish(NAME, source, numbered(owner=A))
    registry.grant(NAME, "key-c", by="admin")
    registry.delete_all(NAME)
    registry.publish(NAME, source, numbered(owner=B))
    assert registry.ownership(NAME) == Ownership(A, ("key-c",))


def test_a_name_without_versions_whose_owner_was_removed_goes_to_the_next_key(registry: Registry, source: Path) -> None:
    registry.publish(NAME, source, numbered(owner=A))
    registry.remove_owner(NAME, by="admin")
    registry.publish(NAME, source, numbered(owner=B))
    assert registry.ownership(NAME) == Ownership(), "it has a version, which may serve"
    registry.delete_all(NAME)
    registry.publish(NAME, source, numbered(owner=B))
    assert registry.ownership(NAME) == Ownership(B)


def test_each_change_is_in_the_ledger(registry: Registry, source: Path) -> None:
    registry.publish(NAME, source, numbered(owner=A))
    registry.grant(NAME, B, by="admin")
    registry.grant(NAME, B, by="admin")
    assert registry.ownership(NAME) == Ownership(A, (B,))
    registry.revoke_grant(NAME, B, by="admin")
    registry.grant(NAME, B, by="admin")
    assert registry.set_owner(NAME, "key-c", by="admin") == Ownership("key-c"), "the owner before granted it"
    registry.remove_owner(NAME, by="admin")
    told = [(line["action"], line["version"], line["by"], line["why"]) for line in registry.ledger(NAME)[1:]]
    assert told == [
        ("grant", None, "admin", B),
        ("revoke_grant", None, "admin", B),
        ("grant", None, "admin", B),
        ("set_owner", None, "admin", "key-c"),
        ("remove_owner", None, "admin", ""),
    ]


def test_what_is_not_there_cannot_be_changed(registry: Registry, source: Path) -> None:
    with pytest.raises(NotRegistered):
        registry.set_owner(NAME, A, by="admin")
    registry.publish(NAME, source, numbered(owner=A))
    with pytest.raises(NotRegistered, match="was not granted to 'key-b'"):
        registry.revoke_grant(NAME, B, by="admin")


@pytest.mark.parametrize("content", ["{", "[]", '{"owner": 1, "grants": []}', '{"owner": "key-b"}'])
def test_a_damaged_file_is_an_error_until_an_admin_sets_the_owner_again(
    registry: Registry, source: Path, tmp_path: Path, content: str
) -> None:
    registry.publish(NAME, source, numbered(owner=A))
    owner_file(tmp_path).write_text(content)
    with pytest.raises(RegistryError):
        registry.ownership(NAME)
    registry.set_owner(NAME, A, by="admin")
    assert registry.ownership(NAME) == Ownership(A)


def test_a_suffix_of_other_case_is_another_name_with_an_owner_of_its_own(registry: Registry, source: Path) -> None:
    registry.publish(NAME, source, numbered(owner=A))
    other = NAME.replace("intents", "Intents")
    registry.publish(other, source, numbered(other, owner=B))
    assert (registry.ownership(NAME), registry.ownership(other)) == (Ownership(A), Ownership(B))
