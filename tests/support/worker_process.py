"""`python -m tests.support.worker_process HOME DATABASE_URL FLAG…`: a worker with `tests/fakes/trainer.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from models.errors import ArtifactError
from models.filesystem import Permit
from models.registry import artifact, registry
from models.registry.artifact import Manifest, verify
from service import logs
from service.config import Settings
from service.jobs.worker import work
from tests.support.processes import follow_clock
from tests.support.server import wait_until

TRAINER = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "trainer.py"))
FAST = {"job_poll_s": "0.1", "job_lease_s": "2", "job_stop_s": "5"}


def check_files(path: Path, spec: str) -> str | None:
    """In place of the check on golden inputs, which the fake trainer's model has none of, check the files' hashes."""
    try:
        verify(path)
    except ArtifactError as error:
        return error.message
    return None


def hold_publication(gate: Path) -> None:
    """Stand still between the permit to name a version and its name, until `gate` exists.

    The file `<gate>.reached` says that a publication stands there.
    """

    def held(staging: Path, path: Path, manifest: Manifest, permit: Permit) -> None:
        def permit_and_wait() -> None:
            permit()
            gate.with_suffix(".reached").touch()
            wait_until(gate.exists, 120)

        artifact.publish(staging, path, manifest, permit_and_wait)

    patch.object(registry, "publish", held).start()


def main() -> int:
    home, url, *flags = sys.argv[1:]
    given = dict(flag.split("=", 1) for flag in flags)
    if clock := given.pop("clock", None):
        follow_clock(Path(clock))
    if gate := given.pop("publication_gate", None):
        hold_publication(Path(gate))
    logs.configure("info")
    settings = Settings.read({"home": home, "database_url": url, **FAST, **given})
    return work(settings, command=TRAINER, check=check_files)


if __name__ == "__main__":
    sys.exit(main())
