"""Labels that users of a running model correct, as training rows of jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from models.training.data.rows import has_visible_text
from service.jobs.database import Database
from service.jobs.principal import WORKER, Principal, SeenByPrincipal
from service.jobs.quotas import UNLIMITED, Quotas
from service.jobs.tables import feedback

PREFIX = "feedback:"


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A report as it came; `seq` is its number."""

    seq: int
    created_at: float
    model: str
    text: str
    label: str | None
    correct_label: str


class Feedback(SeenByPrincipal):
    """The rows of feedback in the database."""

    def __init__(self, database: Database, principal: Principal = WORKER, quotas: Quotas = UNLIMITED) -> None:
        super().__init__(principal)
        self._database = database
        self._quotas = quotas

    def add(self, model: str, text: str, label: str | None, correct_label: str) -> tuple[int, float]:
        """Add a row; its number and time. Raises QuotaExceeded."""
        with self._database.write() as connection:
            self._quotas.admit(connection, self._principal, "feedback")
            now = self._database.now(connection)
            row = {"model": model, "text": text, "label": label, "correct_label": correct_label, "created_at": now}
            new = feedback.insert().values(**row, owner=self._principal.id)
            return connection.execute(new.returning(feedback.c.seq)).scalar_one(), now

    def newest(self, model: str) -> int | None:
        """The number of a model's newest row, on any version unless the name has one; None without rows."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.max(feedback.c.seq)).where(self._is_visible(model))).scalar()

    def page(self, model: str, after: int, limit: int) -> tuple[list[FeedbackRow], bool]:
        """A page of a model's rows, oldest first, from those after number `after`, and whether there are more."""
        query = sa.select(*(feedback.c[name] for name in FeedbackRow.__dataclass_fields__))
        query = query.where(self._is_visible(model), feedback.c.seq > after).order_by(feedback.c.seq)
        with self._database.read() as connection:
            found = [FeedbackRow(*row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit

    def export(self, model: str, until: int, path: Path) -> int:
        """Write a model's rows up to number `until` as JSONL of text and label; the number of rows written.

        Of several rows on one text the last counts. Rows without a visible text and label are left out: no job can
        use them, and callers cannot delete them.
        """
        query = sa.select(feedback.c.text, feedback.c.correct_label)
        query = query.where(self._is_visible(model), feedback.c.seq <= until)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(feedback.c.seq)).all()
        rows = {
            row.text: row.correct_label
            for row in found
            if has_visible_text(row.text) and has_visible_text(row.correct_label)
        }
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows.items()]
        path.write_text("".join(lines), encoding="utf-8")
        return len(rows)

    def _is_visible(self, model: str) -> sa.ColumnElement[bool]:
        return _is_on(model) & self._principal.sees(feedback.c.owner)


def _is_on(model: str) -> sa.ColumnElement[bool]:
    """Whether a row is on a model; a name without a version matches all versions, as `x-sonde-model` names them."""
    stored, start = feedback.c.model, f"{model}:"
    names_version = model.count(":") != (3 if model.startswith("ft:") else 0)
    if names_version:
        return stored == model
    # Not LIKE: SQLite's ignores case, and names contain "_".
    version = sa.func.substr(stored, len(start) + 1)
    return (stored == model) | ((sa.func.substr(stored, 1, len(start)) == start) & version.not_like("%:%"))
