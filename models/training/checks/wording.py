"""Statuses and lists of names, as findings word them."""

from __future__ import annotations

from collections.abc import Sequence

from models.training.metrics import Interval
from models.training.report import Status

_NAMED = 5


def warn_if(wrong: object) -> Status:
    """A warning where `wrong` is true, else ok."""
    return "warn" if wrong else "ok"


def fail_if(wrong: object) -> Status:
    """A failure where `wrong` is true, else ok."""
    return "fail" if wrong else "ok"


def lead_status(lead: Interval, *, fails: bool = True) -> Status:
    """Ok for a lead beyond chance; a failure, if a loss beyond chance `fails`; else a warning."""
    return "ok" if lead.low > 0 else "fail" if lead.high < 0 and fails else "warn"


def name_first(names: Sequence[str]) -> str:
    """The first five names, and an ellipsis where there are more."""
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
