"""API keys: made once, shown once, kept as hashes."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from service.errors import ConfigError, MissingKey

log = logging.getLogger(__name__)

Scope = Literal["infer", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_MARK = "sonde_"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: its public id, what it may do, and the SHA-256 of its secret.

    The secret has 256 random bits, so a plain hash cannot be searched; a slow one would only slow every request.
    """

    id: str
    scopes: tuple[Scope, ...]
    digest: str
    created: int
    name: str = ""

    def allows(self, scope: Scope) -> bool:
        """`admin` includes the other scopes."""
        return scope in self.scopes or "admin" in self.scopes


# Who asks while keys are not in use; only a loopback or `--insecure` service comes to that.
ANYONE = Key(id="anonymous", scopes=SCOPES, digest="", created=0)


class Keyring:
    """The keys in a file, read again when the file changes, so that a new key works without a restart.

    While there is no file, anyone may call, unless `open_without_keys` is false. Once there is one, a key is needed,
    even when the last has been revoked; and a file that cannot be read leaves the keys that were known before, and
    is tried again.
    """

    def __init__(self, path: Path, *, open_without_keys: bool = True) -> None:
        self._path = path
        self._open_without_keys = open_without_keys
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self._trouble = ""

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key. Raises ConfigError for a file that is none of ours and was not read before."""
        try:
            self._refresh()
        except ConfigError as error:
            if self._stamp is None:
                raise
            if error.message != self._trouble:  # told once, not at every request
                log.exception("keys cannot be read; the ones known before stay in force")
            self._trouble = error.message
        return self._keys

    def authenticate(self, secret: str | None) -> Key:
        """The key that a secret belongs to. Compares with every key, each in constant time. Raises MissingKey."""
        keys = self.keys
        if self._stamp is None and self._open_without_keys:
            return ANYONE
        if not secret:
            raise MissingKey("an API key is needed: send 'Authorization: Bearer …' or 'X-API-Key: …'")
        digest = _digest(secret)
        matches = [key for key in keys if hmac.compare_digest(key.digest, digest)]
        if not matches:
            raise MissingKey("this API key is not known here")
        return matches[0]

    def create(self, scopes: Iterable[Scope], name: str = "") -> tuple[Key, str]:
        """Make a key; the second value is the secret, which is not kept."""
        chosen = tuple(dict.fromkeys(scopes))
        secret = _MARK + secrets.token_urlsafe(32)
        key = Key(
            id="key-" + secrets.token_hex(6), scopes=chosen, digest=_digest(secret), created=int(time.time()), name=name
        )
        with self._alone():
            self._write([*self.keys, key])
        return key, secret

    def revoke(self, key_id: str) -> bool:
        """Forget a key; False when there was none of that id."""
        with self._alone():
            left = [key for key in self.keys if key.id != key_id]
            if len(left) == len(self.keys):
                return False
            self._write(left)
        return True

    def _refresh(self) -> None:
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._keys = _read(self._path) if stamp else ()
            self._stamp, self._trouble = stamp, ""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and our writing. Raises ConfigError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}; see --home") from error

    def _write(self, keys: list[Key]) -> None:
        """Replace the file in one step, readable by its owner alone."""
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump([asdict(key) for key in keys], stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._path)

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
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
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a list of keys as 'sonde keys' writes it: {error}") from error


def _key(entry: dict[str, Any]) -> Key:
    key = Key(**{**entry, "scopes": tuple(entry["scopes"])})
    if not (isinstance(key.digest, str) and key.digest.isascii()):  # no other can be compared with
        raise ValueError(f"the digest of {key.id!r} is not hexadecimal")
    return key


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {error.strerror}; see --home")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
