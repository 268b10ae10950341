"""The database of jobs, and what reads and writes its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from service.config import Settings
from service.jobs.database import Database
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.quotas import Quotas
from service.jobs.store import JobStore

# Shorter than the time of a request, so that it can still try again when the server ends a statement.
_STATEMENT_LIMIT_S = 4.0


@dataclass(frozen=True, slots=True)
class JobStorage:
    """Files, feedback and jobs in one database; the first use connects to it."""

    database: Database
    store: JobStore
    files: Files
    feedback: FeedbackStore

    @classmethod
    def open(cls, settings: Settings, on_refusal: Callable[[str], None]) -> Self:
        """From the settings; `on_refusal` gets the reason when a quota refuses something. Raises ConfigError."""
        home = settings.home.absolute()
        database = Database(settings.database_url, home, _STATEMENT_LIMIT_S)
        quotas = Quotas.of(settings, on_refusal)
        store = JobStore(database, home, settings.job_lease_s, quotas=quotas)
        files = Files(database, home, settings.max_file_bytes, quotas=quotas)
        return cls(database, store, files, FeedbackStore(database, quotas=quotas))
