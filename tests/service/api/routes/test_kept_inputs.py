"""Texts kept for review over HTTP: whose they are, and how feedback removes them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from service.config import Settings
from service.errors import ConfigError
from tests.support.app import MakeApp

CLASSIFY = {"model": "fake", "input": ["my card", "my money"], "labels": ["card", "refund"]}


def kept(client: TestClient, **parameters: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/v1/kept_inputs", params=parameters).raise_for_status().json()
    return answer


def test_nothing_is_kept_by_default(client: TestClient) -> None:
    client.post("/v1/classify", json=CLASSIFY).raise_for_status()
    assert kept(client) == {"object": "list", "data": [], "has_more": False, "kept_per_key": 0, "skipped": 0}


def test_classified_texts_wait_until_feedback_comes(make_app: MakeApp) -> None:
    client = TestClient(make_app(keep_inputs=10))
    answered = client.post("/v1/classify", json=CLASSIFY).raise_for_status().json()
    waiting = kept(client)
    assert sorted(one["text"] for one in waiting["data"]) == sorted(CLASSIFY["input"])
    scores = [one["labels"][0]["score"] for one in waiting["data"]]
    assert scores == sorted(one["labels"][0]["score"] for one in answered["data"])
    assert (kept(client, model="fake")["data"], kept(client, model="other")["data"]) == (waiting["data"], [])
    assert len(kept(client, limit=1)["data"]) == 1
    assert kept(client, limit=1)["has_more"]
    feedback = {"model": "fake", "text": "my card", "label": "refund", "correct_label": "card"}
    client.post("/v1/feedback", json=feedback).raise_for_status()
    assert [one["text"] for one in kept(client)["data"]] == ["my money"]


def test_a_key_sees_its_own_texts_and_an_admin_all(make_app: MakeApp) -> None:
    app = make_app(keep_inputs=10)
    keyring = Keyring(app.state.settings.keys_file)
    clients = {
        name: TestClient(app, headers={"x-api-key": keyring.create([scope])[1]})  # type: ignore[list-item]
        for name, scope in (("first", "train"), ("second", "train"), ("admin", "admin"), ("infer", "infer"))
    }
    caller = TestClient(app, headers={"x-api-key": keyring.create(["infer", "train"])[1]})
    caller.post("/v1/classify", json=CLASSIFY).raise_for_status()
    assert len(kept(caller)["data"]) == len(kept(clients["admin"])["data"]) == 2
    assert kept(clients["first"])["data"] == []
    assert clients["infer"].get("/v1/kept_inputs").status_code == 403


def test_several_processes_keep_none() -> None:
    with pytest.raises(ConfigError, match=r"keep-inputs.*several --workers"):
        Settings.read({"keep_inputs": 5, "workers": 2})
    assert Settings.read({"keep_inputs": 5}).keep_inputs == 5
