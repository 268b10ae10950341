"""Databases for tests of jobs: SQLite in a directory, and a real PostgreSQL where its programs are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def program(name: str) -> str | None:
    """Where one of PostgreSQL's programs is: on PATH, or where Debian keeps those of each version."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]), reverse=True
    )
    return shutil.which(name) or next(map(str, debian), None)


class Postgres:
    """A server of our own, on a socket in a temporary directory."""

    options = "-c listen_addresses= -c max_connections=60"
    trust: tuple[str, ...] = ("-A", "trust")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"

    def run(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, which refuse to be root."""
        as_somebody = (
            {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        command = [program(name), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_somebody)  # type: ignore[call-overload]

    def init(self) -> None:
        self.run("initdb", "-D", str(self._data), "-U", "sonde", *self.trust, "--no-sync")

    def start(self) -> None:
        options = f"-k {self._directory} -c fsync=off {self.options}"
        self.run(
            "pg_ctl", "-D", str(self._data), "-w", "-s", "-l", str(self._directory / "log"), "-o", options, "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self._data), "-w", "-s", "-m", mode, "stop")

    @contextmanager
    def away(self, mode: str = "immediate") -> Iterator[None]:
        """Stop for a while: "fast" tells those who are connected, "immediate" is as good as a crash."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://sonde@/{name}?host={self._directory}"


class ByPassword(Postgres):
    """A server that listens on a port of loopback and asks for a password, as one in a container does."""

    def __init__(self, directory: Path, port: int, password: str, options: str) -> None:
        super().__init__(directory)
        known = directory / "password"
        known.write_text(password)
        self.options = f"-c listen_addresses=127.0.0.1 -p {port} {options}"
        self.trust = ("-A", "scram-sha-256", "--pwfile", str(known))


@contextmanager
def postgres(make: Callable[[Path], Postgres] = Postgres) -> Iterator[Postgres]:
    """A running server; the test is skipped where PostgreSQL is not installed."""
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL is not installed: no {', '.join(missing)}")
    directory = Path(tempfile.mkdtemp(prefix="sonde-pg-"))
    directory.chmod(0o777)
    server = make(directory)
    try:
        server.init()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
