"""What is served, as the service tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from models.loader import load
from models.runtime.placement import place
from models.source import locate
from tests.fakes.model import FakeModel
from tests.support import tiny_models
from tests.support.app import MakeApp


def test_models_are_listed_with_their_contract(make_app: MakeApp) -> None:
    client = TestClient(make_app(FakeModel("fake"), FakeModel("intents", task="classification", labels=("yes", "no"))))
    encoder, classifier = client.get("/v1/models").json()["data"]
    assert (encoder["id"], encoder["object"], encoder["dimensions"], encoder["max_tokens"]) == ("fake", "model", 16, 32)
    assert encoder["reason"] == "a fake computes on the CPU"
    assert encoder["signature"]["outputs"] == [{"name": "embedding", "dtype": "float32", "shape": ["n", 16]}]
    assert (classifier["labels"], classifier["dimensions"]) == (["yes", "no"], None)


@pytest.mark.parametrize("name", ["fake", "fake:0", "sentence-transformers/fake"])
def test_a_model_is_found_by_its_names(client: TestClient, name: str) -> None:
    assert client.get(f"/v1/models/{name}").json()["id"] == "fake"


@pytest.mark.parametrize("name", ["nothing", "fake:1", "../fake"])
def test_an_unknown_model_says_what_there_is(client: TestClient, name: str) -> None:
    answer = client.get(f"/v1/models/{name.replace('/', '%2F')}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "there is: fake" in answer.json()["error"]["message"]


def test_info_speaks_as_tei_does(client: TestClient) -> None:
    info = client.get("/info").json()
    assert {
        key: info[key] for key in ("model_id", "model_sha", "model_dtype", "max_input_length", "max_batch_tokens")
    } == {
        "model_id": "fake",
        "model_sha": "0",
        "model_dtype": "float32",
        "max_input_length": 32,
        "max_batch_tokens": 512,
    }


def test_a_model_that_shares_no_batch_says_so(make_app: MakeApp, tmp_path: Path) -> None:
    path = tiny_models.mobilebert(tmp_path)
    client = TestClient(make_app(load(locate(f"alone={path}"), place("cpu", "float32")), FakeModel("fake")))
    about = client.get("/v1/models/alone").json()
    assert about["one_by_one"]
    assert about["batches"].startswith("one text at a time: a text's row depends on the others of its batch")
    assert not client.get("/v1/models/fake").json()["one_by_one"]
    shown = client.get("/metrics").text
    assert 'sonde_model_one_by_one{model="alone"} 1.0' in shown
    assert 'sonde_model_one_by_one{model="fake"} 0.0' in shown
