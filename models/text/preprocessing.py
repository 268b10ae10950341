"""Preprocessing of texts before tokenisation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.text.normalization import normalize

_REPEATED_PUNCTUATION = re.compile(r"([^\w\s])\1+")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Changes to a text before its tokeniser reads it; the same in training and in serving."""

    nfc: bool = True
    collapse_whitespace: bool = True
    lower_case: bool = False
    squeeze_punctuation: bool = False

    def __call__(self, text: str) -> str:
        """The text as the tokeniser reads it."""
        if self.nfc:
            text = normalize("NFC", text)
        if self.collapse_whitespace:
            text = " ".join(text.split())
        if self.lower_case:
            text = text.lower()
        if self.squeeze_punctuation:
            text = _REPEATED_PUNCTUATION.sub(r"\1", text)
        return text
