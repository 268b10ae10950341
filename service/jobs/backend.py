"""What the API uses of jobs, opened from the settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from service.config import Settings
from service.jobs.principal import WORKER, Principal
from service.jobs.timed_calls import REQUEST_LIMIT_S, CallExecutor, TimeBudget

if TYPE_CHECKING:
    from service.jobs.database import Database
    from service.jobs.feedback import FeedbackStore
    from service.jobs.files import Files
    from service.jobs.storage import JobStorage
    from service.jobs.store import JobStore

P = ParamSpec("P")
T = TypeVar("T")


class _Storage:
    """The storage of jobs, opened by the first thread that asks for it."""

    def __init__(self, settings: Settings, on_refusal: Callable[[str], None]) -> None:
        self._settings, self._on_refusal = settings, on_refusal
        self._lock = threading.Lock()
        self._opened: JobStorage | None = None

    def get(self) -> JobStorage:
        """The storage. Raises ConfigError for a database URL of another kind."""
        with self._lock:
            if self._opened is None:
                # Imported here because it loads SQLAlchemy, which a service without jobs need not wait for.
                from service.jobs.storage import JobStorage

                self._opened = JobStorage.open(self._settings, self._on_refusal)
            return self._opened

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._opened is not None:
                self._opened.database.close()


@dataclass(frozen=True, slots=True)
class JobBackend:
    """Files, feedback and jobs in one database; the first use opens it.

    Their methods block. Routes call them through `run` and `run_on_disk`, whose threads are apart.
    """

    home: Path
    principal: Principal
    calls: CallExecutor
    disk: CallExecutor
    budget: TimeBudget
    _storage: _Storage

    @classmethod
    def open(cls, settings: Settings, on_refusal: Callable[[str], None] = lambda reason: None) -> JobBackend:
        """From the settings; `on_refusal` gets the reason when a quota refuses something.

        Raises ConfigError for a database URL of another kind.
        """
        storage = _Storage(settings, on_refusal)
        if settings.database_url:  # a wrong one ends the start
            storage.get()
        calls, disk = CallExecutor("database"), CallExecutor("disk")
        return cls(settings.home.absolute(), WORKER, calls, disk, TimeBudget(), storage)

    @property
    def database(self) -> Database:
        """The transactions."""
        return self._storage.get().database

    @property
    def store(self) -> JobStore:
        """Jobs, as the principal sees them."""
        return self._storage.get().store.on_behalf_of(self.principal)

    @property
    def files(self) -> Files:
        """Files, as the principal sees them."""
        return self._storage.get().files.on_behalf_of(self.principal)

    @property
    def feedback(self) -> FeedbackStore:
        """Feedback, as the principal sees it."""
        return self._storage.get().feedback.on_behalf_of(self.principal)

    def migrate(self) -> None:
        """Open the database, and create its tables or bring them up to date."""
        self.store.migrate()

    def on_behalf_of(self, principal: Principal) -> JobBackend:
        """The same database as `principal` sees it."""
        return replace(self, principal=principal)

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
        self._storage.close()
