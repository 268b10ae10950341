"""How the tests run: their options, their order, and the processes that run them."""

from __future__ import annotations

import gc
import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

from tests.support.bytecode import compile_tests
from tests.support.fork_server import Forking
from tests.support.worker_messages import send_fewer_messages

# Where more processes of tests compute than there are processors, threads of PyTorch would spin until preempted.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# `make test` draws the same examples in every run; `make test-properties` draws anew. A busy machine is no finding.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("free", max_examples=1000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    campaign = parser.getgroup("campaign")
    campaign.addoption("--full", action="store_true", help="run the campaign's checks with all their numbers")
    campaign.addoption("--seconds", type=float, help="length of the soak, the loads and the fuzzing")
    campaign.addoption("--minutes", help="file to which the soak adds a line each minute")

    parser.addoption(
        "--screenshots", type=Path, help="directory for the pictures of the console, as the docs show them"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file whose tests `-m` all leaves out: its `pytestmark` names a mark that is not wanted."""
    expression: str = config.getoption("markexpr")
    if collection_path.suffix != ".py" or re.search(r"\bor\b", expression):
        return None
    unwanted = set(re.findall(r"\bnot (\w+)", expression))
    marks = re.search(r"^pytestmark = (.*)", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"pytest\.mark\.(\w+)", marks[1])) if marks else set()
    return True if unwanted & named else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that start processes first, then those with slow tests: no process should end alone with a long one."""
    real, slow = ({item.path for item in items if item.get_closest_marker(name)} for name in ("real", "slow"))
    items.sort(key=lambda item: (item.path not in real, item.path not in slow))


def pytest_configure(config: pytest.Config) -> None:
    """Fork the processes that run the tests, and leave what those import to them. Collect no garbage meanwhile."""
    gc.disable()
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        forking = Forking()
        forking.install()
        config.add_cleanup(forking.close)
        forking.launch(training="not slow" not in config.getoption("markexpr"))
        compile_tests(config)  # while that one imports
    else:
        if hasattr(config, "workerinput"):
            send_fewer_messages(config)
        config.pluginmanager.import_plugin("tests.support.fixtures")


def pytest_collection_finish() -> None:
    """Leave what the imports made out of collections, which took a fifth of the tests' processor time.

    And let PyTorch's loggers propagate: pytest adds its handlers to each logger that does not, six times a test.
    """
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True
    gc.collect()
    gc.freeze()
    gc.set_threshold(7_000)
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def old_objects() -> Iterator[None]:
    """Leave what a file of tests has imported and cached out of the collections of the next."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def forking() -> Iterator[Forking]:
    """Programs of ours start as forks of one that has imported PyTorch; see `executed_programs`."""
    with closing(Forking.current or Forking()) as forking:
        forking.install()
        yield forking


@pytest.fixture(scope="module")
def executed_programs(forking: Forking) -> Iterator[None]:
    """For files of tests of how programs start and end: they are executed, as in production."""
    with forking.suspended():
        yield


@pytest.fixture
def executed_program(forking: Forking) -> Iterator[None]:
    """For a test of how a program starts or ends: it is executed, as in production."""
    with forking.suspended():
        yield
