"""The tables of jobs; times are seconds since 1970, by the clock of `Database.now`."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 4  # raise it with every change of a table, and have `migrations` convert older ones

metadata = sa.MetaData()


def _owner_column() -> sa.Column[str]:
    """The id of the API key that made a row; NULL in rows from before version 2."""
    return sa.Column("owner", sa.String(64), index=True)


schema_version = sa.Table(
    "sonde_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("filename", sa.String(255), nullable=False),  # the caller's; shown, and never part of a path
    sa.Column("format", sa.String(16), nullable=False),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53)),
    _owner_column(),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(255), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),  # or an image as a data URI
    sa.Column("kind", sa.String(8)),  # NULL is a text
    sa.Column("label", sa.String(256)),
    sa.Column("correct_label", sa.String(256), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    _owner_column(),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("status", sa.String(24), nullable=False, index=True),
    sa.Column("control", sa.String(8)),  # what a caller asks of a running job: cancel, pause
    sa.Column("model", sa.String(255), nullable=False, key="base"),  # the base model's name
    sa.Column("spec", sa.Text, nullable=False, key="base_spec"),  # where the base model is, as --model takes it
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),  # of the model to train: ft:base:org:suffix
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("training_file", sa.String(320), nullable=False),
    sa.Column("validation_file", sa.String(320)),
    sa.Column("feedback_until", sa.Integer),  # the last row of feedback to read, so that every attempt reads the same
    sa.Column("feedback_reader", sa.String(64)),  # the key whose rows of feedback to read; NULL reads those of all
    sa.Column("hyperparameters", sa.JSON, nullable=False),
    sa.Column("columns", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON),
    sa.Column("dispatch", sa.Integer, nullable=False, default=1),  # unread; workers that used DBOS numbered queueings
    sa.Column("attempt", sa.Integer, nullable=False, default=0),  # of attempts begun; with `lease`, the fencing token
    sa.Column("crashes", sa.Integer, nullable=False, default=0),  # attempts that died since the last checkpoint
    sa.Column("lease", sa.String(64)),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("estimated_finish", sa.Float(53)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("error_param", sa.Text),
    sa.Column("fine_tuned_model", sa.String(320)),
    sa.Column("trained_tokens", sa.BigInteger),
    sa.Column("result", sa.JSON),  # version, metrics, promoted or held and why
    _owner_column(),
)

owners = sa.Table(
    "owners",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # the API key's id; empty for jobs without an owner
    sa.Column("last_attempt_at", sa.Float(53), nullable=False),  # when an attempt at one of its jobs last began
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String(64), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("type", sa.String(8), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", sa.JSON),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String(64), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("path", sa.Text, nullable=False),  # relative to SONDE_HOME
    sa.Column("metrics", sa.JSON, nullable=False),
)

worker_lease = sa.Table(
    "worker_lease",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("worker", sa.String(64), nullable=False),  # the process's name: host, pid and a random part
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),  # the API key's id, so that two callers may use the same key
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("answer", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
)
