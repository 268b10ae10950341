"""How much each key, and all keys together, may keep: unfinished jobs, bytes of files, rows of feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import sqlalchemy as sa

from models.counted import counted
from service.config import Settings
from service.errors import QuotaExceeded, TooManyJobs
from service.jobs.database import take_lock
from service.jobs.principal import Principal
from service.jobs.records import TERMINAL
from service.jobs.tables import feedback, files, jobs

Kind = Literal["jobs", "bytes", "feedback"]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_LOCKS = {kind: 0x50DE0 + number for number, kind in enumerate(_KINDS)}  # any numbers, the same in every process
_LEAST_BYTES = 4096  # what a file takes on the disk at least
_RETRY_AFTER_S = 60

_FILE_BYTES = sa.case((files.c.bytes < _LEAST_BYTES, _LEAST_BYTES), else_=files.c.bytes)
_USED: dict[Kind, sa.Select[Any]] = {
    "jobs": sa.select(sa.func.count()).select_from(jobs).where(jobs.c.status.notin_(TERMINAL)),
    "bytes": sa.select(sa.func.coalesce(sa.func.sum(_FILE_BYTES), 0)),
    "feedback": sa.select(sa.func.count()).select_from(feedback),
}
_OWNER: dict[Kind, sa.Column[Any]] = {"jobs": jobs.c.owner, "bytes": files.c.owner, "feedback": feedback.c.owner}


class Used(NamedTuple):
    """An amount of one key, and of all keys together."""

    own: int
    total: int


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits by kind, of each key and in total; 0 is no limit.

    They hold for every key, `admin` keys too; callers without a key share one. `on_refusal` gets `key_jobs`,
    `total_bytes` and the like.
    """

    per_key: Mapping[Kind, int] = field(default_factory=dict)
    total: Mapping[Kind, int] = field(default_factory=dict)
    on_refusal: Callable[[str], None] = lambda reason: None

    @classmethod
    def of(cls, settings: Settings, on_refusal: Callable[[str], None]) -> Quotas:
        """The quotas of the settings."""
        per_key, total = ({kind: getattr(settings, f"max_{of}_{kind}") for kind in _KINDS} for of in ("key", "total"))
        return cls(per_key, total, on_refusal)

    def admit(self, connection: sa.Connection, principal: Principal, kind: Kind, amount: int = 1) -> None:
        """Raise TooManyJobs or QuotaExceeded unless `amount` more fits; a file counts as 4 KiB at least.

        In a transaction that writes, no other gets room until this one has ended.
        """
        take_lock(connection, _LOCKS[kind])
        self.require_room(kind, self.used(connection, principal, kind), Used(amount, amount))

    def used(self, connection: sa.Connection, principal: Principal, kind: Kind) -> Used:
        """What is kept; 0 where there is no limit."""
        total = _USED[kind]
        own = total.where(_OWNER[kind] == principal.id)
        limited = ((own, self.per_key.get(kind)), (total, self.total.get(kind)))
        return Used(*(int(connection.execute(query).scalar_one()) if limit else 0 for query, limit in limited))

    def require_room(self, kind: Kind, used: Used, more: Used) -> None:
        """Raise TooManyJobs or QuotaExceeded unless `more` fits beside what is used."""
        least = _LEAST_BYTES if kind == "bytes" else 0
        self._require(kind, used.own, max(more.own, least), self.per_key.get(kind, 0), "key", "this key has")
        self._require(kind, used.total, max(more.total, least), self.total.get(kind, 0), "total", "all keys have")

    def _require(self, kind: Kind, used: int, amount: int, limit: int, of: str, has: str) -> None:
        if not limit or used + amount <= limit:
            return
        self.on_refusal(f"{of}_{kind}")
        setting = f"raise --max-{of}-{kind}"
        if kind == "jobs":
            message = f"{has} {used} unfinished jobs of at most {limit}: wait for some, cancel some, or {setting}"
            raise TooManyJobs(message, retry_after_s=_RETRY_AFTER_S)
        if kind == "bytes":
            message = f"file: {has} {counted(used, 'byte')} of files, of at most {limit}; {amount} more need room"
            raise QuotaExceeded(f"{message}: delete files, or {setting}", param="file")
        raise QuotaExceeded(f"{has} {counted(used, 'row')} of feedback, of at most {limit}: {setting}")


UNLIMITED = Quotas()
