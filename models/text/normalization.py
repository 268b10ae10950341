"""Unicode normalization, which takes linear time for every text."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Literal

Form = Literal["NFC", "NFKC"]
# UAX #15 calls this many marks enough for any language; up to here quadratic time does not matter.
_ORDINARY_MARKS = 30
_NO_MARKS = 0x20000  # Unicode has none from here on, and a hundred thousand ideographs
_DECOMPOSED: dict[Form, Literal["NFD", "NFKD"]] = {"NFC": "NFD", "NFKC": "NFKD"}


def normalize(form: Form, text: str) -> str:
    """The text that `unicodedata.normalize` gives, in linear time.

    `unicodedata` sorts the combining marks after a letter in quadratic time and holds the GIL: 300 KB of marks would
    take 44 s. Marks that are in order already take linear time.
    """
    if text.isascii():
        return text
    rough, exact = _long_runs(form)
    ordered = rough.sub(lambda found: exact.sub(lambda run: _in_order(form, run[0]), found[0]), text)
    return unicodedata.normalize(form, ordered)


def _in_order(form: Form, marks: str) -> str:
    """A run of marks, decomposed and stably sorted by combining class: its canonical order."""
    by_class: dict[int, list[str]] = {}
    for character in marks:
        for combining, mark in _decomposed(form, character):
            by_class.setdefault(combining, []).append(mark)
    return "".join(mark for _, group in sorted(by_class.items()) for mark in group)


@cache
def _decomposed(form: Form, character: str) -> tuple[tuple[int, str], ...]:
    """The marks that one of the 900 marks stands for, with their combining classes."""
    return tuple((unicodedata.combining(mark), mark) for mark in unicodedata.normalize(_DECOMPOSED[form], character))


def _decomposed_class(form: Form, character: str) -> int:
    """The combining class of a character's first part; 0 for letters."""
    return unicodedata.combining(unicodedata.normalize(_DECOMPOSED[form], character)[0])


@cache
def _long_runs(form: Form) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Long runs of characters that are combining marks once they are decomposed: roughly, and exactly.

    The rough pattern is ten times as fast: it takes the whole range of the marks above U+FFFF for marks.
    """
    marks = [one for one in map(chr, range(128, _NO_MARKS)) if _decomposed_class(form, one)]
    basic, above = [one for one in marks if one <= "\uffff"], [one for one in marks if one > "\uffff"]
    classes = "".join((*basic, min(above), "-", max(above))), "".join(marks)
    rough, exact = (re.compile(f"[{one}]{{{_ORDINARY_MARKS},}}") for one in classes)
    return rough, exact
