"""Statuses and lists of names, as findings word them."""

from __future__ import annotations

from collections.abc import Sequence

from models.training.report import Status

_NAMED = 5


def warn_if(wrong: object) -> Status:
    """A warning where `wrong` is true, else ok."""
    return "warn" if wrong else "ok"


def fail_if(wrong: object) -> Status:
    """A failure where `wrong` is true, else ok."""
    return "fail" if wrong else "ok"


def name_first(names: Sequence[str]) -> str:
    """The first five names, and an ellipsis where there are more."""
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
