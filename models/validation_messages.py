"""What pydantic finds wrong, in the words of our own messages: what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MESSAGES = {
    "extra_forbidden": "no such field",
    "missing": "expected a value, got none",
    "model_attributes_type": "expected an object",
    "path_type": "expected a path",
}
_REWRITINGS = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"^\w+ should match pattern "), "expected text of the pattern "),
    (re.compile(r"^\w+ should (?:be|have) "), "expected "),
    (re.compile(r"\ba valid (?=[aeiou])"), "an "),
    (re.compile(r"\ba valid "), "a "),
    (re.compile(r", unable to .*$"), ""),
    (re.compile(r" after validation\b"), ""),
)


def describe_fault(error: Mapping[str, Any]) -> str:
    """The message of one of `ValidationError.errors()`, without the field's name and value."""
    if (message := _MESSAGES.get(str(error["type"]))) is not None:
        return message
    text = str(error["msg"])
    for pattern, words in _REWRITINGS:
        text = pattern.sub(words, text)
    return text
