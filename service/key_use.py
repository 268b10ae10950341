"""When each API key was last used: the modification time of a file named like the key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)

DIRECTORY = "keys.used"
_EVERY_S = 60.0


class KeyUse:
    """Notes uses below the home, at most one a minute of each key; several processes may do so at once."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._clock = home / DIRECTORY, clock
        self._noted: dict[str, float] = {}
        self._failed = False

    def note(self, key_id: str) -> None:
        """Note a use. A home that cannot be written is logged once, and costs no request."""
        now = self._clock()
        if now - self._noted.get(key_id, -_EVERY_S) < _EVERY_S:
            return
        self._noted[key_id] = now
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._path(key_id).touch(mode=0o600)
        except OSError as error:
            if not self._failed:
                log.warning("%s cannot be written, so the last use of keys is not kept: %s", self._directory, error)
            self._failed = True

    def last(self, key_id: str) -> float | None:
        """When a key was last used, in seconds since 1970; None for a key that was not."""
        try:
            return self._path(key_id).stat().st_mtime
        except OSError:
            return None

    def forget(self, key_id: str) -> None:
        """Drop what is known of a key that was revoked."""
        self._path(key_id).unlink(missing_ok=True)

    def _path(self, key_id: str) -> Path:
        return self._directory / quote(key_id, safe="")
