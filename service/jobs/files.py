"""Uploaded files: streamed to disk under ids of our own, hashed on the way, complete or not there at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from models.filesystem import is_full
from service.errors import BodyTooLarge, FileInUse, FileMissing, InvalidRequest, StorageFull
from service.jobs.database import Database
from service.jobs.records import TERMINAL
from service.jobs.tables import files, jobs

FORMATS = ("jsonl", "csv", "parquet")
_LONGEST_NAME = 255
_PREFIX, _INCOMING = "file-", ".incoming-"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file; `filename` is what the caller called it."""

    id: str
    filename: str
    format: str
    purpose: str
    bytes: int
    sha256: str
    created_at: float


class Files:
    """The files in `home/files`, and their rows."""

    def __init__(self, database: Database, home: Path, most_bytes: int) -> None:
        self._database = database
        self._directory = home / "files"
        self.most_bytes = most_bytes

    def receive(self) -> Incoming:
        """A new file, to be written to. Raises StorageFull."""
        with _space():
            self._directory.mkdir(parents=True, exist_ok=True)
            return Incoming(self._directory, self.most_bytes)

    def keep(self, incoming: Incoming, filename: str, purpose: str) -> StoredFile:
        """Give a received file an id. Raises InvalidRequest for a name without a known ending, or an empty file."""
        form = format_of(filename)
        if incoming.bytes == 0:
            raise InvalidRequest("file: expected at least one row, got an empty file", param="file")
        new = _PREFIX + secrets.token_hex(12)
        with self._unsettled(self._place(new, form)):
            with _space():
                incoming.close()
                incoming.path.replace(self._place(new, form))
            row = {"id": new, "filename": filename[-_LONGEST_NAME:], "format": form, "purpose": purpose}
            try:
                with self._database.write() as connection:
                    now = self._database.now(connection)
                    connection.execute(
                        files.insert().values(**row, bytes=incoming.bytes, sha256=incoming.digest, created_at=now)
                    )
            except BaseException:
                self._place(new, form).unlink(missing_ok=True)
                raise
        return self.get(new)

    def get(self, file: str) -> StoredFile:
        """A file by its id. Raises FileMissing."""
        with self._database.read() as connection:
            return _stored(self._row(connection, file))

    def path(self, file: str) -> Path:
        """Where a file's bytes are. Raises FileMissing, also where but its row is left."""
        found = self.get(file)
        path = self._place(found.id, found.format)
        if not path.is_file():
            raise FileMissing(f"the bytes of {file} are gone", param="file_id")
        return path

    def page(
        self, after: str | None, limit: int, purpose: str | None, *, newest_first: bool = True
    ) -> tuple[list[StoredFile], bool]:
        """Files, those after `after` where it is given, and whether there are more."""
        with self._database.read() as connection:
            query = sa.select(files).order_by(files.c.seq.desc() if newest_first else files.c.seq)
            if purpose is not None:
                query = query.where(files.c.purpose == purpose)
            if after is not None:
                at = self._row(connection, after).seq
                query = query.where(files.c.seq < at if newest_first else files.c.seq > at)
            found = [_stored(row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit

    def delete(self, file: str) -> None:
        """Remove a file. Raises FileInUse while a job that is not finished needs it."""
        found = self.get(file)
        place = self._place(found.id, found.format)
        with self._unsettled(place):
            with self._database.write() as connection:
                self._row(connection, file)  # it may have been deleted since
                needs = (jobs.c.training_file == file) | (jobs.c.validation_file == file)
                user = connection.execute(sa.select(jobs.c.id).where(needs, jobs.c.status.notin_(TERMINAL))).first()
                if user is not None:
                    raise FileInUse(f"{file} is needed by {user.id}: cancel that job first", param="file_id")
                connection.execute(files.delete().where(files.c.id == file))
            place.unlink(missing_ok=True)

    def remove_stale_uploads(self, older_than_s: float, now: float) -> None:
        """Remove what uploads that never ended have left behind, and what processes that died while they kept or
        deleted a file have.
        """
        for path in self._directory.glob(f"{_INCOMING}*"):
            if _modified(path) < now - older_than_s:
                if (unsettled := path.name.removeprefix(_INCOMING)).startswith(_PREFIX):
                    self._settle(self._directory / unsettled)
                path.unlink(missing_ok=True)

    @contextmanager
    def _unsettled(self, place: Path) -> Iterator[None]:
        """Leave a mark while a file and its row do not come or go together, for `remove_stale_uploads` to find if
        this process dies meanwhile.
        """
        mark = place.with_name(f"{_INCOMING}{place.name}")
        with suppress(OSError):  # a full disk keeps nobody from deleting
            mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _settle(self, place: Path) -> None:
        """Remove a file that has no row."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(files.c.id).where(files.c.id == place.stem)).first()
        if row is None:
            place.unlink(missing_ok=True)

    def _row(self, connection: sa.Connection, file: str) -> sa.Row[Any]:
        row = connection.execute(sa.select(files).where(files.c.id == file)).first()
        if row is None:
            raise FileMissing(f"no file {file[:100]!r}", param="file_id")
        return row

    def _place(self, file: str, form: str) -> Path:
        return self._directory / f"{file}.{form}"


class Incoming:
    """A file that is being received; `discard`, or leaving the `with`, removes what `Files.keep` has not taken."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self.path = directory / f"{_INCOMING}{secrets.token_hex(12)}"
        self._stream = self.path.open("xb")
        self._hash = hashlib.sha256()
        self._most_bytes = most_bytes
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append. Raises BodyTooLarge at the first byte too many, and StorageFull."""
        if self.bytes + len(chunk) > self._most_bytes:
            raise BodyTooLarge(f"a file may have {self._most_bytes} bytes", param="file")
        with _space():
            self._stream.write(chunk)
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def close(self) -> None:
        """Have the disk hold all of it."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove what was received, unless `Files.keep` has taken it."""
        try:
            self._stream.close()
        except OSError as problem:  # the last bytes did not fit, either; the file goes anyway
            if not is_full(problem):
                raise
        finally:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class _space:  # noqa: N801  # reads as a statement
    """Turns "no space left" into StorageFull."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_full(error):
            raise StorageFull("no space is left for files") from error


def format_of(filename: str) -> str:
    """The format by the name's ending. Raises InvalidRequest."""
    ending = filename.rpartition(".")[2].lower()
    if "." not in filename or ending not in FORMATS:
        raise InvalidRequest(
            f"file: expected a name that ends in .jsonl, .csv or .parquet, got {filename[-100:]!r}", param="file"
        )
    return ending


def _modified(path: Path) -> float:
    """When a file was last written; never, for one that has gone meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _stored(row: sa.Row[Any]) -> StoredFile:
    return StoredFile(row.id, row.filename, row.format, row.purpose, row.bytes, row.sha256, row.created_at)
