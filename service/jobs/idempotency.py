"""The answers to requests with an idempotency key, which the same request gets again for a day."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from service.errors import IdempotencyConflict
from service.jobs.database import take_lock
from service.jobs.records import IdempotencyKey
from service.jobs.tables import idempotency

_KEEP_ANSWERS_S = 24 * 3600


def find_answer(connection: sa.Connection, wanted: IdempotencyKey, now: float) -> dict[str, Any] | None:
    """The answer to an earlier request with a key, or None; until the transaction ends, equal requests wait.

    Raises IdempotencyConflict when the key came with another body before.
    """
    owner, key = wanted.owner, wanted.key
    take_lock(connection, int(hashlib.sha256(f"{owner} {key}".encode()).hexdigest()[:15], 16))
    connection.execute(idempotency.delete().where(idempotency.c.created_at < now - _KEEP_ANSWERS_S))
    query = sa.select(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key)
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.fingerprint != wanted.fingerprint:
        raise IdempotencyConflict("this Idempotency-Key was used with another body", param="Idempotency-Key")
    answer: dict[str, Any] = row.answer
    return answer


def keep_answer(connection: sa.Connection, wanted: IdempotencyKey, answer: dict[str, Any], now: float) -> None:
    """Keep the answer to the first request with a key."""
    connection.execute(idempotency.insert().values(**asdict(wanted), answer=answer, created_at=now))
