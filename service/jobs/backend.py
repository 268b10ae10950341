"""All that the API needs of jobs, opened from the settings; nothing is connected to before its first use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.config import Settings
from service.jobs.database import Database
from service.jobs.feedback import Feedback
from service.jobs.files import Files
from service.jobs.queue import DbosEngine, JobQueue
from service.jobs.store import Store


@dataclass(frozen=True, slots=True)
class JobBackend:
    """Where callers' wishes about files and jobs are taken."""

    home: Path
    database: Database
    store: Store
    files: Files
    feedback: Feedback
    engine: JobQueue

    @classmethod
    def open(cls, settings: Settings, engine: JobQueue | None = None) -> JobBackend:
        """From the settings. Raises ConfigError for a database URL of another kind."""
        home = settings.home.absolute()
        database = Database(settings.database_url, home)
        return cls(
            home,
            database,
            Store(database, home, settings.job_lease_s),
            Files(database, home, settings.max_file_bytes),
            Feedback(database),
            engine or DbosEngine(settings.database_url, home),
        )

    def close(self) -> None:
        """Close all connections."""
        self.engine.close()
        self.database.close()
