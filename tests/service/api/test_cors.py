"""Web pages of the origins that `--cors-origin` names may call, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from service.config import Settings
from service.errors import ConfigError
from tests.support.app import MakeApp

APP, OTHER, EVIL = "https://app.example", "http://localhost:5173", "https://evil.example"
BODY = {"model": "fake", "input": "a"}


def preflight(client: TestClient, origin: str, method: str = "POST") -> Any:
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }
    return client.options("/v1/embeddings", headers=headers)


@pytest.mark.parametrize("with_key", [False, True])
def test_a_page_of_a_named_origin_may_call(make_app: MakeApp, with_key: bool) -> None:
    app = make_app(cors_origin=[APP, OTHER])
    client = TestClient(app)
    key = Keyring(app.state.settings.keys_file).create(["infer"])[1] if with_key else "none"
    for origin in (APP, OTHER):
        asked = preflight(client, origin)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, origin)
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
        headers = {"origin": origin, "sec-fetch-site": "cross-site", "authorization": f"Bearer {key}"}
        answer = client.post("/v1/embeddings", json=BODY, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_it_may_use_every_method(make_app: MakeApp, method: str) -> None:
    assert preflight(TestClient(make_app(cors_origin=[APP])), APP, method).status_code == 200


def test_it_can_read_errors(make_app: MakeApp) -> None:
    app = make_app(cors_origin=[APP])
    Keyring(app.state.settings.keys_file).create(["infer"])
    for path, status in (("/v1/models", 401), ("/nothing", 401), ("/health", 200)):
        answer = TestClient(app).get(path, headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)


@pytest.mark.parametrize("allowed", [(), (APP,)])
def test_pages_of_other_origins_stay_out(make_app: MakeApp, allowed: tuple[str, ...]) -> None:
    client = TestClient(make_app(cors_origin=allowed))
    for origin in (EVIL, "null", f"{APP}.evil.example", "http://app.example", f"{APP}:8443"):
        assert "access-control-allow-origin" not in preflight(client, origin).headers
        answer = client.post("/v1/embeddings", json=BODY, headers={"origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    without_origin = client.post("/v1/embeddings", json=BODY, headers={"sec-fetch-site": "cross-site"})
    assert without_origin.status_code == 403


def test_an_allowed_page_does_not_change_the_host_rule(make_app: MakeApp) -> None:
    headers = {"origin": APP, "host": "evil.example"}
    answer = TestClient(make_app(cors_origin=[APP])).post("/v1/embeddings", json=BODY, headers=headers)
    assert answer.json()["error"]["code"] == "unknown_host"


def test_a_star_lets_every_page_call(make_app: MakeApp) -> None:
    client = TestClient(make_app(cors_origin=["*"]))
    assert preflight(client, EVIL).headers["access-control-allow-origin"] == "*"
    answer = client.post("/v1/embeddings", json=BODY, headers={"origin": EVIL, "sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("given", [[APP, OTHER], f"{APP}, {OTHER}", f"HTTPS://App.example,{OTHER}"])
def test_the_setting_takes_several(given: object) -> None:
    assert Settings.read({"cors_origin": given}).cors_origin == (APP, OTHER)


@pytest.mark.parametrize("given", ["app.example", f"{APP}/", f"{APP}/page", "https://", "null", "https://*.example"])
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--cors-origin .*expected origins such as https://app\.example"):
        Settings.read({"cors_origin": [given]})


@pytest.mark.parametrize("with_key", [False, True])
def test_a_star_and_a_name_are_one_star(make_app: MakeApp, with_key: bool) -> None:
    app = make_app(cors_origin=[APP, "*"])
    key = Keyring(app.state.settings.keys_file).create(["infer"])[1] if with_key else "none"
    headers = {"origin": EVIL, "authorization": f"Bearer {key}"}
    answer = TestClient(app).post("/v1/embeddings", json=BODY, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
