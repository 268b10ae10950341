"""The service as a process: how it starts, whom it lets in, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from service.cli import main
from tests.support import tiny_models
from tests.support.server import Served, free_port, metric, serving, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
LONG = "Where can I see what happened to the money that I sent to my landlord two weeks ago by bank transfer? " * 8


def sonde(*flags: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *flags, "--home", str(home)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )


def post(url: str, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/embeddings", json={"model": MODEL, **body}, headers=headers, timeout=60)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=30)


def accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.encoder(tmp_path_factory.mktemp("tiny") / "model")


FLAGS = ("--cache-mb", "0", "--receive-timeout-s", "0.5")


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, metrics_port: int) -> Iterator[Served]:
    """A service with a tiny model, for tests that leave it as it is."""
    flags = (*FLAGS, "--model", f"{MODEL}={tiny_model}", "--metrics-port", str(metrics_port))
    with serving(tmp_path_factory.mktemp("calm"), *flags) as served:
        yield served


@pytest.fixture
def brief(tmp_path: Path, tiny_model: Path) -> Iterator[Served]:
    """A service with a tiny model, for tests that end it or lock it. Half a millisecond computes a long text."""
    with serving(tmp_path, "--cache-mb", "0", "--model", f"{MODEL}={tiny_model}") as served:
        yield served


def test_metrics_may_have_a_port_of_their_own(calm: Served, metrics_port: int) -> None:
    assert "sonde_ready 1.0" in httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text


def test_the_ready_line_works_as_it_is(calm: Served) -> None:
    assert calm.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{calm.url}/health/ready").status_code == 200


def test_sigterm_answers_those_inside_and_ends_with_0(brief: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(post, brief.url, input=[f"{number} {LONG}" for number in range(150)]) for _ in range(4)]
        wait_until(lambda: metric(brief.url, "sonde_requests_in_flight") >= 4, 20)  # with the one that asks
        assert brief.stop() == 0
        assert [answer.result().status_code for answer in waiting] == [200] * 4
    log = (brief.home / "server.log").read_text()
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines()]  # a log that is no terminal is JSON alone
    assert [line.get("route") for line in lines].count("/v1/embeddings") == 4
    assert lines[-1]["message"] == "sonde serve has stopped"


@pytest.mark.usefixtures("executed_program")  # PyTorch can abort when the interpreter shuts down
def test_the_database_of_jobs_is_closed_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert httpx.get(f"{served.url}/v1/fine_tuning/jobs", timeout=60).status_code == 200
        [log] = tmp_path.rglob("*-wal")  # SQLite removes it with the last connection
        assert served.stop() == 0
    assert not log.exists()


def test_sigterm_while_the_model_is_loaded_ends_with_0(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--home", str(tmp_path), "--port", str(port)]
    command += [flag for number in range(6) for flag in ("--model", f"m{number}={MODEL}")]  # loading takes seconds
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: accepts(port), 30)
        process.terminate()
        said, logged = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, b""), logged.decode()[-2000:]


def test_readiness_ends_with_sigterm_and_liveness_does_not(brief: Served) -> None:
    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=brief.url) as probe:
        assert probe.get("/health/ready").status_code == 200
        waiting = [pool.submit(post, brief.url, input=[f"{number} {LONG}" for number in range(250)]) for _ in range(3)]
        wait_until(lambda: metric(brief.url, "sonde_requests_in_flight") >= 4, 20)
        brief.process.terminate()
        wait_until(lambda: probe.get("/health/ready").status_code == 503)
        assert probe.get("/health/live").status_code == 200
        refused = post(brief.url, input="too late")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert [answer.result().status_code for answer in waiting] == [200] * 3
    assert brief.process.wait(30) == 0


def test_a_body_that_was_on_its_way_at_sigterm_is_answered(brief: Served) -> None:
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        f"{len(body)}\r\n\r\n"
    )
    with connect(brief.url) as inside:
        inside.sendall(head.encode() + body[:5])
        wait_until(lambda: metric(brief.url, "sonde_requests_in_flight") >= 2, 20)  # with the one that asks
        brief.process.terminate()
        wait_until(lambda: httpx.get(f"{brief.url}/health/ready").status_code == 503)
        inside.sendall(body[5:])
        assert inside.recv(64).startswith(b"HTTP/1.1 200")
    assert brief.process.wait(30) == 0


HALF_A_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Le"
HALF_A_BODY = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)


def test_those_who_cannot_be_answered_in_time_are_told_so(tmp_path: Path, tiny_model: Path) -> None:
    flags = ("--cache-mb", "0", "--shutdown-s", "0.05", "--model", f"{MODEL}={tiny_model}")
    with serving(tmp_path, *flags) as served, ThreadPoolExecutor(4) as pool:
        texts = [f"{number} {LONG}" for number in range(2000)]
        waiting = [pool.submit(post, served.url, input=texts) for _ in range(3)]
        wait_until(lambda: metric(served.url, "sonde_requests_in_flight") >= 4, 20)
        assert served.stop() == 0
        answers = [answer.result() for answer in waiting]
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert answers[-1].json()["error"]["message"] == "the service is shutting down"


@pytest.mark.parametrize("start", [b"", HALF_A_HEAD, HALF_A_BODY], ids=["nothing", "half a head", "half a body"])
def test_slow_senders_are_cut_off(calm: Served, start: bytes) -> None:
    with connect(calm.url) as slow:
        began = time.monotonic()
        slow.sendall(start)
        while slow.recv(4096):
            pass
        assert 0.3 < time.monotonic() - began < 5
    assert post(calm.url, input="others go on").status_code == 200


def test_a_dripping_sender_is_cut_off_all_the_same(calm: Served) -> None:
    with connect(calm.url) as slow:
        began = time.monotonic()
        slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(OSError):  # a broken pipe or a reset, as the system likes
            while time.monotonic() - began < 10:
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 5


GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("start", "more"),
    [(GET, b"x: y\r\n" * 1000), (GET + b"x: ", b"y" * 8000), (b"GET /", b"a" * 8000)],
    ids=["ever more headers", "a header without end", "an address without end"],
)
def test_a_head_without_an_end_is_refused(calm: Served, start: bytes, more: bytes) -> None:
    with connect(calm.url) as caller:
        with contextlib.suppress(ConnectionError):  # closed while we still send
            caller.sendall(start)
            for _ in range(100):
                caller.sendall(more)
                time.sleep(0.001)
        head, _, body = caller.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "head_too_large"


def test_what_follows_a_body_without_end_is_cut_off(calm: Served) -> None:
    with connect(calm.url) as caller:
        start = (
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: "
            b"chunked\r\n\r\n"
        )
        caller.sendall(start + b"2\r\n{}\r\n0\r\n")
        with pytest.raises(ConnectionError):  # noqa: PT012  # which of them, depends
            for _ in range(400):
                caller.sendall(b"x: y\r\n" * 1000)
                time.sleep(0.001)


def test_heads_of_many_requests_on_one_connection_are_not_added_up(calm: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(calm.url).netloc)
    for _ in range(20):
        connection.request("GET", "/health/live", headers={"x": "y" * 8000})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
    connection.close()


def test_a_line_end_between_requests_does_not_keep_a_connection_open(calm: Served) -> None:
    with connect(calm.url) as caller:
        caller.sendall(GET + b"\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += caller.recv(65536)
        caller.sendall(b"\r\n")
        caller.settimeout(5)
        assert caller.recv(65536) == b""


def test_what_is_no_http_gets_an_error_like_all_others(calm: Served) -> None:
    with connect(calm.url) as caller:
        caller.sendall(b"hello\r\n\r\n")
        head, _, body = caller.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "malformed_request"


def test_callers_that_hang_up_are_not_computed(calm: Served) -> None:
    body = json.dumps({"model": MODEL, "input": [f"{number} {LONG}" for number in range(600)]}).encode()
    before, gone = metric(calm.url, "sonde_tokens_total"), metric(calm.url, "sonde_client_gone_total")
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(post, calm.url, input=[f"{number} {LONG}" for number in range(600)]) for _ in range(3)]
        wait_until(lambda: metric(calm.url, "sonde_requests_in_flight") >= 3, 20)
        _send_and_hang_up(calm.url, body)
        wait_until(lambda: metric(calm.url, "sonde_client_gone_total") == gone + 1, 50)
        assert [answer.result().status_code for answer in others] == [200] * 3
    assert metric(calm.url, "sonde_tokens_total") - before < 3.5 * 600 * 48


def _send_and_hang_up(url: str, body: bytes) -> None:
    with connect(url) as gone:
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
            f"{len(body)}\r\n\r\n"
        )
        gone.sendall(head.encode() + body)


def test_a_deadline_ends_a_request_that_is_half_done(calm: Served) -> None:
    answer = post(calm.url, {"X-Request-Timeout-Ms": "40"}, input=[f"{number} {LONG}" for number in range(1000)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: metric(calm.url, "sonde_queue_items") == 0)
    assert post(calm.url, input="others go on").status_code == 200


def test_overload_is_refused_early_and_passes(tmp_path: Path, tiny_model: Path) -> None:
    flags = ("--cache-mb", "0", "--max-queued-items", "100", "--model", f"{MODEL}={tiny_model}")
    with serving(tmp_path, *flags) as served:
        with ThreadPoolExecutor(16) as pool:
            answers = list(
                pool.map(
                    lambda number: post(served.url, input=[f"{number} {at} {LONG[:200]}" for at in range(60)]),
                    range(48),
                )
            )
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
        assert metric(served.url, "sonde_shed_total") == sum(answer.status_code == 429 for answer in answers)
        assert post(served.url, input="calm again").status_code == 200


def test_a_key_works_as_soon_as_it_is_made_and_no_longer_than_it_is_kept(
    brief: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert post(brief.url, input="a").status_code == 200
    assert main(["keys", "create", "--scope", "infer", "--home", str(brief.home)]) == 0
    printed = capsys.readouterr()
    secret, key_id = printed.out.strip(), printed.err.split()[0]
    assert post(brief.url, input="a").status_code == 401
    assert post(brief.url, {"Authorization": f"Bearer {secret}"}, input="a").status_code == 200
    assert main(["keys", "revoke", key_id, "--home", str(brief.home)]) == 0
    assert post(brief.url, {"Authorization": f"Bearer {secret}"}, input="a").status_code == 401
    assert secret not in (brief.home / "keys.json").read_text() + (brief.home / "server.log").read_text()


def test_beyond_loopback_it_needs_a_key_or_a_word(tmp_path: Path) -> None:
    ended = sonde("serve", "--host", "0.0.0.0", "--port", "0", home=tmp_path)
    assert ended.returncode == 2
    assert "sonde keys create" in ended.stderr
    assert "--insecure" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--model", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["--port", "http"], 2, "--port (or SONDE_PORT)"),
        (["--model", "a=all-MiniLM-L6-v2", "--model", "a=all-MiniLM-L6-v2"], 2, "two models are called 'a'"),
        (["--device", "cuda"], 1, "cuda"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, flags: list[str], code: int, said: str) -> None:
    ended = sonde("serve", "--port", "0", *flags, home=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr


def test_a_port_that_is_taken_is_a_failure(calm: Served, tmp_path: Path) -> None:
    ended = sonde("serve", "--port", calm.url.rsplit(":", 1)[1], home=tmp_path)
    assert ended.returncode == 1
    assert "Address already in use; --port takes another" in ended.stderr


def test_a_model_that_is_damaged_is_not_served(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    ended = sonde("serve", "--port", "0", "--model", str(path), home=tmp_path)
    assert ended.returncode == 1
    assert "models cannot be loaded: model/model.safetensors: expected a header within its 2,000 bytes" in ended.stderr


def test_logs_are_json_and_never_hold_what_was_sent(calm: Served) -> None:
    post(calm.url, input="xyzzy is a secret word", user="plugh")
    post(calm.url, input=["xyzzy", ""])
    post(calm.url, {"X-Request-ID": "id-42"}, input="xyzzy " * 5000)
    log = calm.home / "server.log"
    wait_until(lambda: "id-42" in log.read_text())  # written when the answer has been sent
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [mine] = [line for line in lines if line.get("request_id") == "id-42"]
    assert (mine["outcome"], mine["truncated"], mine["inputs"]) == ("ok", 1, 1)
    assert "xyzzy" not in (calm.home / "server.log").read_text()


def test_a_megabyte_in_one_text_is_cut_and_said(server: Served) -> None:
    began = time.monotonic()
    answer = post(server.url, input="all work and no play makes Jack a dull boy " * 25_000)
    assert answer.status_code == 200
    assert answer.json()["data"][0]["truncated"] is True
    assert answer.headers["x-sonde-truncated"] == "1"
    assert time.monotonic() - began < 5


def test_the_same_reference_is_not_paid_for_twice(server: Served) -> None:
    body: dict[str, Any] = {
        "model": MODEL,
        "input": "is the pump leaking?",
        "reference": [f"{at}: where is invoice {at}?" for at in range(200)],
    }
    first, second = (httpx.post(f"{server.url}/v1/anomaly/score", json=body, timeout=60).json() for _ in range(2))
    assert (first["reference"]["cached"], second["reference"]["cached"]) == (False, True)
    assert second["usage"]["total_tokens"] < first["usage"]["total_tokens"] / 50
    assert first["data"] == second["data"]
    assert second["data"][0]["is_anomaly"] is True


def test_many_callers_get_each_their_own(server: Served) -> None:
    texts = [f"number {at} of many different texts" for at in range(64)]
    with ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda text: post(server.url, input=text).json()["data"][0]["embedding"], texts))
    together = [item["embedding"] for item in post(server.url, input=texts).json()["data"]]
    cosines = (np.array(alone) * np.array(together)).sum(axis=1)
    assert cosines.min() > 0.999
    assert (np.array(alone) @ np.array(together).T).argmax(axis=1).tolist() == list(range(64))


def test_one_connection_carries_many_requests(server: Served) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    local = None
    for number in range(5):
        connection.request(
            "POST",
            "/v1/embeddings",
            json.dumps({"model": MODEL, "input": f"{number}"}),
            {"content-type": "application/json"},
        )
        assert connection.getresponse().read()
        assert connection.sock is not None
        local = local or connection.sock.getsockname()
        assert connection.sock.getsockname() == local
    connection.close()
