"""A request goes through everything, with a fake model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from service.api import app as module
from tests.support.app import MakeApp


def test_embeddings_come_out_normalized(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": ["hello world", "my card"]})
    assert answer.status_code == 200
    vectors = [item["embedding"] for item in answer.json()["data"]]
    assert [round(sum(x * x for x in vector), 4) for vector in vectors] == [1.0, 1.0]


def test_the_first_request_builds_no_routes(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    module.all_routes.cache_clear()
    client, built = TestClient(make_app()), []
    build = TypeAdapter.__init__

    def count(self: TypeAdapter[Any], *arguments: Any, **options: Any) -> None:
        built.append(arguments)
        build(self, *arguments, **options)

    monkeypatch.setattr(TypeAdapter, "__init__", count)
    assert client.get("/health/live").status_code == 200
    assert built == []


@pytest.mark.slow
def test_the_openapi_document_is_built_once_and_beside_the_event_loop(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    module._document_of_routes.cache_clear()
    built = []

    def watch(**options: Any) -> dict[str, Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        built.append(options)
        return get_openapi(**options)

    monkeypatch.setattr("service.api.openapi.get_openapi", watch)
    for most in (100, 200):
        document = TestClient(make_app(max_inputs=most)).get("/openapi.json").json()
        assert f'"maxItems": {most}' in json.dumps(document["components"]["schemas"]["EmbeddingsBody"])
    assert len(built) == 1
