"""API keys: shown once when created, kept as hashes."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from models.filesystem import replace_file
from service.errors import ConfigError, ExpiredKey, MissingKey

log = logging.getLogger(__name__)

Scope = Literal["infer", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_MARK = "sonde_"


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its public id, its scopes, and the SHA-256 of its secret.

    The secret has 256 random bits, so a plain hash is safe from search; a slow hash would only slow every request.
    `created` and `expires` are seconds since 1970. Limits are for each minute; None is no limit.
    """

    id: str
    scopes: tuple[Scope, ...]
    digest: str
    created: int
    name: str = ""
    expires: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def has_expired(self, now: float) -> bool:
        """Whether the key's time is over."""
        return self.expires is not None and now >= self.expires

    def allows(self, scope: Scope) -> bool:
        """Whether the key has a scope. `admin` includes the others."""
        return scope in self.scopes or "admin" in self.scopes


# The key of all callers while there are no keys, on loopback or with `--insecure`.
ANYONE = Key(id="anonymous", scopes=SCOPES, digest="", created=0)


class Keyring:
    """The keys in a file, read again when it changes: a new key works without a restart.

    Without a file, anyone may call if `open_without_keys`. With one, callers need a key, even after the last key is
    revoked. While the file is gone or cannot be read, the keys read before stay in force. Its lock file shows a new
    process that keys were made here, so a service without its keys does not start open; `made_before` tells it so too.
    What was read is taken for `fresh_s` more, because each look at a file is a call of the system.
    """

    def __init__(
        self,
        path: Path,
        *,
        open_without_keys: bool = True,
        made_before: bool = False,
        fresh_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._clock = path, clock
        self._file, self._lock = str(path), str(self._lock_file)
        self._made_before = made_before
        self._open_without_keys = open_without_keys
        self._fresh_s, self._fresh_until = fresh_s, 0.0
        self._stamp: tuple[int, int] | None = None
        self._was_read = self._made = False
        self._keys: tuple[Key, ...] = ()
        self._last_problem = ""

    @property
    def path(self) -> Path:
        """The file of the keys."""
        return self._path

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key. Raises ConfigError for a file that cannot be read and never could."""
        try:
            self._refresh()
        except ConfigError as error:
            if not self._was_read:
                raise
            if error.message != self._last_problem:  # log it once, not at every request
                log.exception("keys cannot be read; those read before stay in force")
            self._last_problem = error.message
        return self._keys

    @property
    def were_made(self) -> bool:
        """Whether there are or were keys here, so that callers need one. Raises ConfigError."""
        self._refresh()
        return self._made

    @property
    def are_stale(self) -> bool:
        """Whether the file could not be read when it was last looked at."""
        return bool(self._last_problem)

    def authenticate(self, secret: str | None) -> Key:
        """The key of a secret. Compares with all keys in constant time. Raises MissingKey and ExpiredKey."""
        keys = self.keys
        if self._open_without_keys and not self._made:
            return ANYONE
        if not secret:
            raise MissingKey("an API key is needed: send 'Authorization: Bearer …', 'X-API-Key: …' or 'api-key: …'")
        digest = _digest(secret)
        matches = [key for key in keys if hmac.compare_digest(key.digest, digest)]
        if not matches:
            raise MissingKey("this API key is not known here")
        if matches[0].has_expired(self._clock()):
            raise ExpiredKey(f"{matches[0].id} has expired: create another key")
        return matches[0]

    def create(
        self,
        scopes: Iterable[Scope],
        name: str = "",
        *,
        expires_in_s: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> tuple[Key, str]:
        """Create a key and its secret, which is not kept."""
        chosen = tuple(dict.fromkeys(scopes))
        secret = _MARK + secrets.token_urlsafe(32)
        now = int(self._clock())
        key = Key(
            id="key-" + secrets.token_hex(6),
            scopes=chosen,
            digest=_digest(secret),
            created=now,
            name=name,
            expires=None if expires_in_s is None else now + expires_in_s,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        with self._locked():
            self._write([*self.keys, key])
        return key, secret

    def revoke(self, key_id: str) -> bool:
        """Remove a key; False when there is none with this id."""
        if not self.keys:  # the lock would say that there were some
            return False
        with self._locked():
            left = [key for key in self.keys if key.id != key_id]
            if len(left) == len(self.keys):
                return False
            self._write(left)
        return True

    def _refresh(self) -> None:
        now = self._clock()
        if self._fresh_until - self._fresh_s <= now < self._fresh_until:  # a clock may be set back
            return
        self._made = self._were_made()
        stamp = self._read_stamp()
        if stamp is None and self._was_read:
            raise ConfigError(f"{self._path} is gone: restore it, or create new keys")
        if stamp is not None and stamp != self._stamp:
            keys = _read(self._path)
            self._log_change(keys)
            self._keys, self._stamp, self._was_read, self._made = keys, stamp, True, True
        self._last_problem, self._fresh_until = "", now + self._fresh_s

    def _log_change(self, keys: tuple[Key, ...]) -> None:
        before, now = ({key.id for key in each} for each in (self._keys, keys))
        message = "keys have changed" if self._was_read else "keys are in force: every call needs one"
        log.info(message, extra={"keys": len(now), "added": sorted(now - before), "removed": sorted(before - now)})

    def _were_made(self) -> bool:
        return self._made_before or self._was_read or os.path.exists(self._lock)  # noqa: PTH110  # thrice as fast

    @property
    def _lock_file(self) -> Path:
        return self._path.with_suffix(".lock")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the file between reading and writing it. Raises ConfigError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._lock_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._fresh_until = 0.0
                yield
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}; see --home") from error

    def _write(self, keys: list[Key]) -> None:
        """Replace the file in one step; only its owner can read it."""
        replace_file(self._path, json.dumps([asdict(key) for key in keys], indent=2).encode(), mode=0o600)

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._file)  # noqa: PTH116  # pathlib's takes three times as long
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return found.st_mtime_ns, found.st_ino


def _read(path: Path) -> tuple[Key, ...]:
    try:
        return tuple(_key(entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{path} is not a list of keys as 'sonde keys' writes it: {error}") from error


def _key(entry: dict[str, Any]) -> Key:
    key = Key(**{**entry, "scopes": tuple(entry["scopes"])})
    if not (isinstance(key.digest, str) and key.digest.isascii()):  # compare_digest takes no other text
        raise ValueError(f"the digest of {key.id!r} is not hexadecimal")
    for limit in (key.expires, key.requests_per_minute, key.tokens_per_minute):
        if not (limit is None or (isinstance(limit, int) and limit > 0)):
            raise ValueError(f"{key.id!r} has a time or limit that is not a number above 0")
    return key


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {error.strerror}; see --home")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
