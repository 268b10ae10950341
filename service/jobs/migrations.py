"""What makes tables of an earlier version those of `tables.VERSION`, within one transaction."""

from __future__ import annotations

import sqlalchemy as sa

from service.jobs.tables import feedback, files, jobs, owners


def upgrade(connection: sa.Connection, found: int) -> None:
    """Convert tables of version `found`."""
    if found < 2:
        _add_owners(connection)


def _add_owners(connection: sa.Connection) -> None:
    """Version 2: files, feedback and jobs have an owner, which earlier rows lack."""
    for column in (files.c.owner, feedback.c.owner, jobs.c.owner, jobs.c.feedback_reader):
        kind = column.type.compile(connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
    for table in (files, feedback, jobs):
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    owners.create(connection)
