"""Compute routes answer the same on the hot path as by FastAPI's way."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from models.images.example_image import PIXEL
from service.api.app import _COMPUTING
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import TIMEOUT_HEADER, ComputeCall, ComputeRoute, HotPath
from service.api.http_protocol import TimeoutProtocol
from service.api.schemas.texts import EmbeddingsBody
from service.auth import Keyring
from tests.fakes.image import FakeDetector, FakeImages, FakeRecognizer
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeForecaster
from tests.support.app import MakeApp
from tests.support.call import HELD_S, held, wait_for_items
from tests.support.sensors import LOAD, with_sensors

PAIRS = {"query": "w1", "documents": ["w1 w2", "w3"]}
GOOD: dict[str, Any] = {
    "/v1/embeddings": {"model": "fake", "input": ["w1", "w2 w3"], "dimensions": 2},
    "/v1/classify": {"model": "fake", "input": "w1", "labels": ["w1", "w2"]},
    "/v1/anomaly/score": {"model": "fake", "input": "w1", "reference": ["w1", "w2", "w3"]},
    "/v1/forecast": {"model": LOAD, "series": [[1.0, 2.0]] * 40},
    "/v1/preprocess": {"model": "images", "images": [PIXEL]},
    "/v1/detect": {"images": PIXEL},
    "/v1/ocr": {"images": PIXEL, "lines": False},
    "/v1/rerank": {"model": "fake", **PAIRS},
    "/v2/rerank": {"model": "fake", **PAIRS},
    "/embed": {"inputs": "w1"},
    "/predict": {"inputs": "w1", "model": "judge"},
    "/rerank": {"query": "w1", "texts": ["w1 w2", "w3"]},
    "/similarity": {"inputs": {"source_sentence": "w1", "sentences": ["w1", "w2"]}},
    "/tokenize": {"inputs": "w1 w2"},
    "/decode": {"ids": [5, 6]},
    "/v1/tokenize": {"model": "fake", "input": "w1"},
    "/v1/detokenize": {"model": "fake", "tokens": [5, 6]},
    "/embeddings": {"input": ["w1", "w2 w3"]},
    "/openai/v1/embeddings": {"model": "fake", "input": "w1", "quantization": "int8"},
    "/v2/models/fake/infer": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["w1"]}]},
    "/v2/models/fake/versions/0/infer": {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["w1"]}]
    },
    "/v1/embed": {"model": "fake", "texts": ["w1", "w2"]},
    "/v2/embed": {"model": "fake", "texts": ["w1", "w2"], "embedding_types": ["float", "binary"]},
    "/api/embed": {"model": "fake", "input": ["w1", "w2"]},
    "/api/embeddings": {"model": "fake", "prompt": "w1"},
}
BAD: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"5",
    b'{"surprise":1}',
    b'{"model":"none","input":"w1"}',
    b'{"input":7,"inputs":7,"model":7}',
]
OWN = ("x-request-id", "server-timing")


def ten_slow_texts(make_app: MakeApp, default_timeout_s: float, **headers: str) -> int:
    """The status of a request whose ten batches take 0.12 s each."""
    model = FakeModel(fault=lambda batch: time.sleep(0.12))
    client = TestClient(make_app(model, default_timeout_s=default_timeout_s, max_batch_items=1, runners=1))
    texts = [f"w{number}" for number in range(10)]
    return client.post("/v1/embeddings", json={"model": "fake", "input": texts}, headers=headers).status_code


def test_a_request_that_is_being_computed_is_not_cut_by_the_default(make_app: MakeApp) -> None:
    assert ten_slow_texts(make_app, 1.0) == 200


def test_the_time_that_a_caller_sets_is_kept(make_app: MakeApp) -> None:
    assert ten_slow_texts(make_app, 60.0, **{"x-request-timeout-ms": "400"}) == 504


@pytest.mark.parametrize(
    ("name", "given", "status"),
    [
        ("x-stainless-read-timeout", "600", 200),
        ("X-Stainless-Timeout", "600.0", 200),
        ("x-stainless-read-timeout", "0.01", 504),
        ("x-stainless-read-timeout", "inf", 504),
        ("x-stainless-read-timeout", "NOT_GIVEN", 504),
    ],
)
def test_the_clients_own_time_is_the_deadline_where_longer(
    make_app: MakeApp, name: str, given: str, status: int
) -> None:
    model = FakeModel()
    client = TestClient(make_app(model, default_timeout_s=0.2))
    model.gate.clear()  # after the warm-up
    opening = threading.Timer(0.6 if status == 200 else HELD_S, model.gate.set)
    opening.start()
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers={name: given})
    opening.cancel()
    model.gate.set()
    assert answer.status_code == status


def with_each_kind(make_app: MakeApp) -> FastAPI:
    """An application with a model for each of the bodies."""
    made = make_app(FakeModel(), FakeModel("judge", task="classification"))
    for model in (FakeImages(), FakeDetector(), FakeRecognizer()):
        made.state.manager.add_images(model)
    return with_sensors(made, (LOAD, FakeForecaster()))


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return with_each_kind(make_app)


@pytest.fixture(scope="module")
def shared_app(make_shared_app: MakeApp) -> FastAPI:
    return with_each_kind(make_shared_app)


def seen(answer: Any) -> tuple[int, Any, dict[str, str]]:
    """What must be the same: all but the request's id and its times."""
    content = json.loads(re.sub(r'"(id|total_duration)":("[^"]*"|\d+)', r'"\1":""', answer.text))
    own = (*OWN, "content-length") if "total_duration" in content else OWN  # a time has digits of its own number
    return answer.status_code, content, {name: value for name, value in answer.headers.items() if name not in own}


