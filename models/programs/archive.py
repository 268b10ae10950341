"""The zip archive of an exported program: its parts, and the bounds that they keep to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from models.errors import ModelSourceError, UnsafeModelError
from models.signatures import START_BYTES, ZIP, content_of

_MAX_BYTES = 256 << 30
_MAX_PARTS = 100_000
_ENCRYPTED = 0x1
# Where archives have compiled libraries.
_NATIVE = ("data/aotinductor/", "data/executorch/")
_OF_OLD_FORMAT = "serialized_exported_program.json"


class Archive:
    """An open archive. Its parts are stored uncompressed, so none is larger than the file.

    Raises ModelSourceError for what is no archive, and UnsafeModelError for native code and for paths that lead out.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._size = path.stat().st_size
        if self._size > _MAX_BYTES:
            raise self.error(f"expected at most {_MAX_BYTES:,} bytes, got {self._size:,}")
        self._require_archive(path)
        self._zip = ZipFile(path)
        try:
            self._parts = self._checked_parts(self._zip.infolist())
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def read(self, part: str, most: int | None = None) -> bytes:
        """The bytes of a part, whose checksum is verified. Raises ModelSourceError if it lacks, or has more bytes."""
        found = self._parts.get(part)
        if found is None:
            raise self.error(f"expected the part {part}, which it lacks: save it with torch.export.save")
        if most is not None and found.file_size > most:
            raise self.error(f"{part}: expected at most {most:,} bytes, got {found.file_size:,}")
        return self._zip.read(found)

    def size(self, part: str) -> int:
        """The bytes of a part; 0 where the archive lacks it."""
        return self._parts[part].file_size if part in self._parts else 0

    def names(self, folder: str) -> list[str]:
        """The parts below a folder."""
        return sorted(name for name in self._parts if name.startswith(folder))

    def error(self, message: str) -> ModelSourceError:
        """An error that names the file."""
        return ModelSourceError(f"{self.name}: {message}", param="model")

    def unsafe(self, message: str) -> UnsafeModelError:
        """An error about what could run code, which names the file."""
        return UnsafeModelError(f"{self.name}: {message}", param="model")

    def _require_archive(self, path: Path) -> None:
        with path.open("rb") as file:
            content = content_of(file.read(START_BYTES))
        if content not in (None, ZIP):
            raise self.error(f"expected a program of torch.export, got {content}")

    def _checked_parts(self, entries: list[ZipInfo]) -> dict[str, ZipInfo]:
        """The parts by their names below the archive's one folder."""
        if len(entries) > _MAX_PARTS:
            raise self.error(f"expected at most {_MAX_PARTS:,} parts, got {len(entries):,}")
        declared = sum(entry.file_size for entry in entries)
        if declared > self._size:
            raise self.error(f"its parts declare {declared:,} bytes, and it has {self._size:,}: copy it again")
        parts: dict[str, ZipInfo] = {}
        for entry in entries:
            name = self._checked_name(entry)
            if name in parts:
                raise self.error(f"it has two parts called {name[:80]!r}")
            parts[name] = entry
        if len({entry.filename.partition("/")[0] for entry in entries}) != 1:
            raise self.error("expected one folder with all parts, as torch.export.save writes it")
        if _OF_OLD_FORMAT in {PurePosixPath(name).name for name in parts}:
            raise self.unsafe("it has the pickles of an older torch.export: export it with torch 2.8 or later")
        return parts

    def _checked_name(self, entry: ZipInfo) -> str:
        """The name of a part below the archive's folder."""
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or len(path.parts) < 2:
            raise self.unsafe(f"expected paths within one folder, got {entry.filename[:80]!r}")
        if entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & _ENCRYPTED:
            raise self.error(f"{entry.filename[:80]}: expected a part that is stored uncompressed and unencrypted")
        name = entry.filename.partition("/")[2]
        if name.startswith(_NATIVE):
            remedy = "use torch.export.save, or --trust-native NAME if you trust its source"
            raise self.unsafe(f"it has compiled code in {name[:80]!r}, which is not run: {remedy}")
        return name
