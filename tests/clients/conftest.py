"""Runs programs of clients in the clients' own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environment import CannotInstall, interpreter

RunClient = Callable[[str, str], Any]
# LiteLLM would ask GitHub for its list of prices.
_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@pytest.fixture(scope="session")
def client_python() -> Path:
    try:
        return interpreter()
    except CannotInstall as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vocabularies(client_python: Path) -> Path:
    """A directory with OpenAI's vocabularies as tiktoken caches them; LiteLLM brings it along."""
    code = "import litellm, pathlib; print(pathlib.Path(litellm.__file__).parent / 'litellm_core_utils/tokenizers')"
    return Path(_run(client_python, code).strip().splitlines()[-1])


@pytest.fixture
def run_client(client_python: Path, vocabularies: Path) -> RunClient:
    """A function that runs a client's program with the service's `url`, and gives what it assigns to `result`."""

    def run(program: str, url: str) -> Any:
        code = f"import json\nurl = {url!r}\n{program}\nprint(json.dumps(result))"
        return json.loads(_run(client_python, code, TIKTOKEN_CACHE_DIR=str(vocabularies)).splitlines()[-1])

    return run


def _run(python: Path, code: str, **variables: str) -> str:
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **_OFFLINE, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
