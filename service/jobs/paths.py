"""The paths of a job's files below SONDE_HOME. Pass only ids that the store has handed out."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT = {"job.json", "result.json", "error.json", "report.json", "report.md", "trainer.log", "incumbent.json"}


def job_directory(home: Path, job: str) -> Path:
    """The directory of a job."""
    return home / "jobs" / job


def attempt_directory(home: Path, job: str, attempt: int) -> Path:
    """The directory of one attempt; no other attempt writes there."""
    return job_directory(home, job) / f"attempt-{attempt}"


def attempts(home: Path, job: str) -> list[Path]:
    """The attempts' directories, newest first."""
    found = job_directory(home, job).glob("attempt-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("attempt-")), reverse=True)


def report(home: Path, job: str, suffix: str) -> Path | None:
    """The newest report, `suffix` being json or md; None while there is none."""
    return next((path for one in attempts(home, job) if (path := one / f"report.{suffix}").is_file()), None)


def checkpoint(home: Path, job: str) -> Path | None:
    """The newest checkpoint, also one whose training process died before reporting it; None without any.

    Training processes write checkpoints whole or not at all, as `checkpoints/step-…` anywhere in the attempt.
    """
    for one in attempts(home, job):
        if found := list(one.rglob("checkpoints/step-*")):
            return max(found, key=lambda path: path.stat().st_mtime_ns)
    return None


def remove_leftovers(home: Path, job: str) -> None:
    """Remove a finished job's checkpoints, published results and exported rows. Two workers may do so at once."""
    for directory in attempts(home, job):
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in KEPT:
                path.unlink(missing_ok=True)