def both(client: TestClient, path: str, content: bytes, **headers: str) -> list[Any]:
    """The direct way's answer and FastAPI's, which a deadline takes."""
    given = {"content-type": "application/json", **headers}
    return [client.post(path, content=content, headers={**given, **more}) for more in ({}, {TIMEOUT_HEADER: "60000"})]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("path", GOOD)
def test_good_requests_are_answered_alike(shared_app: FastAPI, path: str, encoding: str) -> None:
    client, content = TestClient(shared_app), json.dumps(GOOD[path]).encode()
    client.post(
        path, content=content, headers={"content-type": "application/json"}
    )  # what is kept of labels and references is there from now on
    direct, other = both(client, path, content, **{"accept-encoding": encoding})
    assert direct.status_code == 200, direct.text
    assert seen(direct) == seen(other)
    assert direct.headers["x-request-id"]


@pytest.mark.parametrize("path", GOOD)
def test_bad_requests_are_refused_alike(shared_app: FastAPI, path: str) -> None:
    client = TestClient(shared_app)
    for content in BAD:
        direct, other = both(client, path, content)
        assert 400 <= direct.status_code < 500, (content, direct.text)
        assert seen(direct) == seen(other), content


@pytest.mark.parametrize(
    "kind",
    ["application/a/b+json", "application/+json", "application/json+", "text/json", "application/x+json; a=b", "", ";"],
)
def test_content_types_are_read_or_refused_alike(app: FastAPI, kind: str) -> None:
    content = json.dumps(GOOD["/v1/embeddings"]).encode()
    direct, other = both(TestClient(app), "/v1/embeddings", content, **{"content-type": kind})
    assert seen(direct) == seen(other)


def test_a_key_without_the_scope_is_refused_alike(app: FastAPI) -> None:
    _, secret = Keyring(app.state.settings.keys_file).create(["train"])
    direct, other = both(TestClient(app), "/v1/embeddings", b"null", authorization=f"Bearer {secret}")
    assert (direct.status_code, direct.json()["error"]["code"]) == (403, "insufficient_scope")
    assert seen(direct) == seen(other)


@pytest.mark.parametrize("secret", ["known", "unknown"])
def test_requests_are_counted_and_logged_alike(app: FastAPI, caplog: pytest.LogCaptureFixture, secret: str) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    _, known = Keyring(app.state.settings.keys_file).create(["infer"])
    content = json.dumps(GOOD["/v1/embeddings"]).encode()
    key = known if secret == "known" else secret
    both(TestClient(app), "/v1/embeddings", content, authorization=f"Bearer {key}")
    direct, other = ({**record.__dict__} for record in caplog.records if record.name == "sonde.requests")
    assert [(line["route"], line.get("path")) for line in (direct, other)] == [
        ("/v1/embeddings", None) if secret == "known" else ("unmatched", "/v1/embeddings")
    ] * 2


def test_answers_say_alike_that_they_depend_on_the_origin(make_app: MakeApp) -> None:
    app = make_app(cors_origin=["http://a"])
    direct, other = both(TestClient(app), "/v1/embeddings", json.dumps(GOOD["/v1/embeddings"]).encode())
    assert direct.headers["vary"] == other.headers["vary"] == "Origin"


