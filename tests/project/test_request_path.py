"""How many of our files one embeddings request meets in a running server."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import httpx
import pytest

import models
import service
from service.api.app import create_app
from service.api.server import Server
from service.auth import Keyring
from service.config import Settings
from service.logs import JsonFormatter
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from tests.support import tiny_models
from tests.support.server import wait_until

# Before you raise it, look for a file on the way that only passes on.
MAX_FILES = 23
_PACKAGES = tuple(path for package in (models, service) for path in package.__path__)
_ROOT = Path(_PACKAGES[0]).parent


@contextmanager
def recording() -> Iterator[set[str]]:
    """Our files whose functions are called, by this thread or by threads that start meanwhile."""
    files: set[str] = set()

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGES):
            files.add(str(Path(frame.f_code.co_filename).relative_to(_ROOT)))

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """The log line of each request, as the service writes it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("sonde.requests")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def files_met_by_a_request(home: Path, model: Path) -> list[str]:
    """Serve a model and send two requests; return the files that the second one met."""
    options = {"home": home, "port": 0, "model": [f"tiny={model}"], "device": "cpu", "threads": 2}
    settings = Settings.read({**options, "registry_poll_s": 3600})  # a look at the registry is no part of a request
    metrics, met = Metrics(), list[str]()
    manager = ModelManager(settings, metrics)

    def answered(requests: int) -> bool:
        return lines.getvalue().count('"outcome"') == requests

    def call(url: str) -> None:
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                for number, text in enumerate(("the first warms up", "the second counts"), start=1):
                    files.clear()
                    answer = client.post("/v1/embeddings", json={"model": "tiny", "input": [text, text[::-1]]})
                    wait_until(partial(answered, number))  # the log line is written after the answer
                    met[:] = files if answer.status_code == 200 else []
        finally:
            server.should_exit = True

    with recording() as files, log_lines() as lines:
        app = create_app(settings, manager, Keyring(settings.keys_file), metrics)
        server = Server(app, settings, manager, lambda url, _: threading.Thread(target=call, args=(url,)).start())
        server.run()
        manager.close()
    assert lines.getvalue().count('"outcome":"ok"') == 2
    return sorted(met)


@pytest.mark.slow
def test_an_embeddings_request_meets_few_files(tmp_path: Path) -> None:
    met = files_met_by_a_request(tmp_path, tiny_models.encoder(tmp_path / "encoder"))
    expected = {f"service/{name}.py" for name in ("api/routes/embeddings", "engine/scheduler", "engine/runner", "logs")}
    assert expected | {"models/text/packed/bert.py", "models/text/tokenization.py"} <= set(met)
    assert len(met) <= MAX_FILES, "\n".join(met)
    page = (_ROOT / "docs/concepts/architecture.md").read_text(encoding="utf-8")
    listed = page.partition("## One request, step by step")[2].partition("\n## ")[0]
    assert [file for file in met if f"`{file}`" not in listed] == []
