"""The bytes of a CSV file: its encoding, and the ends of its lines."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import BinaryIO

from models.training.csv_options import CsvOptions

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# UTF-16 without a mark: two letters of ASCII.
_UNMARKED = {"utf-16-le": re.compile(rb"([ -~]\0){2}"), "utf-16-be": re.compile(rb"(\0[ -~]){2}")}
# Of Western Europe, which is what spreadsheets there write.
_FALLBACK = "cp1252"


def find_encoding(path: Path, options: CsvOptions) -> tuple[str, list[str]]:
    """A codec, and what to tell of it."""
    with path.open("rb") as file:
        start = file.read(4)
        if options.encoding is not None:
            return options.encoding, [options.encoding] if options.encoding != "utf-8" else []
        if start.startswith(_UTF_16):
            return "utf-16", ["UTF-16"]
        if unmarked := next((name for name, form in _UNMARKED.items() if form.match(start)), None):
            return unmarked, ["UTF-16"]
        file.seek(0)
        if b"\0" in start or _is_utf8(file):  # a NUL byte is refused where rows are read
            return "utf-8", []
    return _FALLBACK, [f"{_FALLBACK}, since it is not UTF-8"]


def _is_utf8(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while part := file.read(1 << 20):
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def has_lone_returns(path: Path) -> bool:
    """Whether a carriage return ends a line by itself."""
    held = b""  # a return at the end of a part: the next one may begin with its line feed
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            part = held + part
            held = b"\r" if part.endswith(b"\r") else b""
            if part.count(b"\r") - len(held) != part.count(b"\r\n"):
                return True
    return bool(held)
