"""Labels that users of a running model correct, as training rows of jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from models.training.data.rows import has_visible_text
from service.jobs.database import Database
from service.jobs.principal import WORKER, Principal, SeenByPrincipal
from service.jobs.quotas import UNLIMITED, Quotas
from service.jobs.records import FeedbackRow
from service.jobs.tables import feedback

MAX_PAGE_CHARACTERS = 16_000_000
# A detector learns from images with these labels alone.
GOOD = frozenset({"good", "normal"})


class FeedbackStore(SeenByPrincipal):
    """The rows of feedback in the database."""

    def __init__(self, database: Database, principal: Principal = WORKER, quotas: Quotas = UNLIMITED) -> None:
        super().__init__(principal)
        self._database = database
        self._quotas = quotas

    def add(
        self, model: str, text: str, label: str | None, correct_label: str, *, kind: str | None = None
    ) -> FeedbackRow:
        """Add a row. Raises QuotaExceeded."""
        with self._database.write() as connection:
            self._quotas.admit(connection, self._principal, "feedback")
            now = self._database.now(connection)
            row = {"model": model, "text": text, "label": label, "correct_label": correct_label, "kind": kind}
            new = feedback.insert().values(**row, created_at=now, owner=self._principal.id)
            number = connection.execute(new.returning(feedback.c.seq)).scalar_one()
        return FeedbackRow(number, now, model, text, label, correct_label, kind)

    def newest(self, model: str, kind: str | None = None) -> int | None:
        """The number of a model's newest row of a kind, on any version unless the name has one; None without rows."""
        query = sa.select(sa.func.max(feedback.c.seq)).where(self._is_visible(model), _is_of(kind))
        with self._database.read() as connection:
            return connection.execute(query).scalar()

    def page(self, model: str, after: int, limit: int) -> tuple[list[FeedbackRow], bool]:
        """A page of a model's rows, oldest first, from those after number `after`, and whether there are more.

        Rows of more than 16 million characters together, such as images, end a page before `limit`.
        """
        following = sa.and_(self._is_visible(model), feedback.c.seq > after)
        sizes = sa.select(feedback.c.seq, sa.func.length(feedback.c.text)).where(following).order_by(feedback.c.seq)
        query = sa.select(*(feedback.c[name] for name in FeedbackRow.__dataclass_fields__)).where(following)
        with self._database.read() as connection:
            rows = connection.execute(sizes.limit(limit + 1)).all()
            totals = accumulate(size for _, size in rows[:limit])
            count = max(1, sum(total <= MAX_PAGE_CHARACTERS for total in totals))
            found = [FeedbackRow(*row) for row in connection.execute(query.order_by(feedback.c.seq).limit(count))]
        return found, len(rows) > count

    def export(
        self, model: str, until: int, path: Path, *, kind: str | None = None, labels: Container[str] | None = None
    ) -> int:
        """Write a model's rows of a kind up to number `until` as JSONL; the number of rows written.

        With `labels`, only rows whose correct label is one of them. Of several rows on one text the last counts. Rows
        without a visible text and label are left out: no job can use them, and callers cannot delete them.
        """
        query = sa.select(feedback.c.text, feedback.c.correct_label).order_by(feedback.c.seq)
        query = query.where(self._is_visible(model), _is_of(kind), feedback.c.seq <= until)
        column, count = kind or "text", 0
        with self._database.read() as connection, path.open("w", encoding="utf-8") as file:
            last = {_digest(text): label for text, label in _usable(connection, query)}
            for text, _ in _usable(connection, query):
                label = last.pop(_digest(text), None)
                if label is not None and (labels is None or label in labels):
                    file.write(json.dumps({column: text, "label": label}, ensure_ascii=False) + "\n")
                    count += 1
        return count

    def _is_visible(self, model: str) -> sa.ColumnElement[bool]:
        return _is_on(model) & self._principal.sees(feedback.c.owner)


def _usable(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[tuple[str, str]]:
    """Text and label of each row with visible ones, some at a time: images of all rows could be gigabytes."""
    for row in connection.execute(query.execution_options(yield_per=100)):
        if has_visible_text(row.text) and has_visible_text(row.correct_label):
            yield row.text, row.correct_label


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _is_of(kind: str | None) -> sa.ColumnElement[bool]:
    return feedback.c.kind.is_(None) if kind is None else feedback.c.kind == kind


def _is_on(model: str) -> sa.ColumnElement[bool]:
    """Whether a row is on a model; a name without a version matches all versions, as `x-sonde-model` names them."""
    stored, start = feedback.c.model, f"{model}:"
    names_version = model.count(":") != (3 if model.startswith("ft:") else 0)
    if names_version:
        return stored == model
    # Not LIKE: SQLite's ignores case, and names contain "_".
    version = sa.func.substr(stored, len(start) + 1)
    return (stored == model) | ((sa.func.substr(stored, 1, len(start)) == start) & version.not_like("%:%"))
