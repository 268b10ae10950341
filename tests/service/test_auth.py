"""API keys: secrets are shown once and kept as hashes, and a change to the file counts at once."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.auth import ANYONE, SCOPES, Key, Keyring, Scope
from service.errors import ConfigError, ExpiredKey, MissingKey


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "state" / "keys.json")


def file_of(keyring: Keyring) -> Path:
    return keyring._path


def test_a_new_key_is_known_by_its_secret(keyring: Keyring) -> None:
    key, secret = keyring.create(["infer"], "mine")
    assert keyring.authenticate(secret) == key
    assert (key.scopes, key.name) == (("infer",), "mine")


def test_each_secret_belongs_to_its_own_key(keyring: Keyring) -> None:
    made = [keyring.create(["infer"], name) for name in "abc"]
    assert [keyring.authenticate(secret).name for _, secret in made] == ["a", "b", "c"]
    assert len({key.id for key, _ in made}) == len({secret for _, secret in made}) == 3


def test_the_file_has_hashes_and_no_secrets(keyring: Keyring) -> None:
    key, secret = keyring.create(["infer"])
    text = file_of(keyring).read_text()
    assert secret not in text
    assert secret.removeprefix("sonde_") not in text
    assert json.loads(text)[0]["digest"] == key.digest == hashlib.sha256(secret.encode()).hexdigest()


def test_a_secret_has_256_random_bits(keyring: Keyring) -> None:
    _, secret = keyring.create(["infer"])
    assert secret.startswith("sonde_")
    assert len(secret.removeprefix("sonde_")) == 43  # 32 bytes in base64


def test_the_file_is_for_its_owner_alone(keyring: Keyring) -> None:
    keyring.create(["infer"])
    keyring.create(["infer"])
    assert stat.S_IMODE(file_of(keyring).stat().st_mode) == 0o600


def test_a_write_replaces_the_file_and_leaves_nothing_behind(keyring: Keyring) -> None:
    keyring.create(["infer"])
    before = file_of(keyring).stat().st_ino
    keyring.create(["infer"])
    assert file_of(keyring).stat().st_ino != before
    assert sorted(path.name for path in file_of(keyring).parent.iterdir()) == ["keys.json", "keys.lock"]


def test_without_any_key_anyone_may_do_anything(keyring: Keyring) -> None:
    assert keyring.authenticate(None) is ANYONE
    assert keyring.authenticate("sonde_whatever") is ANYONE
    assert all(ANYONE.allows(scope) for scope in SCOPES)


def test_where_a_key_is_always_needed_nobody_comes_in_without_any(keyring: Keyring) -> None:
    closed = Keyring(file_of(keyring), open_without_keys=False)
    for secret in (None, "sonde_whatever"):
        with pytest.raises(MissingKey):
            closed.authenticate(secret)


@pytest.mark.parametrize("open_without_keys", [True, False])
def test_revoking_the_last_key_opens_nothing(keyring: Keyring, open_without_keys: bool) -> None:
    service = Keyring(file_of(keyring), open_without_keys=open_without_keys)
    key, secret = keyring.create(["infer"])
    assert service.authenticate(secret) == key
    keyring.revoke(key.id)
    for given in (None, secret):
        with pytest.raises(MissingKey):
            service.authenticate(given)


def lose(path: Path) -> None:
    path.unlink()


def lose_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def cut(path: Path) -> None:
    path.write_bytes(b"")


def hide(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def replace_home(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("")


@pytest.mark.parametrize("harm", [lose, lose_all, cut, hide, replace_home])
@pytest.mark.parametrize("open_without_keys", [True, False])
def test_a_lost_file_leaves_the_known_keys_in_force(
    keyring: Keyring, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], open_without_keys: bool
) -> None:
    service = Keyring(file_of(keyring), open_without_keys=open_without_keys)
    key, secret = keyring.create(["infer"])
    assert service.authenticate(secret) == key
    harm(file_of(keyring))
    for _ in range(3):
        assert service.authenticate(secret) == key
        for wrong in (None, "sonde_other"):
            with pytest.raises(MissingKey):
                service.authenticate(wrong)
    assert [record.message for record in caplog.records] == ["keys cannot be read; those read before stay in force"]
    assert service.are_stale


def test_a_file_that_comes_back_counts_again(keyring: Keyring, caplog: pytest.LogCaptureFixture) -> None:
    key, secret = keyring.create(["infer"])
    keyring.authenticate(secret)
    for losses in (1, 2):
        file_of(keyring).rename(file_of(keyring).with_suffix(".old"))
        assert keyring.authenticate(secret) == key
        file_of(keyring).with_suffix(".old").rename(file_of(keyring))
        assert keyring.authenticate(secret) == key
        assert (len(caplog.records), keyring.are_stale) == (losses, False)
    keyring.revoke(key.id)
    with pytest.raises(MissingKey):
        keyring.authenticate(secret)


def test_a_service_that_starts_without_the_file_of_its_keys_lets_nobody_in(keyring: Keyring) -> None:
    keyring.create(["infer"])
    file_of(keyring).unlink()
    with pytest.raises(MissingKey):
        Keyring(file_of(keyring)).authenticate(None)
    shutil.rmtree(file_of(keyring).parent)
    with pytest.raises(MissingKey):
        Keyring(file_of(keyring), made_before=True).authenticate(None)
    assert Keyring(file_of(keyring)).authenticate(None) is ANYONE


def test_revoking_where_no_key_was_made_closes_nothing(keyring: Keyring) -> None:
    assert not keyring.revoke("key-000000000000")
    assert Keyring(file_of(keyring)).authenticate(None) is ANYONE


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (None, "an API key is needed"),
        ("", "an API key is needed"),
        ("sonde_", "not known here"),
        ("sonde_" + "a" * 43, "not known here"),
        ("schlüssel", "not known here"),
        ("\udcff", "not known here"),
    ],
)
def test_with_a_key_no_one_comes_in_without(keyring: Keyring, secret: str | None, message: str) -> None:
    keyring.create(["infer"])
    with pytest.raises(MissingKey, match=message):
        keyring.authenticate(secret)


def test_neither_the_id_nor_the_hash_of_a_key_is_its_secret(keyring: Keyring) -> None:
    key, _ = keyring.create(["infer"])
    for wrong in (key.id, key.digest):
        with pytest.raises(MissingKey):
            keyring.authenticate(wrong)


def test_a_revoked_key_is_forgotten_and_others_stay(keyring: Keyring) -> None:
    (gone, secret), (stays, other) = keyring.create(["infer"]), keyring.create(["infer"])
    assert keyring.revoke(gone.id)
    with pytest.raises(MissingKey):
        keyring.authenticate(secret)
    assert keyring.authenticate(other) == stays


def test_revoking_what_is_not_there_changes_nothing(keyring: Keyring) -> None:
    keyring.create(["infer"])
    before = file_of(keyring).stat()
    assert not keyring.revoke("key-000000000000")
    after = file_of(keyring).stat()  # when it was read last may have changed
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_running_service_sees_new_and_revoked_keys(keyring: Keyring) -> None:
    service = Keyring(file_of(keyring))
    assert service.authenticate(None) is ANYONE
    first, secret = keyring.create(["infer"])
    assert service.authenticate(secret) == first
    second, other = keyring.create(["infer"])
    assert service.authenticate(other) == second
    keyring.revoke(first.id)
    with pytest.raises(MissingKey):
        service.authenticate(secret)


def test_the_file_is_read_only_when_it_has_changed(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = keyring.create(["infer"])
    keyring.authenticate(secret)
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("the file was read again"))
    assert keyring.authenticate(secret).scopes == ("infer",)


def test_every_key_is_compared_in_constant_time(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [keyring.create(["infer"]) for _ in range(3)]
    compared: list[str] = []
    right = hmac.compare_digest

    def watch(known: str, given: str) -> bool:
        compared.append(known)
        return right(known, given)

    monkeypatch.setattr("service.auth.hmac.compare_digest", watch)
    keyring.authenticate(made[0][1])  # the first one matches, and still all are compared
    assert compared == [key.digest for key, _ in made]


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("infer",), {"infer"}),
        (("train",), {"train"}),
        (("infer", "train"), {"infer", "train"}),
        (("admin",), {"infer", "train", "admin"}),
        ((), set()),
    ],
)
def test_a_key_allows_its_scopes_and_admin_allows_all(scopes: tuple[Scope, ...], allowed: set[str]) -> None:
    key = Key(id="key-1", scopes=scopes, digest="", created=0)
    assert {scope for scope in SCOPES if key.allows(scope)} == allowed


def test_a_scope_given_twice_counts_once(keyring: Keyring) -> None:
    key, secret = keyring.create(["infer", "infer", "train"])
    assert key.scopes == ("infer", "train")
    assert Keyring(file_of(keyring)).authenticate(secret) == key


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"{",
            b"null",
            b"7",
            b'{"id": 1}',
            b'["key"]',
            b'[{"id": "a"}]',
            b'[{"id": "a", "scopes": [], "more": 1}]',
            b"\xff",
        ),
        *(
            b'[{"id": "a", "scopes": [], "digest": %s, "created": 1}]' % digest
            for digest in (b"5", b"null", b'"\\u00fc"')
        ),
    ],
)
def test_a_file_broken_from_the_start_lets_nobody_in(keyring: Keyring, content: bytes) -> None:
    _, secret = keyring.create(["infer"])
    file_of(keyring).write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"keys\.json is not a list of keys as 'sonde keys' writes it"):
            keyring.authenticate(secret)


def test_a_file_that_breaks_leaves_the_known_keys_in_force(keyring: Keyring) -> None:
    key, secret = keyring.create(["infer"])
    assert keyring.authenticate(secret) == key
    file_of(keyring).write_text("{")
    for _ in range(2):
        assert keyring.authenticate(secret) == key
        with pytest.raises(MissingKey):
            keyring.authenticate("sonde_other")


def test_a_file_that_cannot_be_read_leaves_the_known_keys_in_force(
    keyring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    key, secret = keyring.create(["infer"])
    assert keyring.authenticate(secret) == key
    file_of(keyring).unlink()
    file_of(keyring).mkdir()
    for _ in range(3):
        assert keyring.authenticate(secret) == key
    assert [record.message for record in caplog.records] == ["keys cannot be read; those read before stay in force"]


def test_a_file_that_could_not_be_opened_once_is_tried_again(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Keyring(file_of(keyring))
    key, secret = keyring.create(["infer"])
    assert service.authenticate(secret) == key
    keyring.revoke(key.id)
    with monkeypatch.context() as full:
        full.setattr(Path, "read_text", lambda path, encoding: fail(OSError(24, "Too many open files")))
        assert service.authenticate(secret) == key
    with pytest.raises(MissingKey):
        service.authenticate(secret)


def fail(error: Exception) -> Any:
    raise error


def test_keys_below_a_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    keyring = Keyring(tmp_path / "home" / "keys.json")
    with pytest.raises(ConfigError, match=r"keys\.json cannot be read: Not a directory"):
        keyring.authenticate(None)
    with pytest.raises(ConfigError, match=r"keys\.json cannot be written: File exists"):
        keyring.create(["infer"])


def test_keys_made_at_the_same_time_are_all_kept(keyring: Keyring) -> None:
    def create(number: int) -> str:
        return Keyring(file_of(keyring)).create(["infer"], str(number))[0].id

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(32)))
    assert sorted(key.id for key in keyring.keys) == sorted(made)


def test_a_key_expires(keyring: Keyring) -> None:
    now = [1000.0]
    service = Keyring(file_of(keyring), clock=lambda: now[0])
    key, secret = service.create(["infer"], expires_in_s=60)
    assert (key.created, key.expires) == (1000, 1060)
    now[0] = 1059.9
    assert service.authenticate(secret) == key
    now[0] = 1060.0
    with pytest.raises(ExpiredKey, match=f"{key.id} has expired"):
        service.authenticate(secret)


def test_a_file_of_version_0_1_0_is_read(keyring: Keyring) -> None:
    file_of(keyring).parent.mkdir()
    digest = hashlib.sha256(b"sonde_old").hexdigest()
    old = {"id": "key-1", "scopes": ["infer"], "digest": digest, "created": 1, "name": "old"}
    file_of(keyring).write_text(json.dumps([old]))
    found = keyring.authenticate("sonde_old")
    assert (found.name, found.expires, found.requests_per_minute, found.tokens_per_minute) == ("old", None, None, None)


def test_changes_of_the_keys_are_logged(keyring: Keyring, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    service = Keyring(file_of(keyring))
    assert service.authenticate(None) is ANYONE
    first, second = keyring.create(["infer"])[0], keyring.create(["infer"])[0]
    caplog.clear()
    assert [key.id for key in service.keys] == [first.id, second.id]
    keyring.revoke(first.id)
    caplog.clear()
    assert [key.id for key in service.keys] == [second.id]
    [record] = caplog.records
    assert (record.message, record.__dict__["removed"]) == ("keys have changed", [first.id])


def test_the_first_key_of_a_running_service_is_logged(keyring: Keyring, caplog: pytest.LogCaptureFixture) -> None:
    service = Keyring(file_of(keyring))
    assert service.authenticate(None) is ANYONE
    key, _ = keyring.create(["infer"])
    caplog.set_level("INFO")
    assert service.keys == (key,)
    [record] = caplog.records
    assert (record.message, record.__dict__["added"]) == ("keys are in force: every call needs one", [key.id])


@pytest.mark.parametrize("name", ["expires", "requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", ["soon", 1.5, 0, -1, [1]])
def test_a_file_with_other_limits_is_refused(keyring: Keyring, name: str, value: object) -> None:
    keyring.create(["infer"])
    [entry] = json.loads(file_of(keyring).read_text())
    file_of(keyring).write_text(json.dumps([entry | {name: value}]))
    with pytest.raises(ConfigError, match="has a time or limit that is not a number above 0"):
        _ = Keyring(file_of(keyring)).keys


def test_what_was_read_is_taken_for_a_moment_and_no_longer(keyring: Keyring) -> None:
    now = [100.0]
    service = Keyring(file_of(keyring), fresh_s=0.01, clock=lambda: now[0])
    assert service.authenticate(None) is ANYONE
    key, secret = keyring.create(["infer"])
    now[0] += 0.009
    assert service.authenticate(None) is ANYONE
    now[0] += 0.002
    with pytest.raises(MissingKey):
        service.authenticate(None)
    assert service.authenticate(secret) == key
    keyring.revoke(key.id)
    assert service.authenticate(secret) == key
    now[0] -= 3600  # a clock that is set back
    with pytest.raises(MissingKey):
        service.authenticate(secret)


def test_a_key_is_added_to_those_that_are_there_now(keyring: Keyring) -> None:
    service = Keyring(file_of(keyring), fresh_s=3600)
    assert service.keys == ()
    first = keyring.create(["infer"])[0]
    second = service.create(["infer"])[0]
    assert keyring.keys == (first, second)
