"""A stream's state as a text that the client sends back, so that any replica continues.

    version (1 byte) · BLAKE2b of the rest (16) · length of the header (4) · header, JSON · arrays, float64, LE

The hash is keyed by the digest of the model's files, so it detects a state that was cut, changed, or made by another
model or version. It is no secret: anyone with the model's files can make one.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
import orjson

from models.sensors.model import MOST_STATE_BYTES, State
from service.errors import BackendError, InvalidState

_VERSION = b"\x01"
_MAC_BYTES = 16
_LENGTH_BYTES = 4
# Version, hash, header (with an open event's shares of 512 columns) and base64's third on top.
MAX_CHARACTERS = (MOST_STATE_BYTES + 24 * 2**10) * 4 // 3


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a stream stands: its last timestamp (Unix seconds), whether readings without one followed, its events.

    `events` is what `EventTracker` keeps.
    """

    last_s: float | None = None
    followed: bool = False
    events: dict[str, Any] | None = None

    @property
    def of_last_reading_s(self) -> float | None:
        """The last timestamp, if the last reading has it."""
        return None if self.followed else self.last_s


def seal(state: State, digest: str, position: StreamPosition) -> str:
    """Encode a detector's state and the stream's position. Raises BackendError above 64 KiB."""
    arrays = [(name, np.ascontiguousarray(state[name], dtype="<f8")) for name in sorted(state)]
    size = sum(array.nbytes for _, array in arrays)
    if size > MOST_STATE_BYTES:
        raise BackendError(f"the detector's state has {size} bytes, {MOST_STATE_BYTES} are allowed")
    shapes = [[name, array.shape] for name, array in arrays]
    header = orjson.dumps(
        {"at": position.last_s, "followed": position.followed, "events": position.events, "arrays": shapes}
    )
    rest = b"".join([len(header).to_bytes(_LENGTH_BYTES, "little"), header, *(array.tobytes() for _, array in arrays)])
    return urlsafe_b64encode(_VERSION + _mac(rest, digest) + rest).decode().rstrip("=")


def unseal(text: str, digest: str) -> tuple[State, StreamPosition]:
    """Decode a text that `seal` made with the same digest. Raises InvalidState for others."""
    sealed = _decode_base64(text)
    if sealed[:1] != _VERSION:
        raise InvalidState("state: this service does not write this format; begin anew without it", param="state")
    mac, rest = sealed[1 : 1 + _MAC_BYTES], sealed[1 + _MAC_BYTES :]
    if not hmac.compare_digest(mac, _mac(rest, digest)):
        raise InvalidState(
            "state: it was changed, or another model or version made it: send it to the version named in the "
            "x-sonde-model header that came with it, or begin anew without it",
            param="state",
        )
    start = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "little")
    header = orjson.loads(rest[_LENGTH_BYTES:start])
    state: State = {}
    for name, shape in header["arrays"]:
        count = prod(shape)
        state[name] = np.frombuffer(rest, dtype="<f8", count=count, offset=start).reshape(shape).astype(np.float64)
        start += count * 8
    return state, StreamPosition(header["at"], header.get("followed", False), header.get("events"))


def _decode_base64(text: str) -> bytes:
    if len(text) > MAX_CHARACTERS:
        raise InvalidState(
            f"state: {len(text)} characters, {MAX_CHARACTERS} are allowed; send the last answer's state", param="state"
        )
    try:
        return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidState("state: not base64url; send back the last answer's state", param="state") from None


def _mac(content: bytes, digest: str) -> bytes:
    key = blake2b(b"sonde stream state " + digest.encode(), digest_size=32).digest()
    return blake2b(content, key=key, digest_size=_MAC_BYTES).digest()
