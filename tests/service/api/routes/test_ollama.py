"""Ollama's routes: models, version, and errors in its shape."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from tests.support.app import MakeApp


def test_models_are_listed_and_shown(client: TestClient) -> None:
    [model] = client.get("/api/tags").json()["models"]
    assert (model["name"], model["model"], len(model["digest"])) == ("fake", "fake", 64)
    for name in ({"model": "fake"}, {"name": "fake:latest", "verbose": None}):
        shown = client.post("/api/show", json=name).json()
        assert shown["capabilities"] == ["embedding"]
        assert shown["model_info"]["fake.embedding_length"] == 16
        assert shown["details"] == model["details"]


def test_the_root_and_the_version_answer(client: TestClient) -> None:
    assert client.head("/").status_code == 200
    assert client.get("/").text == "Sonde is running"
    assert client.get("/api/version").json() == {"version": version("sonde")}


@pytest.mark.parametrize("given", ["", [], None])
def test_without_a_text_there_is_no_vector(client: TestClient, given: Any) -> None:
    """Ollama's clients send such a request to have a model loaded."""
    answer = client.post("/api/embed", json={"model": "fake", "input": given})
    assert (answer.status_code, answer.json()["embeddings"], answer.json()["prompt_eval_count"]) == (200, [], 0)
    older = client.post("/api/embeddings", json={"model": "fake", "prompt": given or None})
    assert (older.status_code, older.json()) == (200, {"embedding": []})
    assert client.post("/api/embeddings", json={"model": "fake", "prompt": ""}).json() == {"embedding": []}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/embed", {"model": "none", "input": "a"}, 404),
        ("/api/embed", {"model": "fake", "input": ["a", ""]}, 422),
        ("/api/embed", {"model": "none", "input": ""}, 404),
        ("/api/embed", {"model": "fake", "input": 7}, 422),
        ("/api/embed", {"model": "fake", "input": "a", "dimensions": 17}, 422),
        ("/api/embeddings", {"model": "fake", "prompt": 7}, 422),
        ("/api/show", {"model": "none"}, 404),
        ("/api/show", {}, 422),
        ("/api/generate", {"model": "fake", "prompt": "a"}, 404),
    ],
)
def test_errors_are_strings(client: TestClient, path: str, body: Any, status: int) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)
    assert answer.headers["x-sonde-error"]


def test_a_malformed_body_and_a_missing_key_are_told_as_strings(make_app: MakeApp) -> None:
    app = make_app()
    client = TestClient(app)
    broken = client.post("/api/embed", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, type(broken.json()["error"])) == (400, str)
    Keyring(app.state.settings.keys_file).create(["infer"])
    for method, path in (("GET", "/api/tags"), ("GET", "/api/version"), ("POST", "/api/embed")):
        refused = client.request(method, path)
        assert (refused.status_code, type(refused.json()["error"])) == (401, str)
    assert client.head("/").status_code == 401
