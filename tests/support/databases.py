"""A real PostgreSQL for tests, where its programs are installed."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import pytest

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs: on PATH, or the newest in Debian's directories."""
    debian = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = sorted(map(str, debian), key=lambda path: float(Path(path).parts[4]))[-1:]
    return shutil.which(name) or next(iter(newest), None)


class Postgres:
    """A server that listens on a socket in a temporary directory."""

    options = "-c listen_addresses= -c max_connections=60"
    trust: tuple[str, ...] = ("-A", "trust")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"

    def run(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, which refuse to run as root."""
        unprivileged = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        options = unprivileged if os.geteuid() == 0 else {}
        command = [program(name), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **options)  # type: ignore[call-overload]

    def init(self) -> None:
        self.run("initdb", "-D", str(self._data), "-U", "sonde", *self.trust, "--no-sync")

    def create(self) -> None:
        """Make the server's files: a copy of those that `initdb` made once in this process."""
        self.run("cp", "--archive", str(Path(_initialised().name) / "data"), str(self._data))

    def start(self) -> None:
        options = f"-k {self._directory} -c fsync=off {self.options}"
        self._control("start", "-l", str(self._directory / "log"), "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        self._control("stop", "-m", mode)

    @contextmanager
    def outage(self, mode: str = "immediate") -> Iterator[None]:
        """Stop for a while: "fast" closes connections in order, "immediate" is like a crash."""
        self.stop(mode)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of the server's processes for a while, as on a host that hangs."""
        parent = int((self._data / "postmaster.pid").read_text().split()[0])
        stopped = [parent]
        try:
            os.kill(parent, signal.SIGSTOP)  # the first, so that it starts no others
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                os.kill(int(child), signal.SIGSTOP)
                stopped.append(int(child))
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://sonde@/{name}?host={self._directory}"

    def _control(self, action: str, *arguments: str) -> None:
        self.run("pg_ctl", action, "-D", str(self._data), "-w", "-s", *arguments)


class PasswordPostgres(Postgres):
    """A server on a loopback port that asks for a password, as one in a container does."""

    def __init__(self, directory: Path, port: int, password: str, options: str) -> None:
        super().__init__(directory)
        password_file = directory / "password"
        password_file.write_text(password)
        self.options = f"-c listen_addresses=127.0.0.1 -p {port} {options}"
        self.trust = ("-A", "scram-sha-256", "--pwfile", str(password_file))

    def create(self) -> None:
        """Make the server's files, with its own password."""
        self.init()


@cache
def _initialised() -> tempfile.TemporaryDirectory[str]:
    """The files of a new server, until this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="sonde-pg-")
    atexit.register(directory.cleanup)
    Path(directory.name).chmod(0o777)
    Postgres(Path(directory.name)).init()
    return directory


@contextmanager
def postgres(make: Callable[[Path], Postgres] = Postgres) -> Iterator[Postgres]:
    """A running server. Skips the test where PostgreSQL is not installed."""
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL is not installed: no {', '.join(missing)}")
    directory = Path(tempfile.mkdtemp(prefix="sonde-pg-"))
    directory.chmod(0o777)
    server = make(directory)
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
