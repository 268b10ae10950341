"""The database of jobs: a SQLite file by default, else PostgreSQL by its URL."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import ConfigError, InvalidRequest, StorageFull, Unavailable
from service.jobs.call_deadline import RETRY_AFTER_S, require_time
from service.jobs.migrations import upgrade
from service.jobs.tables import VERSION, metadata, schema_version

log = logging.getLogger(__name__)

_FILE = "sonde.sqlite"
_CONNECT_TIMEOUT_S = 3
# A worker that is stopped within a transaction (SIGSTOP, a frozen virtual machine) would keep its locks for ever.
_ABANDONED_AFTER_S = 5
_MIGRATION_LOCK = 0x50DDE  # any number, the same in every process
_LIMIT_S = 5.0
# PostgreSQL's codes of errors (SQLSTATE).
_DISK_FULL, _READ_ONLY = "53100", "25006"

# Raised by reads and writes while the database cannot do them; it may be able to later.
DATABASE_UNAVAILABLE = (Unavailable, StorageFull)


class Database:
    """Transactions on the tables. Raises Unavailable while the database is away, and works again once it is back.

    A database that hangs counts as away after `limit_s`: each wait for a lock or for the server takes at most that.
    """

    def __init__(self, url: str, home: Path, limit_s: float = _LIMIT_S) -> None:
        """`url` is empty for SQLite in `home`, else `postgresql://…` or `sqlite:///…`. The first use connects."""
        self.url = engine_url(url, home)
        self.embedded = self.url.startswith("sqlite")
        self._file = Path(make_url(self.url).database or "") if self.embedded else None
        self._engine = _sqlite(self.url, limit_s) if self.embedded else _postgres(self.url, limit_s)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that locks: all of SQLite at once, in PostgreSQL the rows that are selected `FOR UPDATE`."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and never waits for writers."""
        with self._transaction(self._engine.execution_options(sonde_reads=True)) as connection:
            yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970: by the server's clock in PostgreSQL, since hosts may differ, else by this host's."""
        if self.embedded:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def migrate(self) -> None:
        """Create the tables or bring them up to date. Safe at any time, from several processes at once.

        Raises ConfigError when a later version of this program made the tables.
        """
        if self._file is not None:
            with suppress(OSError):  # SQLite itself then reports what is wrong
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file.touch(mode=0o600)  # SQLite gives the files beside it the same mode
        with self.write() as connection:
            take_lock(connection, _MIGRATION_LOCK)
            schema_version.create(connection, checkfirst=True)
            found = connection.execute(sa.select(schema_version.c.version)).scalar()
            if found is not None and found > VERSION:
                raise ConfigError(
                    f"the database has tables of version {found}, this program knows {VERSION}: use a newer one"
                )
            if found is None:
                metadata.create_all(connection)
                connection.execute(schema_version.insert().values(version=VERSION))
            elif found < VERSION:
                upgrade(connection, found)
                connection.execute(schema_version.update().values(version=VERSION))
                log.info("the tables of jobs were converted from version %d to %d", found, VERSION)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            require_time()
            with engine.begin() as connection:
                yield connection
                require_time()  # the caller has been told that this failed, so it must not be committed now
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            if self.embedded:  # if the file was away, open connections are to a new and empty one
                self._engine.dispose()
            if "disk is full" in str(error) or _sqlstate(error) == _DISK_FULL:
                raise StorageFull("no space is left for the database of jobs") from error
            raise Unavailable("the database of jobs does not answer", retry_after_s=RETRY_AFTER_S) from error
        except DataError as error:  # for instance NUL in an id, which SQLite does not find and PostgreSQL refuses
            raise InvalidRequest("a text or number that the database cannot hold") from error
        except DBAPIError as error:
            standby = _sqlstate(error) == _READ_ONLY  # it is about to take over
            if error.connection_invalidated or standby:
                raise Unavailable("the database of jobs went away", retry_after_s=RETRY_AFTER_S) from error
            raise


def _sqlstate(error: Exception) -> str | None:
    """PostgreSQL's code of an error that SQLAlchemy wraps."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def take_lock(connection: sa.Connection, lock: int) -> None:
    """Have transactions that take the same lock follow each other. SQLite's that write do so by themselves."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


def engine_url(url: str, home: Path) -> str:
    """The URL as SQLAlchemy takes it. Raises ConfigError for other databases than the two."""
    if not url:
        return f"sqlite:///{(home / _FILE).absolute()}"
    scheme, _, rest = url.partition("://")
    if scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite":
        return url
    raise ConfigError(f"--database-url: expected postgresql://… or sqlite:///…, got {scheme}://…", param="database_url")


def _sqlite(url: str, limit_s: float) -> sa.Engine:
    engine = sa.create_engine(url, pool_timeout=limit_s, connect_args={"timeout": limit_s, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # Python's own BEGIN comes too late and never locks
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("sonde_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgres(url: str, limit_s: float) -> sa.Engine:
    # Imported here because it loads psycopg, which SQLite does not need.
    from service.jobs.limited_connection import LimitedConnection

    pool = {"pool_pre_ping": True, "pool_size": 5, "max_overflow": 5, "pool_timeout": limit_s}
    engine = sa.create_engine(url, **pool, connect_args=_connect_arguments(url, limit_s))

    @sa.event.listens_for(engine, "do_connect")
    def on_connect(dialect: object, record: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        connection = LimitedConnection.connect(*arguments, **parameters)
        connection.limit_s = limit_s + 1  # a server that works ends the statement itself
        return connection

    return engine


def _connect_arguments(url: str, limit_s: float) -> dict[str, Any]:
    """Limits of libpq, the kernel and the server; what the URL sets itself stays as it is."""
    limit_ms = round(limit_s * 1000)
    server = {
        "idle_in_transaction_session_timeout": _ABANDONED_AFTER_S * 1000,
        "statement_timeout": limit_ms,
        "lock_timeout": limit_ms,
    }
    arguments = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": limit_ms,
        "options": " ".join(f"-c {name}={value}ms" for name, value in server.items()),
    }
    return {name: value for name, value in arguments.items() if name not in make_url(url).query}
