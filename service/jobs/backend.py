"""What the API uses of jobs, opened from the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from service.config import Settings
from service.jobs.caller import WORKER, Caller
from service.jobs.database import Database
from service.jobs.feedback import Feedback
from service.jobs.files import Files
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
    def open(cls, settings: Settings) -> JobBackend:
        """From the settings. Raises ConfigError for a database URL of another kind."""
        home = settings.home.absolute()
        database = Database(settings.database_url, home)
        store = JobStore(database, home, settings.job_lease_s)
        return cls(home, database, store, Files(database, home, settings.max_file_bytes), Feedback(database))

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
