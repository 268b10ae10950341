"""Where a job's files lie below SONDE_HOME. Only ids that the store has handed out come in here."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT = {"job.json", "result.json", "error.json", "report.json", "report.md", "trainer.log", "incumbent.json"}


def job_directory(home: Path, job: str) -> Path:
    """All of a job."""
    return home / "jobs" / job


def attempt_directory(home: Path, job: str, attempt: int) -> Path:
    """What one attempt writes; no other attempt writes there."""
    return job_directory(home, job) / f"attempt-{attempt}"


def attempts(home: Path, job: str) -> list[Path]:
    """The attempts' directories, newest first."""
    found = job_directory(home, job).glob("attempt-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("attempt-")), reverse=True)


def report(home: Path, job: str, suffix: str) -> Path | None:
    """The newest report, `suffix` being json or md; None while there is none."""
    return next((path for one in attempts(home, job) if (path := one / f"report.{suffix}").is_file()), None)


def checkpoint(home: Path, job: str) -> Path | None:
    """The newest checkpoint that lies there, also one that its trainer died too soon to report; None without any.

    Trainers write them whole or not at all, as `checkpoints/step-…` somewhere in their attempt's directory.
    """
    for one in attempts(home, job):
        if found := list(one.rglob("checkpoints/step-*")):
            return max(found, key=lambda path: path.stat().st_mtime_ns)
    return None


def remove_leftovers(home: Path, job: str) -> None:
    """Remove what a finished job no longer needs: checkpoints, results that are published, exported rows.

    Two workers may do so at once.
    """
    for directory in attempts(home, job):
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in KEPT:
                path.unlink(missing_ok=True)
