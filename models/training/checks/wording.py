"""Statuses and lists of names, as findings word them."""

from __future__ import annotations

from collections.abc import Sequence

from models.training.metrics import FEW_ROWS, Interval, share_of
from models.training.report import Status

_NAMED = 5


def warn_if(wrong: object) -> Status:
    """A warning where `wrong` is true, else ok."""
    return "warn" if wrong else "ok"


def fail_if(wrong: object) -> Status:
    """A failure where `wrong` is true, else ok."""
    return "fail" if wrong else "ok"


def lead_status(lead: Interval, *, fails: bool = True) -> Status:
    """Ok for a lead beyond chance; a failure, if a loss beyond chance `fails`; else a warning.

    Of few rows only a loss is told, as a warning: nothing passes without evidence.
    """
    if lead.is_few:
        return loss_status(lead)
    return "ok" if lead.low > 0 else "fail" if lead.high < 0 and fails else "warn"


def loss_status(lead: Interval) -> Status:
    """A warning for a loss beyond chance, else ok; of few rows, skipped in place of ok."""
    return "warn" if lead.high < 0 else "skipped" if lead.is_few else "ok"


def share_text(count: int, rows: int) -> str:
    """A share as "95.0% of 770 held-out rows" with its interval; of few rows the count alone, as "2 of 2"."""
    if rows < FEW_ROWS:
        return f"{count} of {rows} held-out rows, too few to say more"
    share = share_of(count, rows)
    return f"{share.value:.1%} of {rows} held-out rows (95 % interval {share.low:.0%} to {share.high:.0%})"


def percent(count: int, rows: int) -> str:
    """A share of rows in short: "95.0%", and of few rows "2 of 2"."""
    return f"{count} of {rows}" if rows < FEW_ROWS else f"{count / rows:.1%}"


def name_first(names: Sequence[str]) -> str:
    """The first five names, and an ellipsis where there are more."""
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
