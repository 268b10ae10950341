"""`sonde serve --fronts 2` as real processes: one engine for both, and each death costs what it must and no more."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support import tiny_models
from tests.support.jobs import exists
from tests.support.processes import children, embed, require_clean_stop, servers, sonde_up
from tests.support.programs import PROGRAM
from tests.support.server import Served, free_port, metric, serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
FLAGS = ("--fronts", "2", "--metrics-port")


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two fronts and an engine of a tiny model. The last test ends them."""
    model = tiny_models.encoder(tmp_path_factory.mktemp("tiny") / "model")
    flags = (*FLAGS, str(free_port()), "--model", f"{MODEL}={model}")
    with serving(tmp_path_factory.mktemp("fronts"), *flags) as served:
        yield served


def test_both_fronts_compute_in_one_engine_with_one_cache(fronts: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=fronts.url, timeout=60)) for _ in range(2)]
        answers = [embed(client, "the same text").json()["data"] for client in clients]
    assert answers[0] == answers[1]
    assert metric(fronts.url, "sonde_cache_misses_total") == 1
    assert metric(fronts.url, "sonde_cache_hits_total") == 1
    assert metric(fronts.url, "sonde_inputs_total") == 2
    assert metric(fronts.url, "sonde_ready") == 2
    assert metric(fronts.url, "sonde_processes") == 3
    assert metric(fronts.url, "sonde_model_info") == 1
    assert set(servers(fronts.process.pid)) == {"front-0", "front-1", "engine"}


def test_routes_beside_embeddings_work_in_a_front(fronts: Served) -> None:
    with httpx.Client(base_url=fronts.url, timeout=60) as client:
        labels = {"model": MODEL, "input": "my parcel is late", "labels": ["delivery", "payment"]}
        assert client.post("/v1/classify", json=labels).status_code == 200
        reranked = client.post("/v1/rerank", json={"model": MODEL, "query": "a", "documents": ["a", "b"]})
        assert reranked.json()["results"][0]["index"] == 0
        assert client.post("/v1/tokenize", json={"model": MODEL, "input": ["hello"]}).status_code == 200
        assert client.get(f"/v1/models/{MODEL}").json()["id"] == MODEL


def test_an_engine_that_is_killed_is_replaced_and_the_fronts_answer_503_meanwhile(fronts: Served) -> None:
    first = servers(fronts.process.pid)
    with httpx.Client(base_url=fronts.url, timeout=60) as client:
        assert embed(client, "before").status_code == 200
        os.kill(first["engine"], signal.SIGKILL)
        wait_until(lambda: client.get("/health/ready").status_code == 503, 10)
        refused = embed(client, "meanwhile")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: client.get("/health/ready").status_code == 200, 60)
        assert embed(client, "after").status_code == 200
    now = servers(fronts.process.pid)
    assert now["engine"] != first["engine"]
    assert {name: pid for name, pid in now.items() if name != "engine"} == {
        name: pid for name, pid in first.items() if name != "engine"
    }


def test_a_front_that_is_killed_is_replaced_while_the_other_serves(fronts: Served) -> None:
    first = servers(fronts.process.pid)
    os.kill(first["front-0"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{first['front-0']}").exists())  # the supervisor knows
    for number in range(10):
        with httpx.Client(base_url=fronts.url, timeout=60) as client:
            assert embed(client, f"text {number}").status_code == 200
    wait_until(lambda: servers(fronts.process.pid).keys() == first.keys(), 60)
    wait_until(lambda: metric(fronts.url, "sonde_ready") == 2, 60)
    now = servers(fronts.process.pid)
    assert now["engine"] == first["engine"]
    assert now["front-0"] != first["front-0"]


def test_sigterm_answers_those_inside_and_the_engine_ends_last(fronts: Served) -> None:
    require_clean_stop(fronts, servers(fronts.process.pid).values())


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where processes keep their sockets: a directory with a short path, for that of a socket has 108 bytes."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


@pytest.mark.usefixtures("executed_program")  # as in production, all of them
def test_no_process_and_no_socket_file_is_left_when_the_parent_is_killed(tmp_path: Path, places: Path) -> None:
    segments = set(Path("/dev/shm").iterdir())  # where shared memory would be
    with sonde_up(tmp_path, "--fronts", "2", *PROGRAM) as (process, url):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        all_of_them = [pid for child in children(process.pid) for pid in (child, *children(child))]
        assert len(all_of_them) == 6, "with the one that they are forked from"
        process.kill()
        wait_until(lambda: not any(exists(pid) for pid in all_of_them), 60)
    assert [path for path in places.rglob("*") if path.name.startswith("sonde-") or path.is_socket()] == []
    left = set(Path("/dev/shm").iterdir()) - segments
    assert {path for path in left if "sonde" in path.name and path.is_file()} == set()  # others may have folders there
