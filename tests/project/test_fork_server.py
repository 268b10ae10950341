"""Which commands the tests fork instead of executing them."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import httpx
import pytest

from models.interpreter import RUN_MODULE
from tests.support import fork_server
from tests.support.fork_server import Forking

SERVE = [sys.executable, "-m", "service.cli", "serve"]


def test_a_process_of_tests_is_a_fork() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("these tests run in the process that was started")
    assert Forking.current is not None
    assert "fork_server" in Path("/proc/self/cmdline").read_text()


def test_a_fork_shares_huge_pages() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("these tests run in the process that was started")
    huge = re.search(r"AnonHugePages:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text())
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 1) or huge is None:
        pytest.skip("this kernel moves no memory into huge pages on request")
    assert int(huge[1]) > 0


def test_clients_of_forks_share_the_certificates() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("these tests run in the process that was started")
    contexts = [httpx.HTTPTransport()._pool._ssl_context for _ in range(2)]
    assert contexts[0] is contexts[1]


@pytest.mark.parametrize(
    ("words", "variables", "forked"),
    [
        (SERVE, {}, True),
        ([*RUN_MODULE, *SERVE[2:]], {}, True),
        (SERVE, {"OMP_NUM_THREADS": "7"}, False),
        ([sys.executable, "-m", "pip", "list"], {}, False),
        ([sys.executable, "-c", "print()"], {}, False),
        (["true"], {}, False),
    ],
)
def test_programs_of_ours_are_forked_unless_they_read_other_variables(
    words: list[str], variables: dict[str, str], forked: bool
) -> None:
    assert fork_server._may_be_forked(words, os.environ | variables) == forked
