"""Triton's model repository over the settings' models and the registry, and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import NAME
from tests.support.trained_models import train

INDEX = "/v2/repository/index"


@pytest.fixture
def client(make_app: MakeApp, tmp_path: Path) -> Iterator[TestClient]:
    encoder = FakeModel()
    app = make_app(encoder)
    train(app.state.registry, tmp_path, encoder)
    with TestClient(app) as client:
        yield client


def promote(client: TestClient) -> None:
    client.app.state.registry.promote(NAME, 1, by="test", why="")  # type: ignore[attr-defined]
    client.app.state.manager.watcher.sync()  # type: ignore[attr-defined]


def states(client: TestClient, **body: object) -> dict[str, tuple[str, str]]:
    answer = client.post(INDEX, json=body) if body else client.post(INDEX)
    assert answer.status_code == 200, answer.text
    return {one["name"]: (one["state"], one["version"]) for one in answer.json()}


def test_the_index_names_all_models_with_their_states(client: TestClient) -> None:
    assert states(client)["fake"] == ("READY", "0")
    assert states(client)[NAME][0] in {"READY", "UNAVAILABLE"}
    promote(client)
    assert states(client)[NAME] == ("READY", "v1")
    assert set(states(client, ready=True)) == {"fake", NAME}


def test_a_trained_model_is_unloaded_and_loaded_again(client: TestClient) -> None:
    promote(client)
    assert client.post(f"/v2/repository/models/{NAME}/load").status_code == 200
    unloaded = client.post(f"/v2/repository/models/{NAME}/unload", json={"parameters": {"unload_dependents": False}})
    assert unloaded.status_code == 200, unloaded.text
    assert states(client)[NAME] == ("UNAVAILABLE", "")
    assert set(states(client, ready=True)) == {"fake"}
    assert client.get(f"/v2/models/{NAME}/ready").status_code == 404
    loaded = client.post(f"/v2/repository/models/{NAME}/load")
    assert loaded.status_code == 200, loaded.text
    assert states(client)[NAME] == ("READY", "v1")


def test_what_cannot_be_loaded_or_unloaded_says_why(client: TestClient) -> None:
    assert client.post("/v2/repository/models/fake/load").status_code == 200
    kept = client.post("/v2/repository/models/fake/unload")
    assert kept.status_code == 409
    assert kept.json() == {
        "error": "fake is a model of the settings, which serves as long as the process runs: start Sonde without it"
    }
    unknown = client.post("/v2/repository/models/nobody/load")
    assert unknown.status_code == 404
    assert isinstance(unknown.json()["error"], str)
    config = client.post("/v2/repository/models/fake/load", json={"parameters": {"config": "{}"}})
    assert config.status_code == 422
    assert "unknown field `parameters`" in config.json()["error"]


def test_loading_needs_the_scope_admin(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    keyring = Keyring(app.state.settings.keys_file)
    _, key = keyring.create(["infer"])
    app.state.checks._keyring = keyring
    client = TestClient(app, headers={"x-api-key": key})
    assert client.post(INDEX).status_code == 200
    for action in ("load", "unload"):
        assert client.post(f"/v2/repository/models/fake/{action}").status_code == 403


def test_statistics_count_inputs_and_batches(client: TestClient) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]}
    assert client.post("/v2/models/fake/infer", json=body).status_code == 200
    [stats] = client.get("/v2/models/fake/stats").json()["model_stats"]
    assert (stats["name"], stats["version"], stats["inference_count"]) == ("fake", "0", 2)
    assert stats["execution_count"] >= 1
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert stats["inference_stats"]["queue"]["count"] == 1
    assert stats in client.get("/v2/models/stats").json()["model_stats"]
