"""Uploaded files: streamed to disk under ids of our own and hashed on the way, complete or absent."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from models.filesystem import is_full
from service.errors import BodyTooLarge, FileInUse, FileMissing, InvalidRequest, StorageFull
from service.jobs.database import Database
from service.jobs.incoming_bytes import IncomingBytes
from service.jobs.principal import WORKER, Principal, SeenByPrincipal
from service.jobs.quotas import UNLIMITED, Quotas, Used
from service.jobs.records import TERMINAL, from_row
from service.jobs.tables import files, jobs

FORMATS = ("jsonl", "csv", "parquet", "xlsx", "zip")
_LONGEST_NAME = 255
_PREFIX, _INCOMING = "file-", ".incoming-"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file; `filename` is the caller's, `owner` its API key's id (None: from before owners).

    After `expires_at`, in Unix seconds, it is gone; None keeps it.
    """

    id: str
    filename: str
    format: str
    purpose: str
    bytes: int
    sha256: str
    created_at: float
    owner: str | None
    expires_at: float | None


class Files(SeenByPrincipal):
    """The files in `home/files`, and their rows."""

    def __init__(
        self, database: Database, home: Path, max_bytes: int, principal: Principal = WORKER, quotas: Quotas = UNLIMITED
    ) -> None:
        super().__init__(principal)
        self._database = database
        self._directory = home / "files"
        self._max_bytes = max_bytes
        self._quotas = quotas
        self._incoming = IncomingBytes()

    def require_room(self) -> Used:
        """The bytes that are used. Raises QuotaExceeded when not even an empty file has room."""
        with self._database.read() as connection:
            used = self._quotas.used(connection, self._principal, "bytes")
        self._count_incoming(used, 0)
        return used

    def receive(self, used: Used | None = None) -> IncomingFile:
        """Open a new file to write to. Raises StorageFull and QuotaExceeded.

        `used` is what `require_room` gave, so that only the disk is needed. Writing raises QuotaExceeded once all
        uploads of this process no longer fit beside it.
        """
        count = partial(self._count_incoming, self.require_room() if used is None else used)
        with _naming_full_disk():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return IncomingFile(self._directory, self._max_bytes, count)

    def keep(
        self, incoming: IncomingFile, filename: str, purpose: str, expires_after_s: int | None = None
    ) -> StoredFile:
        """Give a received file an id.

        Raises InvalidRequest for an unknown ending or an empty file, StorageFull and QuotaExceeded.
        """
        form = format_of(filename)
        if incoming.bytes == 0:
            raise InvalidRequest("file: expected at least one row, got an empty file", param="file")
        new = _PREFIX + secrets.token_hex(12)
        path = self._path(new, form)
        row = {"id": new, "filename": filename[-_LONGEST_NAME:], "format": form, "purpose": purpose}
        with self._marked_unsettled(path):
            with _naming_full_disk():
                incoming.close()
                incoming.path.replace(path)
            try:
                return self._insert({**row, "bytes": incoming.bytes, "sha256": incoming.sha256}, expires_after_s)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def get(self, file: str) -> StoredFile:
        """A file by its id. Raises FileMissing."""
        with self._database.read() as connection:
            return from_row(StoredFile, self._row(connection, file))

    def path(self, file: str) -> Path:
        """The path of a file's bytes. Raises FileMissing, also where only its row is left."""
        found = self.get(file)
        path = self._path(found.id, found.format)
        if not path.is_file():
            raise FileMissing(f"the bytes of {file} are gone", param="file_id")
        return path

    def page(
        self, after: str | None, limit: int, purpose: str | None, *, newest_first: bool = True
    ) -> tuple[list[StoredFile], bool]:
        """A page of files, from those after `after` where it is given, and whether there are more."""
        with self._database.read() as connection:
            query = self._visible(connection).order_by(files.c.seq.desc() if newest_first else files.c.seq)
            if purpose is not None:
                query = query.where(files.c.purpose == purpose)
            if after is not None:
                seq = self._row(connection, after).seq
                query = query.where(files.c.seq < seq if newest_first else files.c.seq > seq)
            found = [from_row(StoredFile, row) for row in connection.execute(query.limit(limit + 1))]
        return found[:limit], len(found) > limit

    def delete(self, file: str) -> None:
        """Remove a file. Raises FileInUse while an unfinished job needs it."""
        found = self.get(file)
        path = self._path(found.id, found.format)
        with self._marked_unsettled(path):
            with self._database.write() as connection:
                self._row(connection, file)  # raises where another request has deleted it since
                user = connection.execute(sa.select(jobs.c.id, jobs.c.owner).where(_needs(file))).first()
                if user is not None:
                    name = user.id if self._principal.may_see(user.owner) else "a job of another key"
                    raise FileInUse(f"{file} is needed by {name}: cancel that job first", param="file_id")
                connection.execute(files.delete().where(files.c.id == file))
            path.unlink(missing_ok=True)

    def remove_expired(self) -> None:
        """Remove the files of all callers that have expired, except those that an unfinished job needs."""
        with self._database.write() as connection:
            expired = files.c.expires_at <= self._database.now(connection)
            query = sa.select(files).where(expired, ~sa.exists().where(_needs(files.c.id)))
            found = [from_row(StoredFile, row) for row in connection.execute(query)]
            connection.execute(files.delete().where(files.c.id.in_([file.id for file in found])))
        for file in found:
            self._path(file.id, file.format).unlink(missing_ok=True)

    def remove_stale_uploads(self, older_than_s: float, now: float) -> None:
        """Remove the remains of uploads that never ended, and of processes that died in `keep` or `delete`."""
        for path in self._directory.glob(f"{_INCOMING}*"):
            if _modified_at(path) < now - older_than_s:
                if (unsettled := path.name.removeprefix(_INCOMING)).startswith(_PREFIX):
                    self._remove_without_row(self._directory / unsettled)
                path.unlink(missing_ok=True)

    @contextmanager
    def _marked_unsettled(self, path: Path) -> Iterator[None]:
        """Leave a mark while only one of a file and its row exists.

        If this process dies meanwhile, `remove_stale_uploads` finds the mark.
        """
        mark = path.with_name(f"{_INCOMING}{path.name}")
        with suppress(OSError):  # a file can be deleted from a full disk without a mark
            mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _remove_without_row(self, path: Path) -> None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(files.c.id).where(files.c.id == path.stem)).first()
        if row is None:
            path.unlink(missing_ok=True)

    def _count_incoming(self, used: Used, amount: int) -> None:
        incoming = self._incoming.add(self._principal.id, amount)
        if amount >= 0:
            self._quotas.require_room("bytes", used, incoming)

    def _insert(self, row: dict[str, Any], expires_after_s: int | None) -> StoredFile:
        with self._database.write() as connection:
            self._quotas.admit(connection, self._principal, "bytes", row["bytes"])
            now = self._database.now(connection)
            about = {"created_at": now, "expires_at": None if expires_after_s is None else now + expires_after_s}
            row = {**row, **about, "owner": self._principal.id}
            connection.execute(files.insert().values(**row))
        return StoredFile(**row)

    def _row(self, connection: sa.Connection, file: str) -> sa.Row[Any]:
        row = connection.execute(self._visible(connection).where(files.c.id == file)).first()
        if row is None:
            advice = "" if file.startswith(_PREFIX) else f": expected an id, {_PREFIX}…, as POST /v1/files gives it"
            raise FileMissing(f"no file {file[:100]!r}{advice}", param="file_id")
        return row

    def _visible(self, connection: sa.Connection) -> sa.Select[Any]:
        """The caller's files: those that have not expired, or that an unfinished job needs."""
        used = sa.exists().where(_needs(files.c.id))
        alive = files.c.expires_at.is_(None) | (files.c.expires_at > self._database.now(connection)) | used
        return sa.select(files).where(self._principal.sees(files.c.owner), alive)

    def _path(self, file: str, form: str) -> Path:
        return self._directory / f"{file}.{form}"


