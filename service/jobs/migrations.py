"""What makes tables of an earlier version those of `tables.VERSION`, within one transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.jobs.tables import feedback, files, jobs, owners


def upgrade(connection: sa.Connection, found: int) -> None:
    """Convert tables of version `found`."""
    if found < 2:
        _add_owners(connection)
    if found < 3:
        _add_columns(connection, files.c.expires_at)
    if found < 4:
        _add_columns(connection, feedback.c.kind)


def _add_owners(connection: sa.Connection) -> None:
    """Version 2: files, feedback and jobs have an owner, which earlier rows lack."""
    _add_columns(connection, files.c.owner, feedback.c.owner, jobs.c.owner, jobs.c.feedback_reader)
    for table in (files, feedback, jobs):
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    owners.create(connection)


def _add_columns(connection: sa.Connection, *columns: sa.Column[Any]) -> None:
    for column in columns:
        kind = column.type.compile(connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
