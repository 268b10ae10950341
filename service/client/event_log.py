"""The events of a job in order, each once, read from pages that begin with the newest."""

from __future__ import annotations

from service.client.answers import Page
from service.client.job_answers import JobEvent


class EventLog:
    """Remembers what was seen."""

    def __init__(self) -> None:
        self._last = -1
        self._found: list[JobEvent] = []

    def add(self, page: Page[JobEvent]) -> str | None:
        """Take a page. Returns the id to ask for the next page after, None where all new events are there."""
        fresh = [event for event in page.data if event.number > self._last]
        self._found += fresh
        return page.data[-1].id if page.has_more and len(fresh) == len(page.data) else None

    def take(self) -> list[JobEvent]:
        """The new events, the oldest first."""
        found, self._found = sorted(self._found, key=lambda event: event.number), []
        self._last = found[-1].number if found else self._last
        return found
