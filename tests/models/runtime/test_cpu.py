"""Cores are divided whole: two threads of one never serve two processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.runtime import cpu


def one_thread(processor: int) -> tuple[int, int]:
    return 0, processor


def two_threads(processor: int) -> tuple[int, int]:
    """Eight cores of two threads each, numbered as Linux does: processor 8 is the second thread of core 0."""
    return 0, processor % 8


def two_packages(processor: int) -> tuple[int, int]:
    """Two packages whose processors alternate, each with cores of its own that are numbered from 0."""
    return processor % 2, processor // 2


@pytest.mark.parametrize(
    ("processors", "parts", "core_of", "expected"),
    [
        (range(2), 2, one_thread, [[0], [1]]),
        (range(4), 1, one_thread, [[0, 1, 2, 3]]),
        (range(5), 2, one_thread, [[0, 1], [2, 3, 4]]),
        (range(16), 2, two_threads, [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]),
        (range(16), 8, two_threads, [[core, core + 8] for core in range(8)]),
        (range(8), 2, two_packages, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ([3, 7, 9], 3, one_thread, [[3], [7], [9]]),
        (range(16), 9, two_threads, None),
        (range(1), 2, one_thread, None),
    ],
)
def test_cores_are_divided(
    processors: range, parts: int, core_of: cpu.CoreOf, expected: list[list[int]] | None
) -> None:
    assert cpu.divide(processors, parts, core_of) == expected


def test_this_machine_has_a_core_for_one_process() -> None:
    assert cpu.divide(cpu.usable_processors(), 1) == [cpu.usable_processors()]


@pytest.mark.parametrize(("allowed", "expected"), [(None, 3), (8.0, 3), (2.5, 2), (0.5, 1)])
def test_a_process_counts_the_processors_whose_time_it_has(
    allowed: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "usable_processors", lambda: [0, 1, 2])
    monkeypatch.setattr(cpu, "quota", lambda: allowed)
    assert cpu.count_cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores")
def test_only_what_the_process_may_use_counts() -> None:
    before = cpu.usable_processors()
    try:
        cpu.pin_to(before[:1])
        assert cpu.usable_processors() == before[:1]
    finally:
        cpu.pin_to(before)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_a_quota_is_read_from_control_groups(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu.quota(tmp_path) == expected
