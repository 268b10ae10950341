"""Images of a ZIP archive: a folder for each label, or a JSONL file of names and labels in it.

Nothing is unpacked to a path that the archive names. Its directory is bounded before it is read, each member while it
is.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.text.normalization import normalize
from models.training.data.json_parser import parse_object
from models.training.errors import TrainingDataError, data_error, quote

MAX_IMAGES = 20_000
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LIST = ".jsonl"
_MAX_LIST_BYTES = 32 << 20
# What an archive says of itself at its end: the signature, the place of its directory's size, and that of ZIP64.
_END, _END_BYTES, _SIZE_AT, _ZIP64 = b"PK\x05\x06", 22, 12, b"PK\x06\x07"
_MAX_COMMENT_BYTES = 1 << 16
# A member's entry takes some 100 bytes; systems add a member of their own for each.
_MAX_DIRECTORY_BYTES = 16 << 20
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, NotImplementedError)
OnFault = Callable[[TrainingDataError], None]


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An encoded image of a file: its place and name for messages, and its label; empty without one."""

    line: int
    name: str
    label: str
    data: bytes


class ImageArchive:
    """Reads one archive. `on_fault` takes the error of a member, which is then left out."""

    unit = "entry"

    def __init__(self, path: Path, param: str, max_bytes: int, on_fault: OnFault) -> None:
        self._path, self._param, self._max_bytes, self._on_fault = path, param, max_bytes, on_fault
        self.left_out: list[str] = []

    def __iter__(self) -> Iterator[FoundImage]:
        """The images in the order of the archive. Raises TrainingDataError for an archive that cannot be read."""
        _require_small_directory(self._path, self._param)
        with self._naming_broken(), zipfile.ZipFile(self._path) as archive:
            members = self._members(archive)
            lists = [one for one in members.values() if one.filename.lower().endswith(_LIST)]
            if len(lists) > 1:
                names = " and ".join(quote(one.filename) for one in lists[:2])
                raise self._error("ambiguous_list", "at most one JSONL file of names and labels", names)
            yield from self._listed(archive, lists[0], members) if lists else self._by_folder(archive, members)

    def _by_folder(self, archive: zipfile.ZipFile, members: dict[int, zipfile.ZipInfo]) -> Iterator[FoundImage]:
        """Images labelled by the folder that they lie in."""
        for line, member in members.items():
            path = PurePosixPath(member.filename)
            if path.suffix.lower() not in _SUFFIXES:
                self.left_out.append(member.filename)
            elif (data := self._read(archive, member, line)) is not None:
                yield FoundImage(line, member.filename, normalize("NFC", path.parent.name), data)

    def _listed(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, members: dict[int, zipfile.ZipInfo]
    ) -> Iterator[FoundImage]:
        """Images labelled by the rows of a JSONL file, whose `image` is a name in the archive beside it."""
        text = self._read(archive, member, 0, _MAX_LIST_BYTES)
        by_name = {one.filename: one for one in members.values()}
        folder = PurePosixPath(member.filename).parent
        for line, row in enumerate((text or b"").splitlines(), start=1):
            if not row.strip():
                continue
            try:
                record = parse_object(row.decode(errors="replace"), line, self._param)
                name = str(record.get("image") or record.get("file_name") or "")
                found = by_name.get(str(folder / name))
                if found is None:
                    expected = f"the name of an image in the archive in {member.filename}"
                    raise self._error("no_image", expected, quote(name), line)
            except TrainingDataError as error:
                self._on_fault(error)
                continue
            if (data := self._read(archive, found, line)) is not None:
                label = record.get("label")
                yield FoundImage(line, name, "" if label is None else str(label), data)

    def _members(self, archive: zipfile.ZipFile) -> dict[int, zipfile.ZipInfo]:
        """The files by their place in the archive, from 1; those that a system added are left out."""
        found: dict[int, zipfile.ZipInfo] = {}
        for line, member in enumerate(archive.infolist(), start=1):
            path = PurePosixPath(member.filename)
            if member.is_dir() or path.name.startswith(".") or path.parts[:1] == ("__MACOSX",):
                continue
            if fault := _fault_of(member, path):
                self._on_fault(self._error("unsafe_member", *fault, line))
            else:
                found[line] = member
        if len(found) > MAX_IMAGES:
            raise self._error("too_many_rows", f"at most {MAX_IMAGES:,} images", f"{len(found):,}")
        return found

    def _read(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, line: int, most: int | None = None
    ) -> bytes | None:
        """The bytes of a member; None after a fault. A member that states a false size is read up to the limit."""
        most = self._max_bytes if most is None else most
        try:
            with archive.open(member) as stream:
                data = stream.read(most + 1)
        except _BROKEN as error:
            got = f"{quote(member.filename)}, which cannot be unpacked ({type(error).__name__})"
            self._on_fault(self._error("broken_member", "a whole member", got, line))
            return None
        if len(data) > most:
            expected, got = f"at most {most:,} bytes", f"more in {quote(member.filename)}"
            self._on_fault(self._error("image_too_large", expected, got, line))
            return None
        return data

    @contextmanager
    def _naming_broken(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            got = f"one that cannot be read ({str(error)[:200] or type(error).__name__})"
            raise self._error("invalid_zip", "a ZIP archive of images", got) from None

    def _error(self, code: str, expected: str, got: str, line: int | None = None) -> TrainingDataError:
        return data_error(self._param, code, expected, got, line=line or None, unit=self.unit)


def _fault_of(member: zipfile.ZipInfo, path: PurePosixPath) -> tuple[str, str] | None:
    """What was expected of a member and what came; None for one that may be read."""
    name = quote(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0]:
        return "names below the archive's own folder", name
    if stat.S_ISLNK(member.external_attr >> 16):
        return "files alone", f"the link {name}"
    if member.flag_bits & _ENCRYPTED:
        return "files without a password", f"{name}, which is encrypted"
    if member.compress_type not in _METHODS:
        return "files stored or deflated", f"{name}, which is packed by method {member.compress_type}"
    return None


def _require_small_directory(path: Path, param: str) -> None:
    """Raise TrainingDataError for an archive whose directory would take much memory: zipfile reads all of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _END_BYTES - _MAX_COMMENT_BYTES - 20, 0))
        tail = file.read()
    expected = f"at most {MAX_IMAGES:,} images"
    if _ZIP64 in tail:
        raise data_error(param, "too_many_rows", f"{expected}, and no ZIP64 archive", "one")
    at = tail.find(_END)
    while at >= 0:
        stated = int.from_bytes(tail[at + _SIZE_AT : at + _SIZE_AT + 4], "little")
        if stated > _MAX_DIRECTORY_BYTES:
            raise data_error(param, "too_many_rows", expected, f"a directory of {stated:,} bytes")
        at = tail.find(_END, at + 1)
