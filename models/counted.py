"""Numbers of things in messages."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """The number with the words for one thing or for several, by default with an s: "1 row", "2 rows"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
