"""Characters that could control a terminal or forge a line of a log."""

from __future__ import annotations

import unicodedata

# Line ends, an escape sequence, C1 controls, bidirectional controls, line separators.
HOSTILE = "x\r\n\x1b[2J\x7f\x85\x9b31m\u061c\u200e\u202a\u202e\u2066\u2069\u2028\u2029y"
FORBIDDEN = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
FORBIDDEN |= {"\u061c", "\u200e", "\u200f", "\u2028", "\u2029"}


def forbidden(text: str) -> set[str]:
    """The names of the forbidden characters in a line."""
    return {unicodedata.name(char, hex(ord(char))) for char in FORBIDDEN & set(text)}
