"""What users of a running model report back, and a job's view of it."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from models.training.data.rows import has_visible_text
from service.jobs.database import Database
from service.jobs.tables import feedback

PREFIX = "feedback:"


class Feedback:
    """Rows of feedback."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: str, text: str, label: str | None, correct_label: str) -> tuple[int, float]:
        """Keep a row; its number and time."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            row = {"model": model, "text": text, "label": label, "correct_label": correct_label, "created_at": now}
            added = connection.execute(feedback.insert().values(**row).returning(feedback.c.seq)).scalar_one()
            return added, now

    def newest(self, model: str) -> int | None:
        """The number of a model's newest row, on any of its versions unless one is named; None when it has none."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.max(feedback.c.seq)).where(_on(model))).scalar()

    def export(self, model: str, until: int, path: Path) -> int:
        """Write the rows that `newest` means, up to number `until`, as JSONL of text and label; how many. The last
        word on a text counts.

        Rows in which there is nothing to be seen are left out: nobody could take them back, and no job can use them.
        """
        query = sa.select(feedback.c.text, feedback.c.correct_label).where(_on(model), feedback.c.seq <= until)
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


def _on(model: str) -> sa.ColumnElement[bool]:
    """Rows stored under a name; and, where it names no version, under the name with any, as answers and
    `x-sonde-model` say it.
    """
    stored, start = feedback.c.model, f"{model}:"
    names_version = model.count(":") != (3 if model.startswith("ft:") else 0)
    if names_version:
        return stored == model
    # No LIKE for the name: SQLite's knows no case, and "_" is in names.
    version = sa.func.substr(stored, len(start) + 1)
    return (stored == model) | ((sa.func.substr(stored, 1, len(start)) == start) & version.not_like("%:%"))
