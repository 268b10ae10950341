"""Memory moves into huge pages, where Linux has them, and keeps its address and values."""

from __future__ import annotations

import itertools
import logging
import mmap
import platform
import re
import sys
from pathlib import Path

import pytest
import torch

from models.runtime import huge_pages
from models.runtime.huge_pages import PAGE_BYTES, move_to_huge_pages

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these pages")
LINUX = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2]) if sys.platform == "linux" else (0, 0)


def huge_bytes_at(address: int) -> int:
    """The bytes of huge pages in the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return 1024 * int(line.split()[1])
    raise AssertionError(f"no mapping holds {address:x}")


@pytest.mark.skipif(LINUX < (6, 1), reason="Linux moves memory on demand from 6.1 on")
def test_weights_move_and_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_MOST_SECONDS", 60.0)  # however busy the machine
    memory = mmap.mmap(-1, 8 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # or the system may give huge pages from the start
    weights = torch.frombuffer(memory, dtype=torch.float32)
    weights.copy_(torch.arange(len(weights)))
    memory.madvise(mmap.MADV_HUGEPAGE)
    address = weights.data_ptr()
    before = huge_bytes_at(address + PAGE_BYTES)
    moved = move_to_huge_pages([(address, weights.nbytes)])
    assert moved >= 7
    assert huge_bytes_at(address + PAGE_BYTES) - before >= 7 * PAGE_BYTES
    assert weights.data_ptr() == address
    assert torch.equal(weights, torch.arange(len(weights), dtype=torch.float32))


@needs_linux
def test_what_cannot_move_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "models.runtime.huge_pages"):
        assert move_to_huge_pages([(0, 10)]) == 0
    assert "0 of 1 pages with weights are huge now" in caplog.text
    assert "others are refused: " in caplog.text


@needs_linux
def test_a_start_does_not_wait_for_a_busy_system(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = itertools.count(step=0.4)
    monkeypatch.setattr("models.runtime.huge_pages.time.perf_counter", lambda: next(seconds))
    monkeypatch.setattr(huge_pages, "_collapse", lambda page: 0)
    with caplog.at_level(logging.INFO, "models.runtime.huge_pages"):
        assert move_to_huge_pages([(0, 8 * PAGE_BYTES)]) == 2
    assert "2 of 8 pages with weights are huge now" in caplog.text
    assert "6 are left, since it takes too long" in caplog.text


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with caplog.at_level(logging.INFO, "models.runtime.huge_pages"):
        assert move_to_huge_pages([(0, 10)]) == 0
    assert not caplog.records
