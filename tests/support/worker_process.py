"""`python -m tests.support.worker_process HOME DATABASE_URL FLAG…`: a real worker whose trainer is
`tests/fakes/trainer.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from models.errors import ArtifactError
from models.registry.artifact import verify
from service import logs
from service.config import Settings
from service.jobs.worker import work

TRAINER = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "trainer.py"))


def intact(path: Path, spec: str) -> str | None:
    """Stands for the check on golden inputs, which the fake trainer's model has none of: the files are those of the
    manifest.
    """
    try:
        verify(path)
    except ArtifactError as error:
        return error.message
    return None


def main() -> int:
    home, url, *more = sys.argv[1:]
    given = dict(one.split("=", 1) for one in more)
    logs.configure("info")
    quick = {"job_poll_s": "0.1", "job_lease_s": "2", "job_stop_s": "5"}
    return work(Settings.read({"home": home, "database_url": url, **quick, **given}), command=TRAINER, check=intact)


if __name__ == "__main__":
    sys.exit(main())
