"""The process that counts the rows of a file before it judges a name's versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.errors import InvalidRequest, Unavailable
from service.jobs import held_out_check
from service.jobs.held_out_check import count_rows
from tests.support.image_files import archive, discs

pytestmark = pytest.mark.slow

MOST = 4 << 30


def about(path: Path, content: str) -> dict[str, object]:
    path.write_text(content)
    return {"path": path, "sha256": "0", "task": "classification"}


def test_rows_are_counted_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert count_rows(about(tmp_path / "rows.jsonl", '{"text": "a", "label": "yes"}\n' * 3), MOST) == 3
    with pytest.raises(InvalidRequest, match="expected columns text and label for task classification"):
        count_rows(about(tmp_path / "rows.jsonl", '{"text": "a"}\n'), MOST)


def test_images_are_counted_too(tmp_path: Path) -> None:
    """As `_count` does in the process: a version trained on images has their kind."""
    path = archive(tmp_path / "images.zip", discs(2))
    bound = {"path": str(path), "sha256": "0", "task": "classification", "hyperparameters": {"kind": "images"}}
    assert held_out_check._count(json.dumps(bound).encode()) == 6


@pytest.mark.usefixtures("executed_program")  # a fork has PyTorch's memory
def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    rows = about(tmp_path / "rows.jsonl", '{"text": "a", "label": "yes"}\n')
    with pytest.raises(InvalidRequest, match="took more than 20,971,520 bytes of memory: bind fewer or smaller rows"):
        count_rows(rows, 20 << 20)


def test_columns_may_be_longer_than_a_command_line(tmp_path: Path) -> None:
    rows = about(tmp_path / "rows.jsonl", '{"text": "a", "label": "yes"}\n')
    with pytest.raises(InvalidRequest, match="line 1"):
        count_rows({**rows, "columns": {"text": "x" * 200_000}}, MOST)


def test_a_process_that_dies_or_takes_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = about(tmp_path / "rows.jsonl", "")
    monkeypatch.setattr(held_out_check, "with_parent_death_signal", lambda number, *command: ["false"])
    with pytest.raises(InvalidRequest, match="the process that read its rows ended with 1; bind fewer or smaller rows"):
        count_rows(file, MOST)
    monkeypatch.setattr(held_out_check, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(held_out_check, "with_parent_death_signal", lambda number, *command: ["sleep", "5"])
    with pytest.raises(InvalidRequest, match=r"not read within 0\.1 s; bind fewer"):
        count_rows(file, MOST)


def test_one_file_is_checked_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_check, "_run", lambda file, most: 7)
    with (
        held_out_check._TURN,  # as while another request checks a file
        pytest.raises(Unavailable, match="another file is being checked: try again in a few seconds"),
    ):
        count_rows({}, MOST)
    assert count_rows({}, MOST) == 7
