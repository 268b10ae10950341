"""What the API uses of jobs, opened from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from service.config import Settings
from service.jobs.database import Database
from service.jobs.feedback import FeedbackStore
from service.jobs.files import Files
from service.jobs.principal import WORKER, Principal
from service.jobs.quotas import Quotas
from service.jobs.store import JobStore
from service.jobs.timed_calls import REQUEST_LIMIT_S, CallExecutor, TimeBudget

P = ParamSpec("P")
T = TypeVar("T")

# Shorter than the time of a request, so that it can still try again when the server ends a statement.
_STATEMENT_LIMIT_S = 4.0


@dataclass(frozen=True, slots=True)
class JobBackend:
    """Files, feedback and jobs in one database; the first use connects to it.

    Their methods block. Routes call them through `run` and `run_on_disk`, whose threads are apart.
    """

    home: Path
    database: Database
    store: JobStore
    files: Files
    feedback: FeedbackStore
    principal: Principal
    calls: CallExecutor
    disk: CallExecutor
    budget: TimeBudget

    @classmethod
    def open(cls, settings: Settings, on_refusal: Callable[[str], None] = lambda reason: None) -> JobBackend:
        """From the settings; `on_refusal` gets the reason when a quota refuses something.

        Raises ConfigError for a database URL of another kind.
        """
        home = settings.home.absolute()
        database = Database(settings.database_url, home, _STATEMENT_LIMIT_S)
        quotas = Quotas.of(settings, on_refusal)
        store = JobStore(database, home, settings.job_lease_s, quotas=quotas)
        files = Files(database, home, settings.max_file_bytes, quotas=quotas)
        feedback = FeedbackStore(database, quotas=quotas)
        calls, disk = CallExecutor("database"), CallExecutor("disk")
        return cls(home, database, store, files, feedback, WORKER, calls, disk, TimeBudget())

    def on_behalf_of(self, principal: Principal) -> JobBackend:
        """The same database as `principal` sees it."""
        return replace(
            self,
            store=self.store.on_behalf_of(principal),
            files=self.files.on_behalf_of(principal),
            feedback=self.feedback.on_behalf_of(principal),
            principal=principal,
        )

    def for_request(self) -> JobBackend:
        """The same, with the time that one request may take."""
        return replace(self, budget=TimeBudget())

    async def run(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call the database. Raises Unavailable when it hangs, or the calls of this request have taken too long."""
        with self.budget.spending():
            return await self.calls.run(self.budget.left_s, work, *arguments, **options)

    async def run_on_disk(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Read or write files. Uploads have many such calls, so each has its own limit. Raises Unavailable."""
        return await self.disk.run(REQUEST_LIMIT_S, work, *arguments, **options)

    def close(self) -> None:
        """Close all connections."""
        self.calls.close()
        self.disk.close()
        self.database.close()
