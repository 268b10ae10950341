"""The bytes of uploads that have not ended, which take room on the disk before their files count in the database."""

from __future__ import annotations

import threading
from collections import Counter

from service.jobs.quotas import Used


class IncomingBytes:
    """Bytes by key that this process receives. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str | None] = Counter()

    def add(self, owner: str | None, amount: int) -> Used:
        """Count bytes, or release them where `amount` is negative; what is counted then."""
        with self._lock:
            self._bytes[owner] += amount
            own, total = self._bytes[owner], self._bytes.total()
            if not own:
                del self._bytes[owner]
        return Used(own, total)
