"""The format of a training file: as asked for, else by its name, else by its first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from models.signatures import PARQUET, START_BYTES, UTF_16, ZIP, content_of
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
# What the first bytes may be of a file of each format; of others, nothing that is known.
_CONTENTS: dict[Format, str] = {"parquet": PARQUET, "xlsx": ZIP}


def find_format(path: Path, asked: str | None, param: str, *, utf_16: bool = False) -> Format:
    """Find the format; `utf_16` allows it for CSV. Raises TrainingDataError where the first bytes contradict it."""
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except FileNotFoundError:
        raise TrainingDataError("file_not_found", f"{param}: the file is not there", param) from None
    if asked is not None and asked not in _FORMATS:
        raise data_error(param, "unknown_format", "the format jsonl, csv, parquet or xlsx", repr(asked[:40]))
    content = content_of(start)
    chosen = next((known for known in _FORMATS if known == asked), None)
    chosen = chosen or _SUFFIXES.get(path.suffix.lower()) or _guess(start, content)
    expected = UTF_16 if utf_16 and chosen == "csv" and content == UTF_16 else _CONTENTS.get(chosen)
    if start and content != expected:
        advice = "; save the file as UTF-8 (in Excel: CSV UTF-8)" if content == UTF_16 else ""
        got = f"{content or 'something else'} (told by its first bytes){advice}"
        raise data_error(param, "wrong_format", chosen, got)
    return chosen


def _guess(start: bytes, content: str | None) -> Format:
    if content == PARQUET:
        return "parquet"
    return "jsonl" if start.removeprefix(BOM).lstrip()[:1] in (b"{", b"[") else "csv"
