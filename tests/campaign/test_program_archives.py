"""Exported programs that were changed at random are refused, or computed: no code runs, and nothing crashes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign.conftest import Figure
from tests.support.size import Size

_PROCESSES = 4
# Each is a refusal, or a program that was read whole and runs as any model does.
_ALLOWED = {"refused", "equal", "another program", "failed while it ran"}


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_changed_programs_are_refused_or_computed(size: Size, figure: Figure, tmp_path: Path) -> None:
    count = size.of(800, 100_000) // _PROCESSES
    outcomes: Counter[str] = Counter()
    for seed in range(_PROCESSES if size.full else 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.support.program_fuzzer", str(seed), str(count), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"seed {seed}: exit code {done.returncode}; {done.stderr[-3000:]}"
        outcomes.update(json.loads(done.stdout.splitlines()[-1]))
        assert not (folder / "canary").exists()
    assert outcomes.keys() <= _ALLOWED, outcomes
    assert outcomes["refused"] > 0
    assert outcomes["equal"] > 0
    figure(", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.most_common()))
