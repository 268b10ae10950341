"""Runs programs of clients in the clients' own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environment import INFERENCE, KSERVE, CannotInstall, interpreter

RunClient = Callable[[str, str], Any]
# LiteLLM would ask GitHub for its list of prices.
_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
# Runs programs, one JSON text a line, and answers with what each assigns to `result`, or with its traceback. One
# process runs them all: importing these libraries takes longer than the calls. What they print goes to stderr.
_RUNNER = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    names = {}
    try:
        exec(json.loads(line), names)
        answer = {"result": names["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


@pytest.fixture(scope="session")
def client_python() -> Path:
    try:
        return interpreter()
    except CannotInstall as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vocabularies(client_python: Path) -> Path:
    """A directory with OpenAI's vocabularies as tiktoken caches them; LiteLLM brings it along."""
    [found] = client_python.parents[1].glob("lib/python*/site-packages/litellm/litellm_core_utils/tokenizers")
    return found


@pytest.fixture(scope="session")
def run_client(client_python: Path, vocabularies: Path) -> Iterator[RunClient]:
    """A function that runs a client's program with the service's `url`, and gives what it assigns to `result`."""
    with _running(client_python, {"TIKTOKEN_CACHE_DIR": str(vocabularies), **_OFFLINE}) as run:
        yield run


@pytest.fixture(scope="session")
def run_inference_client() -> Iterator[RunClient]:
    """The same for clients of the Open Inference Protocol, in an environment of theirs."""
    with _running_in(INFERENCE) as run:
        yield run


@pytest.fixture
def run_mlserver() -> Iterator[RunClient]:
    """The same in a process of its own: MLServer's messages of gRPC have the names of Triton's."""
    with _running_in(INFERENCE) as run:
        yield run


@pytest.fixture(scope="session")
def run_kserve_client() -> Iterator[RunClient]:
    """The same for KServe's client."""
    with _running_in(KSERVE) as run:
        yield run


@contextmanager
def _running_in(requirements: Path) -> Iterator[RunClient]:
    """A function that runs programs in the environment of a list of packages; skips where pip cannot install them."""
    try:
        python = interpreter(requirements)
    except CannotInstall as error:
        pytest.skip(str(error))
    with _running(python, {}) as run:
        yield run


@contextmanager
def _running(python: Path, variables: dict[str, str]) -> Iterator[RunClient]:
    """A function that runs programs in one process of an interpreter."""
    environment = {**os.environ, **variables}
    command = [str(python), "-c", _RUNNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        programs, answers = runner.stdin, runner.stdout

        def run(program: str, url: str) -> Any:
            print(json.dumps(f"url = {url!r}\n{program}"), file=programs, flush=True)
            answer = json.loads(answers.readline())
            assert "error" not in answer, answer["error"]
            return answer["result"]

        yield run
        programs.close()
