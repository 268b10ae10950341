"""The paths of a job's files, and the checkpoint from which the next attempt resumes."""

from __future__ import annotations

import os
from pathlib import Path

from service.jobs import paths


def make(home: Path, attempt: int, name: str, at: int) -> Path:
    path = paths.attempt_directory(home, "ftjob-1", attempt) / name
    path.mkdir(parents=True)
    os.utime(path, ns=(at, at))
    return path


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert paths.checkpoint(tmp_path, "ftjob-1") is None
    make(tmp_path, 1, "checkpoints/.step-00000005", 1)  # not whole yet
    assert paths.checkpoint(tmp_path, "ftjob-1") is None


def test_the_newest_of_the_newest_attempt_that_has_one_counts(tmp_path: Path) -> None:
    make(tmp_path, 2, "tuned/checkpoints/step-00000005", 10)
    newest = make(tmp_path, 2, "tuned/checkpoints/step-00000010", 20)
    make(tmp_path, 1, "tuned/checkpoints/step-00000040", 30)
    make(tmp_path, 10, "result", 40)
    assert paths.checkpoint(tmp_path, "ftjob-1") == newest


def test_attempts_are_ordered_by_number(tmp_path: Path) -> None:
    make(tmp_path, 9, "checkpoints/step-00000001", 1)
    later = make(tmp_path, 10, "checkpoints/step-00000002", 1)
    assert paths.checkpoint(tmp_path, "ftjob-1") == later
