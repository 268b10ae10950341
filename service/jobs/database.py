"""One database of jobs: SQLite in a file by default, PostgreSQL by its URL; short transactions; one owner of the
schema.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import ConfigError, InvalidRequest, StorageFull, Unavailable
from service.jobs.tables import VERSION, metadata, schema_version

_BUSY_TIMEOUT_S = 5
_CONNECT_TIMEOUT_S = 3
# A worker that is stopped (SIGSTOP, a frozen virtual machine) within a transaction would keep its locks from everybody
# for ever.
_ABANDONED_AFTER_S = 5
_MIGRATION_LOCK = 0x50DDE  # any number, the same everywhere
_RETRY_AFTER_S = 2

# What reading and writing raise while the database cannot do it, and may again.
DATABASE_UNAVAILABLE = (Unavailable, StorageFull)


class Database:
    """Transactions on the tables. Raises Unavailable while the database is away, and works again once it is back."""

    def __init__(self, url: str, home: Path) -> None:
        """`url` is empty for SQLite in `home`, else `postgresql://…` or `sqlite:///…`. Nothing is opened before the
        first use.
        """
        self.url = engine_url(url, home)
        self.embedded = self.url.startswith("sqlite")
        self._directory = Path(make_url(self.url).database or "").parent if self.embedded else None
        self._engine = _sqlite(self.url) if self.embedded else _postgres(self.url)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that holds what it has read: SQLite locks at once, PostgreSQL rows that are asked for `FOR
        UPDATE`.
        """
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and never waits for writers."""
        with self._transaction(self._engine.execution_options(sonde_reads=True)) as connection:
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970: the server's clock where several hosts may differ, this host's where there is but one."""
        if self.embedded:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def migrate(self) -> None:
        """Create the tables or bring them up to date. Safe at any time, from several processes at once.

        Raises ConfigError when the tables are of a later version than this program's.
        """
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
        with self.write() as connection:
            if not self.embedded:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            schema_version.create(connection, checkfirst=True)
            found = connection.execute(sa.select(schema_version.c.version)).scalar()
            if found is not None and found > VERSION:
                raise ConfigError(
                    f"the database has tables of version {found}, this program knows {VERSION}: use a newer one"
                )
            if found is None:
                metadata.create_all(connection)
                connection.execute(schema_version.insert().values(version=VERSION))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            if self.embedded:  # the file may have been away, and what was opened meanwhile is an empty one
                self._engine.dispose()
            if "disk is full" in str(error) or isinstance(getattr(error, "orig", None), psycopg.errors.DiskFull):
                raise StorageFull("no space is left for the database of jobs") from error
            raise Unavailable("the database of jobs does not answer", retry_after_s=_RETRY_AFTER_S) from error
        except DataError as error:  # NUL in an id, say: SQLite finds none such, PostgreSQL refuses to look
            raise InvalidRequest("a text or number that the database cannot hold") from error
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(
                error.orig, psycopg.errors.ReadOnlySqlTransaction
            ):  # a standby takes over
                raise Unavailable("the database of jobs went away", retry_after_s=_RETRY_AFTER_S) from error
            raise


def engine_url(url: str, home: Path, name: str = "sonde.sqlite") -> str:
    """The URL as SQLAlchemy takes it. Raises ConfigError for databases other than the two."""
    if not url:
        return f"sqlite:///{(home / name).absolute()}"
    scheme, _, rest = url.partition("://")
    if scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
        return _ending_abandoned_transactions(f"postgresql+psycopg://{rest}")
    if scheme == "sqlite":
        return url
    raise ConfigError(f"--database-url: expected postgresql://… or sqlite:///…, got {scheme}://…", param="database_url")


def _ending_abandoned_transactions(url: str) -> str:
    """The URL with a server-side limit on transactions in which nothing happens, unless it sets options of its own."""
    read = make_url(url)
    if "options" in read.query:
        return url
    options = {"options": f"-c idle_in_transaction_session_timeout={_ABANDONED_AFTER_S}s"}
    return read.update_query_dict(options).render_as_string(hide_password=False)


def _sqlite(url: str) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # Python's own BEGIN comes too late and never locks
        for pragma in ("journal_mode=WAL", f"busy_timeout={_BUSY_TIMEOUT_S * 1000}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("sonde_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgres(url: str) -> sa.Engine:
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=5,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
    )
