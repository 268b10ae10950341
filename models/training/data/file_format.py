"""The format of a training file: as asked for, else by its name, else by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from models.training.errors import TrainingDataError, data_error

Format = Literal["jsonl", "csv", "parquet", "xlsx"]
# The ending of archives of images, which are none of these formats.
ARCHIVE = ".zip"
BOM = b"\xef\xbb\xbf"
_FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
_PARQUET, _ZIP, _UTF_16 = "a Parquet file", "a zip archive", "UTF-16 text"
# What the first bytes may be of a file of each format; of others, nothing that is known.
_CONTENTS: dict[Format, str] = {"parquet": _PARQUET, "xlsx": _ZIP}
_SIGNATURES = {
    b"PK\x03\x04": _ZIP,
    b"PK\x05\x06": _ZIP,
    b"PAR1": _PARQUET,
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
} | {b"\x80" + bytes([protocol]): "a pickle, which is never opened" for protocol in range(2, 6)}


def find_format(path: Path, asked: str | None, param: str, *, utf_16: bool = False) -> Format:
    """Find the format; `utf_16` allows it for CSV. Raises TrainingDataError where the first bytes contradict it."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise TrainingDataError("file_not_found", f"{param}: the file is not there", param) from None
    if asked is not None and asked not in _FORMATS:
        raise data_error(param, "unknown_format", "the format jsonl, csv, parquet or xlsx", repr(asked[:40]))
    content = next((name for signature, name in _SIGNATURES.items() if start.startswith(signature)), None)
    chosen = next((known for known in _FORMATS if known == asked), None)
    chosen = chosen or _SUFFIXES.get(path.suffix.lower()) or _guess(start, content)
    expected = _UTF_16 if utf_16 and chosen == "csv" and content == _UTF_16 else _CONTENTS.get(chosen)
    if start and content != expected:
        raise data_error(param, "wrong_format", chosen, f"{content or 'something else'} (told by its first bytes)")
    return chosen


def _guess(start: bytes, content: str | None) -> Format:
    if content == _PARQUET:
        return "parquet"
    return "jsonl" if start.removeprefix(BOM).lstrip()[:1] in (b"{", b"[") else "csv"
