"""The tables, outages and refusals of both databases, and homes of earlier versions."""

from __future__ import annotations

import sqlite3
import tarfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from service.errors import ConfigError, StorageFull, Unavailable
from service.jobs.database import Database, engine_url
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.leases import WorkerLeases
from service.jobs.principal import Principal
from service.jobs.store import JobStore
from service.jobs.tables import VERSION, jobs, metadata, schema_version
from tests.support.databases import Postgres, postgres
from tests.support.jobs import claim_job, create_job

OLD_HOME = Path(__file__).parents[2] / "data" / "home-0.1.0.tar.xz"


def test_concurrent_migrations_make_the_tables_once(database: Database, tmp_path: Path) -> None:
    with database.write() as connection:
        metadata.drop_all(connection)
    threads = [threading.Thread(target=database.migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(sa.select(schema_version.c.version)).scalars().all() == [VERSION]


def test_jobs_of_a_home_whose_queue_was_dbos_are_claimed(tmp_path: Path) -> None:
    """`home_of_dbos.sql` is the `sonde.sqlite` of such a version, with a killed worker's job and two that wait."""
    with closing(sqlite3.connect(tmp_path / "sonde.sqlite")) as connection:
        connection.executescript(Path(__file__).with_name("home_of_dbos.sql").read_text())
    (queue := tmp_path / "queue.sqlite").write_bytes(b"DBOS's")
    with closing(Database("", tmp_path)) as database:
        store, leases = JobStore(database, tmp_path), WorkerLeases(database, 15.0)
        store.migrate()
        create_job(store)
        claimed = [claim_job(store, leases) for _ in range(4)]
        ids = [(job.id, job.attempt, job.base) for job in claimed]
    old = [("ftjob-lost", 2, "sensors"), ("ftjob-older", 1, "sensors"), ("ftjob-younger", 1, "sensors")]
    assert ids == [*old, ("ftjob-1", 1, "fake")]
    assert queue.read_bytes() == b"DBOS's"


def shape(database: Database) -> dict[str, tuple[set[str], set[str]]]:
    """The columns and indexes of each table."""
    with database.read() as connection:
        found = sa.inspect(connection)
        return {
            table: (
                {column["name"] for column in found.get_columns(table)},
                {str(index["name"]) for index in found.get_indexes(table)},
            )
            for table in found.get_table_names()
        }


def to_version_1(database: Database) -> None:
    """Make the tables those of 0.1.0."""
    with database.write() as connection:
        for table in ("files", "feedback", "jobs"):
            connection.execute(sa.text(f"DROP INDEX ix_{table}_owner"))
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN owner"))
        connection.execute(sa.text("ALTER TABLE files DROP COLUMN expires_at"))
        connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN feedback_reader"))
        connection.execute(sa.text("ALTER TABLE feedback DROP COLUMN kind"))
        connection.execute(sa.text("DROP TABLE owners"))
        connection.execute(schema_version.update().values(version=1))


def test_rows_of_version_1_are_kept_without_an_owner(database: Database, tmp_path: Path) -> None:
    principal = Principal("key-1")
    store, uploads = JobStore(database, tmp_path), Files(database, tmp_path, 100, principal)
    labels = FeedbackStore(database, principal)
    with uploads.receive() as incoming:
        incoming.write(b"x")
        file = uploads.keep(incoming, "rows.csv", "fine-tune")
    labels.add("m", "text", None, "a")
    job = create_job(store, owner="key-1")
    fresh = shape(database)
    to_version_1(database)
    threads = [threading.Thread(target=database.migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shape(database) == fresh
    assert uploads.get(file.id) == replace(file, owner=None)
    assert store.get("ftjob-1") == replace(job, owner=None)
    assert labels.newest("m") == 1
    assert create_job(store, 2, owner="key-2").owner == "key-2"


def test_the_tables_of_0_1_0_become_those_of_this_version(tmp_path: Path) -> None:
    with tarfile.open(OLD_HOME) as archive:
        archive.extract("home/sonde.sqlite", tmp_path, filter="data")
    with closing(Database("", tmp_path / "home")) as old, closing(Database("", tmp_path)) as fresh:
        old.migrate()
        fresh.migrate()
        assert shape(old) == shape(fresh)
        assert [job.owner for job in JobStore(old, tmp_path / "home").page(None, 10)[0]] == [None] * 5


@pytest.mark.slow
def test_tables_and_jobs_of_0_1_0_on_postgresql_are_kept(postgresql: Postgres, tmp_path: Path) -> None:
    """The home's tables and rows are copied to PostgreSQL as they are, then migrated."""
    with tarfile.open(OLD_HOME) as archive:
        archive.extract("home/sonde.sqlite", tmp_path, filter="data")
    source = sa.create_engine(f"sqlite:///{tmp_path}/home/sonde.sqlite")
    with ExitStack() as stack:
        old, fresh = (stack.enter_context(closing(Database(postgresql.new_database(), tmp_path))) for _ in range(2))
        tables = sa.MetaData()
        with source.connect() as home, old.write() as connection:
            tables.reflect(home)
            assert "owner" not in tables.tables["jobs"].c, "these are not the tables of 0.1.0"
            tables.create_all(connection)
            for table in tables.sorted_tables:
                for row in home.execute(sa.select(table)).mappings():
                    connection.execute(table.insert().values(**row))
            before = {row.id: row for row in home.execute(sa.select(tables.tables["jobs"]))}
        source.dispose()
        old.migrate()
        fresh.migrate()
        assert shape(old) == shape(fresh)
        store = JobStore(old, tmp_path / "home")
        kept = store.page(None, 10)[0]
        assert {job.id: (job.name, job.status, job.owner) for job in kept} == {
            id: (row.name, row.status, None)
            for id, row in before.items()  # noqa: A001
        }
        queued = [job.id for job in kept if job.status == "queued"]
        assert [claim_job(store, WorkerLeases(old, 15.0)).id] == queued


def test_tables_of_a_later_version_are_left_alone(database: Database) -> None:
    with database.write() as connection:
        connection.execute(schema_version.update().values(version=VERSION + 1))
    with pytest.raises(ConfigError, match="use a newer one"):
        database.migrate()


@pytest.mark.parametrize("url", ["mysql://x/y", "redis://", "x"])
def test_another_database_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://"):
        engine_url(url, tmp_path)


@pytest.mark.slow
def test_a_transaction_that_stands_still_does_not_keep_others_out(tmp_path: Path) -> None:
    with postgres() as server, ExitStack() as stack:
        url = server.new_database()
        frozen, alive = (stack.enter_context(closing(Database(url, tmp_path))) for _ in range(2))
        frozen.migrate()
        lock = sa.select(schema_version.c.version).with_for_update()

        def hold() -> None:
            with frozen.write() as connection:
                connection.execute(lock)
                with alive.write() as other:
                    assert other.execute(lock).scalar_one()
                connection.execute(lock)

        with pytest.raises(Unavailable):
            hold()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "lock_timeout", "idle"), [("", "4s", "5s"), ("&options=-c%20lock_timeout%3D9s", "9s", "0")]
)
def test_options_of_the_urls_own_are_kept(
    postgresql: Postgres, tmp_path: Path, query: str, lock_timeout: str, idle: str
) -> None:
    with closing(Database(postgresql.new_database() + query, tmp_path, 4.0)) as database, database.read() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        ]
    assert shown == [lock_timeout, idle]


@pytest.mark.slow
def test_a_database_that_is_away_is_unavailable_and_comes_back(tmp_path: Path) -> None:
    with postgres() as server:
        database = Database(server.new_database(), tmp_path)
        database.migrate()
        store = JobStore(database, tmp_path)
        create_job(store)
        server.stop()
        with pytest.raises(Unavailable) as away:
            store.get("ftjob-1")
        assert away.value.retry_after_s == 2
        server.start()
        began = time.monotonic()
        assert store.get("ftjob-1").status == "queued"
        assert time.monotonic() - began < 5
        database.close()


def test_a_sqlite_file_that_was_away_is_found_again_by_all_connections(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    store = JobStore(database, tmp_path)
    create_job(store, 1)
    (away := tmp_path / "away").mkdir()
    for file in list(tmp_path.glob("sonde.sqlite*")):
        file.rename(away / file.name)
    with database.read(), pytest.raises(Unavailable):  # two connections, the second of them to a new and empty file
        store.get("ftjob-1")
    for file in away.iterdir():
        file.rename(tmp_path / file.name)
    with database.read() as connection:
        assert store.get("ftjob-1").status == "queued"
        assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() == 1
    database.close()


@pytest.mark.slow
def test_a_database_that_only_lets_read_is_unavailable(postgresql: Postgres, tmp_path: Path) -> None:
    """As a standby is until it takes over."""
    url = postgresql.new_database()
    with closing(Database(url, tmp_path)) as database:
        database.migrate()
    with closing(Database(f"{url}&options=-c%20default_transaction_read_only%3Don", tmp_path)) as database:
        store = JobStore(database, tmp_path)
        assert store.page(None, 10) == ([], False)
        with pytest.raises(Unavailable):
            create_job(store)


@pytest.mark.parametrize(
    ("wrapper", "error", "told"),
    [
        (OperationalError, psycopg.errors.DiskFull("no room"), StorageFull),
        (OperationalError, psycopg.OperationalError("gone"), Unavailable),
        (DBAPIError, psycopg.errors.ReadOnlySqlTransaction("a standby"), Unavailable),
        (DBAPIError, psycopg.errors.UniqueViolation("twice"), DBAPIError),
    ],
)
def test_postgresqls_errors_are_told_apart(
    tmp_path: Path, wrapper: type[DBAPIError], error: psycopg.Error, told: type[Exception]
) -> None:
    with closing(Database("", tmp_path)) as database, pytest.raises(told), database.write():
        raise wrapper("INSERT", {}, error)


def test_a_full_disk_is_storage_full(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    store = JobStore(database, tmp_path)
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with database.read() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for number in range(1000):
            create_job(store, number, hyperparameters={"x": "y" * 5000})

    with pytest.raises(StorageFull):
        fill()
    database.close()
