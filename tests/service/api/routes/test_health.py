"""Liveness, readiness and metrics tell the truth."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from models.errors import DeviceLost
from service.serving.model_manager import ModelManager
from tests.fakes.model import FakeModel
from tests.service.api.test_middleware import make_key
from tests.support.app import MakeApp
from tests.support.server import wait_until


def test_a_service_that_takes_requests_is_ready(client: TestClient) -> None:
    for path in ("/health", "/health/ready", "/health/live"):
        assert (client.get(path).status_code, client.get(path).json()) == (200, {"status": "ok", "reason": None})


@pytest.mark.parametrize(
    ("path", "same"),
    [("/healthz", "/health"), ("/ping", "/health"), ("/readyz", "/health/ready"), ("/livez", "/health/live")],
)
def test_other_names_of_the_probes_need_no_key(make_app: MakeApp, path: str, same: str) -> None:
    app = make_app()
    make_key(app, "infer")
    client = TestClient(app)
    app.state.manager.opened = False
    assert client.get(path).status_code == client.get(same).status_code == (200 if "live" in path else 503)
    assert client.get(path).json() == client.get(same).json()
    assert client.get(path).headers.get("retry-after") == client.get(same).headers.get("retry-after")


OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", OPEN_METRICS),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2", OPEN_METRICS),
    ],
)
def test_metrics_come_in_the_format_that_is_asked_for(client: TestClient, accept: str, kind: str) -> None:
    client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    assert answer.text.rstrip().endswith("# EOF") == (kind == OPEN_METRICS)
    parse = openmetrics_families if kind == OPEN_METRICS else text_families
    families = {family.name: family for family in parse(answer.text)}
    assert families["sonde_requests"].samples[0].value == 1
    assert not [line for line in answer.text.splitlines() if "_created" in line]


def test_the_version_needs_no_key(make_app: MakeApp, openapi_document: dict[str, Any]) -> None:
    app = make_app()
    make_key(app, "infer")
    answer = TestClient(app).get("/version")
    assert (answer.status_code, answer.json()) == (200, {"version": version("sonde")})
    assert "security" not in openapi_document["paths"]["/version"]["get"]


@pytest.mark.parametrize(
    ("name", "value", "reason"), [("opened", False, "loading"), ("draining", True, "shutting down")]
)
def test_one_that_does_not_says_why(make_app: MakeApp, name: str, value: bool, reason: str) -> None:
    app = make_app()
    client = TestClient(app)
    setattr(app.state.manager, name, value)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert reason in answer.json()["reason"]
    assert client.get("/health/live").status_code == 200, "alive all the same"
    refused = client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert "sonde_ready 0.0" in client.get("/metrics").text


def test_a_lost_device_ends_readiness(make_app: MakeApp) -> None:
    lost = [False]

    def lose(batch: object) -> None:
        if lost[0]:
            raise DeviceLost("gone")

    app = make_app(FakeModel("fake", fault=lose))
    client, manager = TestClient(app), app.state.manager
    assert isinstance(manager, ModelManager)
    lost[0] = True
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    wait_until(lambda: manager.problem is not None)
    assert client.get("/health/ready").status_code == 503


def test_metrics_are_prometheus_text(client: TestClient) -> None:
    client.post("/v1/embeddings", json={"model": "fake", "input": "hello"})
    client.post("/v1/embeddings", json={"model": "fake", "input": ""})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'sonde_requests_total{route="/v1/embeddings",status="200"} 1.0' in lines
    assert 'sonde_errors_total{code="invalid_value"} 1.0' in lines
    assert 'sonde_inputs_total{model="fake",task="embedding"} 1.0' in lines
    assert "sonde_ready 1.0" in lines