def test_routes_that_compute_are_reached_without_fastapi(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    hot = next(layer for layer in layers(app.middleware_stack) if isinstance(layer, HotPath))
    behind = hot._app

    async def general(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])
        await behind(scope, receive, send)

    monkeypatch.setattr(hot, "_app", general)
    client = TestClient(app)
    for path, body in GOOD.items():
        assert client.post(path, json=body).status_code == 200, path
    assert passed == []
    named = [("POST", path) for path in ("/models/fake", "/openai/deployments/fake/embeddings")]
    others = [("POST", "/"), ("GET", "/v1/embeddings"), ("GET", "/v1/models"), ("POST", "/v1/feedback"), *named]
    for method, path in others:
        client.request(method, path, json={})
    for headers in ({"origin": "http://a"}, {"sec-fetch-site": "none"}, {"content-encoding": "gzip"}):
        client.post("/v1/embeddings", json={}, headers=headers)
    client.post("/v1/embeddings", json={}, headers=[("x-api-key", "a"), ("x-api-key", "b")])
    assert passed == [path for _, path in others] + ["/v1/embeddings"] * 4


def layers(app: Any) -> Iterator[Any]:
    """An application and those that it calls, the outermost first."""
    while app is not None:
        yield app
        app = getattr(app, "app", getattr(app, "_app", None))


async def with_a_request(body: EmbeddingsBody, call: CallDep, request: Request) -> Response:
    raise NotImplementedError


async def with_a_default(body: EmbeddingsBody, call: CallDep, more: int = 0) -> Response:
    raise NotImplementedError


async def without_a_body(call: CallDep) -> Response:
    raise NotImplementedError


async def with_any_body(body: dict[str, Any], call: CallDep) -> Response:
    raise NotImplementedError


async def without_the_dependency(body: EmbeddingsBody, call: ComputeCall) -> Response:
    raise NotImplementedError


async def with_another_answer(body: EmbeddingsBody, call: CallDep) -> dict[str, Any]:
    raise NotImplementedError


def in_a_thread(body: EmbeddingsBody, call: CallDep) -> Response:
    raise NotImplementedError


@pytest.mark.parametrize(
    "endpoint",
    [
        with_a_request,
        with_a_default,
        without_a_body,
        with_any_body,
        without_the_dependency,
        with_another_answer,
        in_a_thread,
    ],
)
def test_a_wrong_signature_is_refused_at_import(endpoint: Any) -> None:
    router = APIRouter()
    with pytest.raises(TypeError, match=f"{endpoint.__name__}: expected async def"):
        compute_route(router, "/v1/wrong", dict[str, Any], "Wrong")(endpoint)
    assert router.routes == []


def test_each_route_that_computes_says_so() -> None:
    compute = [route for module in _COMPUTING for route in module.router.routes if isinstance(route, ComputeRoute)]
    named = {path for path in GOOD if path.startswith("/v2/models/")}
    assert {route.path for route in compute if "{" not in route.path} == set(GOOD) - named


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[int]:
    """The port of an application behind our protocol."""
    config = Config(app, log_config=None, access_log=False, ws="none", lifespan="off")
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: TimeoutProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(HELD_S):
            while state.tasks:
                await asyncio.sleep(0.001)
    finally:
        server.close()


@pytest.mark.parametrize("headers", [b"", b"x-request-timeout-ms: 60000\r\n"])
def test_a_hang_up_cancels_the_work_on_both_paths(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, headers: bytes
) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    app, model = held(make_app)
    body = b'{"model":"fake","input":"w1"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: testserver\r\ncontent-type: application/json\r\n"

    async def send_and_hang_up() -> int:
        async with listening(app) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + headers + b"content-length: %d\r\n\r\n" % len(body) + body)
            await wait_for_items(app, 1)
            tasks = len(asyncio.all_tasks())
            writer.close()
            await writer.wait_closed()
            await wait_for_items(app, 0)
        return tasks

    assert asyncio.run(send_and_hang_up()) == 2, "this one and the request: no task watches the connection"
    model.gate.set()
    lines = [record.__dict__ for record in caplog.records if record.name == "sonde.requests"]
    assert [(line["status"], line["outcome"]) for line in lines] == [(499, "client_gone")]
