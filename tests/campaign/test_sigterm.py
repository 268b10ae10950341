"""SIGTERM under load loses no request that was sent before it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.campaign.conftest import Figure
from tests.support import tiny_models
from tests.support.server import Served, serving, wait_until
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(0)]

MODEL = "all-MiniLM-L6-v2"
CLIENTS = 8
BODY = json.dumps(
    {"model": MODEL, "input": [f"text {number} of a request that is under way" for number in range(64)]}
).encode()


@dataclass
class Client(threading.Thread):
    """Sends requests over one connection until the server refuses; keeps each one's start and outcome."""

    url: str
    outcomes: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        while not self.outcomes or self.outcomes[-1][1] == "200":
            sent = time.monotonic()
            try:
                connection.request("POST", "/v1/embeddings", BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
            self.outcomes.append((sent, outcome))
        connection.close()


def test_no_request_is_lost(tmp_path: Path, size: Size, figure: Figure) -> None:
    rounds, counted = size.of(2, 20), Counter[str]()
    model = tiny_models.encoder(tmp_path / "model")
    for number in range(rounds):
        (home := tmp_path / str(number)).mkdir()
        with serving(home, "--cache-mb", "0", "--model", f"{MODEL}={model}") as served:
            counted += _stop_under_load(served)
    lost = sum(counted.values()) - counted["200"]
    figure(f"{rounds} stops, {lost} of {sum(counted.values())} requests lost")
    assert lost == 0, counted


def _stop_under_load(served: Served) -> Counter[str]:
    """How the requests ended that were sent before the signal."""
    clients = [Client(served.url) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    wait_until(lambda: all(len(client.outcomes) >= 3 for client in clients), 60)
    signalled = time.monotonic()
    assert served.stop() == 0
    for client in clients:
        client.join(30)
        assert not client.is_alive()
    return Counter(outcome for client in clients for sent, outcome in client.outcomes if sent < signalled)
