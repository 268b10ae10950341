"""The tables of jobs. Times are seconds since 1970, by the clock that `Database.now` names."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 1  # raised with every change below; Database.migrate brings older ones up

metadata = sa.MetaData()

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
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(255), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("label", sa.String(256)),
    sa.Column("correct_label", sa.String(256), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("status", sa.String(24), nullable=False, index=True),
    sa.Column("control", sa.String(8)),  # what a caller wants of a running job: cancel, pause
    sa.Column("model", sa.String(255), nullable=False),  # the name the caller used
    sa.Column("spec", sa.Text, nullable=False),  # where the base model is, as --model takes it
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),  # of the model to be: ft:base:org:suffix
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("training_file", sa.String(320), nullable=False),
    sa.Column("validation_file", sa.String(320)),
    sa.Column("feedback_until", sa.Integer),  # rows of feedback up to this one, so that every attempt reads the same
    sa.Column("hyperparameters", sa.JSON, nullable=False),
    sa.Column("columns", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON),
    sa.Column("dispatch", sa.Integer, nullable=False),  # how often it was queued
    sa.Column("attempt", sa.Integer, nullable=False),  # how often it was begun; with `lease`, the fencing token
    sa.Column("crashes", sa.Integer, nullable=False),  # attempts that died since the last checkpoint
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
    sa.Column("path", sa.Text, nullable=False),  # below SONDE_HOME
    sa.Column("metrics", sa.JSON, nullable=False),
)

worker_lease = sa.Table(
    "worker_lease",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("worker", sa.String(64), nullable=False),  # the engine's name for the process
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),  # the API key's id: one caller's keys are not another's
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("answer", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
)
