"""What the API uses of jobs, opened from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from service.config import Settings
from service.jobs.caller import WORKER, Caller
from service.jobs.database import Database
from service.jobs.feedback import Feedback
from service.jobs.files import Files
from service.jobs.quotas import Quotas
from service.jobs.store import JobStore


@dataclass(frozen=True, slots=True)
class JobBackend:
    """Files, feedback and jobs in one database; the first use connects to it."""

    home: Path
    database: Database
    store: JobStore
    files: Files
    feedback: Feedback
    caller: Caller = WORKER

    @classmethod
    def open(cls, settings: Settings, on_refusal: Callable[[str], None] = lambda reason: None) -> JobBackend:
        """From the settings; `on_refusal` gets the reason when a quota refuses something.

        Raises ConfigError for a database URL of another kind.
        """
        home = settings.home.absolute()
        database = Database(settings.database_url, home)
        quotas = Quotas.of(settings, on_refusal)
        store = JobStore(database, home, settings.job_lease_s, quotas=quotas)
        files = Files(database, home, settings.max_file_bytes, quotas=quotas)
        return cls(home, database, store, files, Feedback(database, quotas=quotas))

    def on_behalf_of(self, caller: Caller) -> JobBackend:
        """The same database as `caller` sees it."""
        return replace(
            self,
            store=self.store.on_behalf_of(caller),
            files=self.files.on_behalf_of(caller),
            feedback=self.feedback.on_behalf_of(caller),
            caller=caller,
        )

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
