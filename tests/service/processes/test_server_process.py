"""`sonde serve --workers 2` as real processes: both answer, their metrics are one, and who dies or ends harms
nobody.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import tiny_models
from tests.support.jobs import exists
from tests.support.processes import children, embed, require_clean_stop, servers, sonde_up
from tests.support.programs import PROGRAM
from tests.support.server import Served, free_port, metric, serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
FLAGS = ("--workers", "2", "--cache-mb", "0", "--metrics-port")


def lines(served: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (served.home / "server.log").read_text().splitlines() if line.startswith("{")]


def series(client: httpx.Client, name: str) -> float:
    """The one sample of a series, labels included."""
    [found] = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(found.rsplit(" ", 1)[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two processes that serve a tiny model. The last test ends them."""
    model = tiny_models.encoder(tmp_path_factory.mktemp("tiny") / "model")
    flags = (*FLAGS, str(free_port()), "--model", f"{MODEL}={model}")
    with serving(tmp_path_factory.mktemp("pair"), *flags) as served:
        yield served


def test_metrics_are_exact_whichever_process_answers(pair: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=pair.url, timeout=60)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            statuses = list(
                pool.map(
                    lambda client: {embed(client, f"text {at}", f"and {at}").status_code for at in range(20)}, clients
                )
            )
        assert statuses == [{200}] * 4
        route = 'route="/v1/embeddings"'
        for client in clients:
            assert series(client, f'sonde_requests_total{{{route},status="200"}}') == 80
            assert series(client, f"sonde_request_seconds_count{{{route}}}") == 80
            assert series(client, f'sonde_inputs_total{{model="{MODEL}",task="embedding"}}') == 160
            assert series(client, "sonde_ready") == 2
    answered = [line["process"] for line in lines(pair) if line["message"] == "request" and line.get("inputs")]
    assert (answered.count(0), answered.count(1)) == (40, 40)


def test_a_process_that_is_killed_comes_back_and_nothing_is_lost(pair: Served) -> None:
    with httpx.Client(base_url=pair.url, timeout=60) as client:
        counted = series(client, f'sonde_inputs_total{{model="{MODEL}",task="embedding"}}')
    first = servers(pair.process.pid)
    os.kill(first["server-0"], signal.SIGKILL)
    # Until all of its threads have ended its sockets are open, and a connection that is handed to it is lost with it.
    wait_until(lambda: any("ended with -9 and is started again" in line["message"] for line in lines(pair)))
    for number in range(10):
        with httpx.Client(base_url=pair.url, timeout=60) as client:
            assert embed(client, f"text {number}").status_code == 200
    wait_until(lambda: metric(pair.url, "sonde_ready") == 2, 30)
    assert metric(pair.url, "sonde_process_restarts_total") == 1
    now = servers(pair.process.pid)
    assert now["server-0"] != first["server-0"]
    assert now["server-1"] == first["server-1"]
    with httpx.Client(base_url=pair.url, timeout=60) as client:
        assert series(client, f'sonde_inputs_total{{model="{MODEL}",task="embedding"}}') == counted + 10


def test_sigterm_answers_those_inside_of_all(pair: Served) -> None:
    require_clean_stop(pair, servers(pair.process.pid).values())


def test_up_passes_it_on_and_nothing_is_left_when_all_is_killed(tmp_path: Path) -> None:
    with sonde_up(tmp_path, "--workers", "2", *PROGRAM) as (process, url):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        all_of_them = [pid for child in children(process.pid) for pid in (child, *children(child))]
        assert len(all_of_them) >= 4
        process.kill()
        wait_until(lambda: not any(exists(pid) for pid in all_of_them), 40)
