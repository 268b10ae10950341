"""The queue of jobs: a small port, and DBOS behind it.

The store says what is true of a job; the queue only says to some worker "run this, now". Hence every operation may
be repeated, and a queue that lost everything is filled again from the store. One queueing of a job is a dispatch and
has a number, so that an old one which turns up late is recognised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from service.errors import Unavailable
from service.jobs.database import engine_url

if TYPE_CHECKING:
    from dbos import DBOSClient

log = logging.getLogger(__name__)

Run = Callable[[str, int], None]

_QUEUE = "train"
_WORKFLOW = "train"
# DBOS hands a workflow only to workers of the same version; a hash of the code would strand jobs with every release.
_SCHEMA = "sonde-jobs-1"
_OVER = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


class JobQueue(Protocol):
    """A queue of dispatches. Raises Unavailable when it cannot be reached."""

    def submit(self, job: str, dispatch: int) -> None:
        """Queue a dispatch; nothing happens when it is queued or was."""

    def ensure(self, job: str, dispatch: int, alive: Collection[str]) -> bool:
        """Have a dispatch waiting or running on one of the workers `alive`; False when it has been run to its end."""

    def close(self) -> None:
        """Close connections."""


class DbosEngine:
    """DBOS on SQLite beside the jobs' own file, or in the jobs' PostgreSQL, in a schema of its own.

    `client` methods need no DBOS in the process; `start` makes this process a worker called `worker`.
    """

    def __init__(self, url: str, home: Path) -> None:
        self._url = engine_url(url, home, "queue.sqlite")
        self._client: DBOSClient | None = None

    def migrate(self) -> None:
        """Create or update DBOS's tables. The worker's part; the API waits until they are there."""
        from dbos import DBOS

        DBOS.migrate(self._url)

    def submit(self, job: str, dispatch: int) -> None:
        """See JobQueue."""
        self._ask(
            lambda client: client.enqueue(
                {
                    "workflow_name": _WORKFLOW,
                    "queue_name": _QUEUE,
                    "workflow_id": _id(job, dispatch),
                    "app_version": _SCHEMA,
                },
                job,
                dispatch,
            )
        )

    def ensure(self, job: str, dispatch: int, alive: Collection[str]) -> bool:
        """See JobQueue."""
        found = self._ask(
            lambda client: client.list_workflows(workflow_ids=[_id(job, dispatch)], load_input=False, load_output=False)
        )
        if not found:
            self.submit(job, dispatch)
        elif found[0].status in _OVER:
            return False
        elif found[0].status == "PENDING" and found[0].executor_id not in alive:
            log.warning("a worker is gone; its job is queued again", extra={"job": job, "worker": found[0].executor_id})
            self._ask(lambda client: client.resume_workflow(_id(job, dispatch), queue_name=_QUEUE))
        return True

    def start(self, worker: str, run: Run, poll_s: float) -> None:
        """Take dispatches one at a time and `run` each in a thread of DBOS's."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        DBOS(
            config={
                "name": "sonde",
                "system_database_url": self._url,
                "executor_id": worker,
                "application_version": _SCHEMA,
                "serializer": DBOSPortableJSONSerializer(),
                "run_migrations": False,
                "log_level": "WARNING",
            }
        )

        @DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=None)
        def train(job: str, dispatch: int) -> None:
            # Not a step: what has been done lies in the store and in checkpoints, and a repeated run finds it there.
            run(job, dispatch)

        DBOS.listen_queues([_QUEUE])
        DBOS.launch()
        DBOS.register_queue(_QUEUE, worker_concurrency=1, polling_interval_sec=poll_s)

    def stop(self) -> None:
        """Take no more dispatches."""
        from dbos import DBOS

        DBOS.destroy()

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.destroy()
            self._client = None

    def _ask(self, what: Callable[[DBOSClient], Any]) -> Any:
        try:
            return what(self._connect())
        except Exception as error:  # DBOS raises its own, SQLAlchemy's and bare ones; all mean that the queue is away
            raise Unavailable("the queue of jobs does not answer", retry_after_s=2) from error

    def _connect(self) -> DBOSClient:
        if self._client is None:
            from dbos import DBOSClient, DBOSPortableJSONSerializer

            options: dict[str, Any] = {
                "serializer": DBOSPortableJSONSerializer(),
                "lazy": True,
                "retry_connection_errors": False,
            }
            self._client = DBOSClient(system_database_url=self._url, application_name="sonde", **options)
        return self._client


class FakeEngine:
    """A queue in memory, which hands out what was submitted when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, int]] = []
        self.seen: set[tuple[str, int]] = set()

    def submit(self, job: str, dispatch: int) -> None:
        """See JobQueue."""
        if (job, dispatch) not in self.seen:
            self.seen.add((job, dispatch))
            self.waiting.append((job, dispatch))

    def ensure(self, job: str, dispatch: int, alive: Collection[str]) -> bool:
        """See JobQueue."""
        self.submit(job, dispatch)
        return (job, dispatch) in self.waiting

    def close(self) -> None:
        """Nothing to close."""


def _id(job: str, dispatch: int) -> str:
    return f"{job}/{dispatch}"
