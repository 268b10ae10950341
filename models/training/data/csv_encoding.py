"""The bytes of a CSV file: its encoding, and the ends of its lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from models.training.csv_options import CsvOptions

_UTF_8 = "utf-8"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# UTF-16 without a mark: two letters of ASCII.
_UNMARKED = {"utf-16-le": re.compile(rb"([ -~]\0){2}"), "utf-16-be": re.compile(rb"(\0[ -~]){2}")}
# More than the names of the most columns take.
_SAMPLE_BYTES = 1 << 16
_PART_BYTES = 1 << 20
# Of Western Europe, which is what spreadsheets there write.
_FALLBACK = "cp1252"
# A file that was written as text twice has two returns before each line feed.
_MOST_RETURNS = 2


@dataclass(frozen=True, slots=True)
class Encoding:
    """The codec of a file, what to tell of it, and whether it is UTF-8 in which line feeds end all lines."""

    codec: str
    read_as: tuple[str, ...] = ()
    is_plain: bool = False


def find_encoding(path: Path, options: CsvOptions) -> Encoding:
    """The encoding of a file, which is read once at most."""
    asked = options.encoding
    with path.open("rb") as file:
        start = file.read(_SAMPLE_BYTES)
        if asked not in (None, _UTF_8):
            return Encoding(asked, (asked,))
        if asked is None and (utf_16 := _find_utf_16(start)):
            return Encoding(utf_16, ("UTF-16",))
        # Other bytes than the encoding's that is asked for, and NUL bytes, are refused where rows are read.
        is_certain = asked is not None or b"\0" in start
        file.seek(0)
        try:
            return Encoding(_UTF_8, is_plain=not _has_lone_returns(file, "replace" if is_certain else "strict"))
        except UnicodeDecodeError:
            return Encoding(_FALLBACK, (f"{_FALLBACK}, since it is not UTF-8",))


def _find_utf_16(start: bytes) -> str | None:
    """The codec of UTF-16, by its mark, or by a line of which most characters have a byte that is zero."""
    if start.startswith(_UTF_16):
        return "utf-16"
    codec = next((name for name, form in _UNMARKED.items() if form.match(start)), None)
    text = start[: len(start) // 2 * 2].decode(codec, "replace") if codec else ""
    has_line_end = "\n" in text or "\r" in text
    return codec if has_line_end and 2 * sum(map(str.isascii, text)) > len(text) and "\0" not in text else None


def _has_lone_returns(file: BinaryIO, errors: str) -> bool:
    """Whether a carriage return is not before a line feed. Raises UnicodeDecodeError, if `errors` is strict."""
    decoder = codecs.getincrementaldecoder(_UTF_8)(errors)
    lone, last = 0, b""
    for part in iter(partial(file.read, _PART_BYTES), b""):
        decoder.decode(part)
        lone += part.count(b"\r") - part.count(b"\r\n") - (last + part[:1] == b"\r\n")
        last = part[-1:]
    decoder.decode(b"", final=True)
    return lone > 0


def with_line_feeds(text: str) -> str:
    """The text with a line feed at the end of each line."""
    return text.replace("\r\r\n", "\r\n").replace("\r\n", "\n").replace("\r", "\n")


def read_parts(file: TextIO) -> Iterator[str]:
    """The text of a file in parts, with a line feed at the end of each line."""
    rest = ""
    for part in iter(partial(file.read, _PART_BYTES), ""):
        text = rest + part
        end = max(len(text.rstrip("\r")), len(text) - _MOST_RETURNS)  # an end of a line may go on in the next part
        rest = text[end:]
        yield with_line_feeds(text[:end])
    yield with_line_feeds(rest)
