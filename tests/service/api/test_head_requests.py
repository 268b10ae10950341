"""HEAD is GET without the body."""

from __future__ import annotations

import logging

import pytest
from fastapi.testclient import TestClient

from tests.service.api.test_middleware import leaves
from tests.support.app import MakeApp


@pytest.mark.slow
def test_head_is_wherever_get_is(make_app: MakeApp) -> None:
    app = make_app()
    client = TestClient(app)
    paths = {route.path for route in leaves(app.routes) if "GET" in (route.methods or ())}
    assert {"/", "/v1/models", "/health", "/metrics", "/docs"} <= paths
    for path in sorted(paths):
        path = path.replace("{model:path}", "fake")
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-type") == got.headers.get("content-type"), path


@pytest.mark.parametrize(("path", "status"), [("/v1/embeddings", 405), ("/nothing", 404), ("/v1/models/none", 404)])
def test_its_errors_are_those_of_get(client: TestClient, path: str, status: int) -> None:
    head = client.head(path)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers["x-sonde-error"] == client.get(path).headers["x-sonde-error"]


def test_the_log_and_the_metrics_name_head_and_the_route(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    with caplog.at_level(logging.INFO, "sonde.requests"):
        TestClient(app).head("/v1/models/fake")
    [line] = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert (line["method"], line["route"], line["status"]) == ("HEAD", "/v1/models/{model:path}", 200)
