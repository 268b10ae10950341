"""What each API key may use a minute, in requests and in tokens: a token bucket for each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.auth import Key
from service.errors import RateLimited

_MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    """`level` is what is left; it is below 0 after a request that took more than was left."""

    level: float
    at: float

    def refill(self, capacity: float, now: float) -> None:
        self.level = min(capacity, self.level + capacity * (now - self.at) / _MINUTE_S)
        self.at = now


class KeyLimits:
    """The limits of keys in this process, which has `share` of each; `clock` is in seconds."""

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._requests: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}

    def admit(self, key: Key) -> None:
        """Take a request. Raises RateLimited where the key has used its requests or its tokens."""
        if key.requests_per_minute is None and key.tokens_per_minute is None:
            return
        tokens = self._bucket(self._tokens, key, key.tokens_per_minute)
        if tokens is not None and tokens.level <= 0:
            raise self._refusal(key, "tokens", key.tokens_per_minute, -tokens.level)
        requests = self._bucket(self._requests, key, key.requests_per_minute)
        if requests is None:
            return
        if requests.level < 1:
            raise self._refusal(key, "requests", key.requests_per_minute, 1 - requests.level)
        requests.level -= 1

    def charge(self, key: Key, tokens: int) -> None:
        """Take the tokens of a request, whose number is known once it is answered."""
        bucket = self._bucket(self._tokens, key, key.tokens_per_minute)
        if bucket is not None:
            bucket.level -= tokens

    def _bucket(self, buckets: dict[str, _Bucket], key: Key, per_minute: int | None) -> _Bucket | None:
        if per_minute is None:
            return None
        now, capacity = self._clock(), self._capacity(per_minute)
        bucket = buckets.setdefault(key.id, _Bucket(capacity, now))
        bucket.refill(capacity, now)
        return bucket

    def _capacity(self, per_minute: int) -> float:
        return max(per_minute * self._share, 1.0)

    def _refusal(self, key: Key, what: str, per_minute: int | None, missing: float) -> RateLimited:
        wait_s = math.ceil(max(missing, 1e-9) * _MINUTE_S / self._capacity(per_minute or 1))
        message = f"{key.id} may use {per_minute} {what} a minute and has used them; try again in {wait_s} s"
        return RateLimited(message, retry_after_s=wait_s)
