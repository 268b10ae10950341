"""Around every request: keys, ids, the log line, the counts."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute, Route

from service.api.request_context import OPEN_PATHS, PROBE_ALIASES
from service.auth import Keyring, Scope
from service.key_use import KeyUse
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp


def make_key(app: FastAPI, *scopes: Scope) -> str:
    return Keyring(app.state.settings.keys_file).create(scopes)[1]


def leaves(routes: list[BaseRoute]) -> list[Route | APIRoute]:
    """Routes, those of included routers too."""
    found: list[Route | APIRoute] = []
    for route in routes:
        if isinstance(route, Route | APIRoute):
            found.append(route)
        else:
            found += leaves(
                list(getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", []))
            )
    return found


def test_without_keys_anyone_may_call(client: TestClient) -> None:
    assert client.get("/v1/models").status_code == 200


OPEN_PAGES = {"/console", "/console/{path:path}", "/docs", "/docs/oauth2-redirect", "/openapi.json"}


@pytest.mark.slow
def test_every_route_but_the_probes_and_pages_needs_a_key_once_there_is_one(make_app: MakeApp) -> None:
    app = make_app()
    make_key(app, "infer")
    client = TestClient(app)
    paths = [(method, route.path) for route in leaves(app.routes) for method in route.methods or ()]
    assert {"/v1/embeddings", "/metrics", "/docs", "/openapi.json", "/health/ready", "/v1/models/{model:path}"} <= {
        path for _, path in paths
    }
    answers = {
        (method, path): client.request(method, path.replace("{model:path}", "fake")).status_code
        for method, path in paths
    }
    assert {place for place, status in answers.items() if status != 401} == {
        place for place in answers if place[1] in OPEN_PATHS | OPEN_PAGES
    }


def test_the_document_asks_for_a_key_wherever_one_is_needed(openapi_document: dict[str, Any]) -> None:
    asks = {
        path: [operation.get("security") for operation in operations.values()]
        for path, operations in openapi_document["paths"].items()
    }
    assert {path for path, securities in asks.items() if None in securities} == OPEN_PATHS - PROBE_ALIASES
    either: list[dict[str, list[str]]] = [{name: []} for name in openapi_document["components"]["securitySchemes"]]
    assert all(
        security == either for path, securities in asks.items() if path not in OPEN_PATHS for security in securities
    )


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1/../v1/models",
        "//v1/models",
        "/V1/MODELS",
        "/v1/models/",
        "/consoles",
        "/v1/console",
        "//docs",
        "/health/../metrics",
    ],
)
def test_so_does_every_path_that_is_none(make_app: MakeApp, path: str) -> None:
    app = make_app()
    make_key(app, "infer")
    assert TestClient(app).get(path).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer {}"}, {"Authorization": "bearer {}"}, {"X-API-Key": "{}"}, {"api-key": "{}"}]
)
def test_a_key_lets_in(make_app: MakeApp, headers: dict[str, str]) -> None:
    app = make_app()
    secret = make_key(app, "infer")
    answer = TestClient(app).get("/v1/models", headers={name: value.format(secret) for name, value in headers.items()})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer sonde_wrong"},
        {"Authorization": "Basic {}"},
        {"Authorization": "{}"},
        {"X-API-Key": ""},
        {"Cookie": "key={}"},
    ],
)
def test_nothing_else_does(make_app: MakeApp, headers: dict[str, str]) -> None:
    app = make_app()
    secret = make_key(app, "infer")
    answer = TestClient(app).get(
        f"/v1/models?api_key={secret}", headers={name: value.format(secret) for name, value in headers.items()}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert secret not in answer.text


def test_without_its_last_key_the_service_stays_closed(make_app: MakeApp) -> None:
    app = make_app()
    keyring = Keyring(app.state.settings.keys_file)
    key, secret = keyring.create(["infer"])
    client = TestClient(app)
    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200
    assert keyring.revoke(key.id)
    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 401
    assert client.get("/v1/models").status_code == 401


def test_a_broken_file_of_keys_changes_nothing(make_app: MakeApp) -> None:
    app = make_app()
    secret = make_key(app, "infer")
    client = TestClient(app)
    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200
    app.state.settings.keys_file.write_text("{ broken")
    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200
    assert client.get("/v1/models").status_code == 401


def test_a_key_without_the_scope_is_told_so(make_app: MakeApp) -> None:
    app = make_app()
    secret = make_key(app, "train")
    answer = TestClient(app).get("/v1/models", headers={"X-API-Key": secret})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert answer.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", "a\tb"])
def test_request_ids_that_could_harm_a_log_are_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/health", headers=[(b"X-Request-ID", given.encode())])
    assert len(answer.headers["x-request-id"]) == 32


def test_errors_carry_the_request_id_too(client: TestClient) -> None:
    assert client.get("/nothing", headers={"X-Request-ID": "id-1"}).headers["x-request-id"] == "id-1"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.name == "sonde.requests"]


def test_one_line_a_request_tells_all_but_what_was_sent(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    client.post(
        "/v1/embeddings", json={"model": "fake", "input": ["secret words", "more"]}, headers={"X-Request-ID": "id-7"}
    )
    [line] = lines(caplog)
    expected = {
        "request_id": "id-7",
        "route": "/v1/embeddings",
        "status": 200,
        "outcome": "ok",
        "model": "fake:0",
        "inputs": 2,
        "tokens": 7,
    }
    assert {name: line[name] for name in expected} == expected
    assert "secret" not in str(line)


def test_a_refusal_is_logged_with_its_code(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    client.post("/v1/embeddings", json={"model": "fake", "input": ""})
    assert [(line["status"], line["outcome"]) for line in lines(caplog)] == [(422, "invalid_value")]


def test_probes_do_not_fill_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    client.get("/health/ready")
    client.get("/metrics")
    assert lines(caplog) == []


def test_unknown_paths_share_one_series(client: TestClient) -> None:
    for number in range(3):
        assert client.get(f"/random/{number}").status_code == 404
    assert 'sonde_requests_total{route="unmatched",status="404"} 3.0' in client.get("/metrics").text


def test_the_log_has_the_path_of_an_unknown_route_alone_and_no_query(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sonde.requests")
    client.get("/v1/modles?text=secret")
    client.get(f"/{'x' * 300}")
    client.get("/v1/models")
    assert [line.get("path") for line in lines(caplog)] == ["/v1/modles", f"/{'x' * 199}", None]


def test_a_fault_of_ours_tells_the_caller_nothing(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret path /etc/passwd")

    answer = TestClient(app).get("/broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "secret path" in caplog.text, "but the log knows"


def test_a_fault_of_the_model_tells_the_caller_no_more(make_app: MakeApp) -> None:
    fail = [False]

    def fault(batch: object) -> None:
        if fail[0]:
            raise RuntimeError("secret layer name")

    client = TestClient(make_app(FakeModel("fake", fault=fault)))
    fail[0] = True
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "backend_error")
    assert "secret" not in answer.text


def test_an_expired_key_is_refused_and_says_so(make_app: MakeApp) -> None:
    app = make_app()
    secret = Keyring(app.state.settings.keys_file).create(["infer"], expires_in_s=0)[1]
    answer = TestClient(app).get("/v1/models", headers={"X-API-Key": secret})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired_api_key")


def test_a_key_beyond_its_rate_waits_and_other_keys_do_not(make_app: MakeApp) -> None:
    app = make_app()
    keyring = Keyring(app.state.settings.keys_file)
    (slow, secret), (_, other) = keyring.create(["infer"], requests_per_minute=2), keyring.create(["infer"])
    client, asks = TestClient(app), {"X-API-Key": secret}
    answers = [client.get("/v1/models", headers=asks) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert client.get("/v1/models", headers={"X-API-Key": other}).status_code == 200
    scraped = client.get("/metrics", headers=asks).text  # watching counts against no limit
    assert f'sonde_key_requests_total{{key="{slow.id}",outcome="limited"}} 1.0' in scraped
    assert f'sonde_key_requests_total{{key="{slow.id}",outcome="ok"}} 2.0' in scraped
    assert KeyUse(app.state.settings.home).last(slow.id) is not None


def test_tokens_count_against_the_rate_of_a_key(make_app: MakeApp) -> None:
    app = make_app()
    key, secret = Keyring(app.state.settings.keys_file).create(["infer"], tokens_per_minute=3)
    with TestClient(app) as client:
        body = {"model": "fake", "input": ["one two three four"]}
        answers = [client.post("/v1/embeddings", json=body, headers={"X-API-Key": secret}) for _ in range(2)]
        scraped = client.get("/metrics", headers={"X-API-Key": secret}).text
    assert [answer.status_code for answer in answers] == [200, 429], answers[0].text
    tokens = float(answers[0].json()["usage"]["total_tokens"])
    assert f'sonde_key_tokens_total{{key="{key.id}"}} {tokens}' in scraped
