"""`python -m tests.support.one_write OPERATION HOME`: one change to a home, for tests that make its system calls fail.

Exit code 0: done. 3: refused by an error that the service answers with. Anything else is a fault.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from models.errors import SondeError
from models.filesystem import is_full
from models.registry.registry import Registry
from service.auth import Keyring
from tests.support.artifacts import NAME, numbered

REFUSED = 3


def promote(home: Path) -> None:
    """Publish a version of `home/source` and put it in service."""
    registry = Registry(home / "models")
    registry.promote(NAME, registry.publish(NAME, home / "source", numbered(owner=None)), by="job", why="it is better")


def create_key(home: Path) -> None:
    Keyring(home / "keys.json").create(["infer"])


def upload(home: Path) -> None:
    from tests.support.jobs import JobHarness

    JobHarness(home).upload()


def start_job(home: Path) -> None:
    """Start the job of one idempotency key."""
    from service.jobs.records import IdempotencyKey
    from tests.support.jobs import JobHarness, new_job, render_id

    JobHarness(home).store.create(new_job(), render_id, IdempotencyKey("key-1", "k", "f" * 64))


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "promote": promote,
    "create_key": create_key,
    "upload": upload,
    "start_job": start_job,
}


def main(operation: str, home: str) -> int:
    try:
        OPERATIONS[operation](Path(home))
    except (SondeError, OSError) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