class IncomingFile:
    """A file that is being received. Leaving the `with` removes it unless `Files.keep` has taken it.

    `count` gets each number of bytes to come, and in the end their sum as a negative number.
    """

    def __init__(self, directory: Path, max_bytes: int, count: Callable[[int], None] = lambda amount: None) -> None:
        self.path = directory / f"{_INCOMING}{secrets.token_hex(12)}"
        self._stream = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()
        self.max_bytes = max_bytes
        self._count = count
        self._counted = 0
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append. Raises BodyTooLarge when the file would exceed `max_bytes`, QuotaExceeded and StorageFull."""
        if self.bytes + len(chunk) > self.max_bytes:
            raise self.too_large("more")
        self._counted += len(chunk)
        self._count(len(chunk))
        with _naming_full_disk():
            self._stream.write(chunk)
        self._hash.update(chunk)
        self.bytes += len(chunk)

    def too_large(self, got: str) -> BodyTooLarge:
        """The error of a file above the limit."""
        limit = f"expected a file of at most {self.max_bytes} bytes, as --max-file-bytes says"
        return BodyTooLarge(f"{limit}, got {got}: send a smaller one", param="file")

    def close(self) -> None:
        """Write all of it to the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._release()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the file unless `Files.keep` has taken it."""
        try:
            self._stream.close()
        except OSError as problem:  # on a full disk the last bytes cannot be flushed; the file goes anyway
            if not is_full(problem):
                raise
        finally:
            self.path.unlink(missing_ok=True)
            self._release()

    def _release(self) -> None:
        counted, self._counted = self._counted, 0
        if counted:
            self._count(-counted)

    def __enter__(self) -> IncomingFile:
        return self

    def __exit__(self, *about: object) -> None:
        self.discard()


@contextmanager
def _naming_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StorageFull("no space is left for files") from error
        raise


def format_of(filename: str) -> str:
    """The format by the name's ending; JSONL without an ending, as clients send bytes. Raises InvalidRequest."""
    ending = filename.rpartition(".")[2].lower() if "." in filename else FORMATS[0]
    if ending not in FORMATS:
        raise InvalidRequest(
            f"file: expected a name that ends in .{', .'.join(FORMATS)}, got {filename[-100:]!r}", param="file"
        )
    return ending


def _modified_at(path: Path) -> float:
    """When a file was last written; infinity when it has gone meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _needs(file: str | sa.Column[str]) -> sa.ColumnElement[bool]:
    """Whether a job is unfinished and needs a file."""
    return ((jobs.c.training_file == file) | (jobs.c.validation_file == file)) & jobs.c.status.notin_(TERMINAL)
