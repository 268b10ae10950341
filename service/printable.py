"""Text that cannot control a terminal or forge a line of a log."""

from __future__ import annotations

import unicodedata

# U+0085 and the separators of category Z end lines for some readers. The rest reorder the text around them.
_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_ESCAPES = {
    code: f"\\u{code:04x}"
    for code in range(0x10000)  # none of these is beyond
    if unicodedata.category(chr(code)) in _UNPRINTABLE or chr(code) in _BIDIRECTIONAL
}


def printable(text: str) -> str:
    r"""The text on one line: control characters, bidirectional controls and surrogates become `\u001b`.

    These are JSON's escapes too, so a line of JSON stays the same JSON.
    """
    return text if text.isprintable() else text.translate(_ESCAPES)
