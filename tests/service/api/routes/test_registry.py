"""Trained models over HTTP: answering in every route, promoted, rolled back, deleted and named anew."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.registry.fenced_lock import LEASE_S
from models.registry.registry import Registry
from service.auth import Keyring
from service.config import Settings
from service.jobs.backend import JobBackend
from service.serving.model_manager import MAX_WAIT_S, ModelManager
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import MANIFEST, NAME
from tests.support.trained_models import NORMAL, open_fake_encoders, own_encoder, train

BASE = FakeModel("fake")


@dataclass
class House:
    """An application over one fake encoder, its registry, and a client."""

    app: FastAPI
    client: TestClient
    where: Path

    @property
    def manager(self) -> ModelManager:
        manager: ModelManager = self.app.state.manager
        return manager

    @property
    def registry(self) -> Registry:
        registry: Registry = self.app.state.registry
        return registry

    def train(self, promote: bool = True, **changes: Any) -> int:
        return self.serve(train(self.registry, self.where, BASE, **changes), promote)

    def own(self, promote: bool = True, **changes: Any) -> int:
        return self.serve(own_encoder(self.registry, self.where, **changes), promote)

    def serve(self, version: int, promote: bool) -> int:
        if promote:
            self.registry.promote(NAME, version, by="test", why="")
            self.manager.watcher.sync()
        return version

    def ask(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        answer = self.client.request(method, path, **json_of(body))
        assert answer.status_code == status, answer.text
        self.manager.watcher.sync()
        return answer.json() if status == 200 else answer.json()["error"]


def json_of(body: object) -> dict[str, Any]:
    return {} if body is None else {"json": body}


@pytest.fixture
def house(make_app: MakeApp, tmp_path: Path) -> Iterator[House]:
    app = make_app(BASE)
    with TestClient(app) as client:
        yield House(app, client, tmp_path)


# --- answering
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [NAME, f"{NAME}:v1", "prod"])
def test_a_trained_classifier_answers_by_each_of_its_names(house: House, asked: str) -> None:
    house.train()
    house.registry.set_alias("prod", NAME)
    house.manager.watcher.sync()
    answer = house.client.post("/v1/classify", json={"model": asked, "input": ["hello", "pizza"]})
    assert answer.headers["x-sonde-model"] == f"{NAME}:v1"
    body = answer.json()
    assert (body["model"], [item["label"] for item in body["data"]]) == (asked, ["v1", "v1"])
    [item, _] = body["data"]
    assert [entry["label"] for entry in item["labels"]] == ["v1", "other"]
    assert sum(entry["score"] for entry in item["labels"]) == pytest.approx(1)
    assert (item["out_of_scope"], item["p_value"], body["label_set"]) == (None, None, None)


def test_an_older_version_answers_when_it_is_asked_for(house: House) -> None:
    house.train()
    house.train()
    for asked, version in ((NAME, 2), (f"{NAME}:v1", 1), (f"{NAME}:v2", 2)):
        answer = house.client.post("/v1/classify", json={"model": asked, "input": "hello"})
        assert answer.headers["x-sonde-model"] == f"{NAME}:v{version}"
        assert answer.json()["data"][0]["label"] == f"v{version}"


def test_its_detector_tells_what_is_out_of_scope(house: House) -> None:
    house.train(detector=True)
    items = house.ask("POST", "/v1/classify", {"model": NAME, "input": [NORMAL[3], "pizza weather rain"]})["data"]
    assert [item["out_of_scope"] for item in items] == [False, True]
    assert items[1]["p_value"] == pytest.approx(1 / 41)
    usual, strange = (item["labels"][0] for item in items)
    assert usual["score"] == pytest.approx(usual["score_in_scope"], rel=0.05)
    assert strange["score"] < 0.6 < strange["score_in_scope"]
    predicted = house.ask("POST", "/predict", {"inputs": [["pizza weather rain"]], "model": NAME})[0][0]
    assert predicted["score"] == pytest.approx(strange["score"], rel=1e-5), "both routes give the same probability"


def test_a_trained_classifier_has_labels_of_its_own(house: House) -> None:
    house.train()
    error = house.ask("POST", "/v1/classify", {"model": NAME, "input": "hello", "labels": ["a"]}, 422)
    assert (error["param"], "labels of its own" in error["message"]) == ("labels", True)


def test_a_job_may_begin_with_a_trained_model(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's job begins with the encoder below it, a tuned encoder's with that encoder."""
    open_fake_encoders(monkeypatch)
    jobs = house.app.state.jobs = JobBackend.open(Settings.read({"home": house.where}))
    jobs.store.migrate()
    with jobs.files.receive() as incoming:
        incoming.write(b'{"text": "a", "label": "b"}\n')
        file = jobs.files.keep(incoming, "rows.jsonl", "fine-tune").id
    house.train(seed=1)
    house.own(seed=2)
    begun = {}
    for asked in (NAME, f"{NAME}:v1", "fake"):
        job = house.ask("POST", "/v1/fine_tuning/jobs", {"model": asked, "training_file": file, "suffix": "next"})
        kept = jobs.store.get(job["id"])
        assert (job["model"], kept.name) == ("fake", "ft:fake:local:next")
        begun[asked] = kept.base_spec
    jobs.close()
    assert begun == {NAME: f"{NAME}:v2", f"{NAME}:v1": "fake", "fake": "fake"}


def test_predict_speaks_as_tei_does(house: House) -> None:
    house.train()
    [best, other] = house.ask("POST", "/predict", {"inputs": "hello", "model": NAME})
    assert (best["label"], other["label"]) == ("v1", "other")
    assert best["score"] + other["score"] == pytest.approx(1)
    raw = house.ask("POST", "/predict", {"inputs": [["hello"], ["pizza"]], "model": NAME, "raw_scores": True})
    assert [line[0]["score"] - line[1]["score"] for line in raw] == [pytest.approx(6, abs=1e-4)] * 2
    assert house.ask("POST", "/predict", {"inputs": "hello"})[0]["label"] == "v1", "no other model classifies"
    error = house.ask("POST", "/predict", {"inputs": ["hello", "pizza"], "model": NAME}, 422)
    assert (error["param"], error["message"]) == ("inputs", f"{NAME} reads single texts, got pairs")


def test_a_trained_detector_needs_no_reference(house: House) -> None:
    house.train(task="anomaly", labels=())
    body = {"model": NAME, "input": [NORMAL[3], "pizza weather rain"], "alpha": 0.05}
    answer = house.ask("POST", "/v1/anomaly/score", body)
    normal, strange = answer["data"]
    assert (normal["is_anomaly"], strange["is_anomaly"]) == (False, True)
    assert strange["score"] > answer["threshold"] > normal["score"]
    assert strange["p_value"] == pytest.approx(1 / 41)
    assert answer["reference"] == {"count": 40, "cached": True, "truncated": 0}
    assert normal["nearest"][0]["index"] == 3
    assert answer["warnings"] == []
    assert (
        "train on at least 99 texts" in house.ask("POST", "/v1/anomaly/score", {**body, "alpha": 0.01})["warnings"][0]
    )
    error = house.ask("POST", "/v1/anomaly/score", {**body, "reference": ["a", "b"]}, 422)
    assert (error["param"], "leave reference out" in error["message"]) == ("reference", True)


def test_an_encoder_still_needs_a_reference(house: House) -> None:
    error = house.ask("POST", "/v1/anomaly/score", {"model": "fake", "input": "hello"}, 422)
    assert (error["param"], "give it a reference" in error["message"]) == ("reference", True)


def test_a_trained_classifier_scores_no_anomalies(house: House) -> None:
    house.train()
    error = house.ask("POST", "/v1/anomaly/score", {"model": NAME, "input": "hello"}, 422)
    assert error["code"] == "wrong_task"
    assert house.ask("POST", "/v1/embeddings", {"model": NAME, "input": "hello"}, 422)["code"] == "wrong_task"


def test_a_tuned_encoder_does_all_that_encoders_do(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fake_encoders(monkeypatch)
    house.own(seed=1)
    base = house.ask("POST", "/v1/embeddings", {"model": "fake", "input": "hello"})["data"][0]["embedding"]
    tuned = house.ask("POST", "/v1/embeddings", {"model": NAME, "input": "hello"})["data"][0]["embedding"]
    assert len(base) == len(tuned)
    assert base != tuned
    assert house.ask("POST", "/embed", {"model": NAME, "inputs": "hello"})[0] == pytest.approx(tuned)
    ranked = house.ask("POST", "/v2/rerank", {"model": NAME, "query": "my card", "documents": ["pizza", "my card"]})[
        "results"
    ]
    assert ranked[0]["index"] == 1
    assert (
        house.ask("POST", "/rerank", {"model": NAME, "query": "my card", "texts": ["pizza", "my card"]})[0]["index"]
        == 1
    )
    similar = {"model": NAME, "inputs": {"source_sentence": "my card", "sentences": ["my card"]}}
    assert house.ask("POST", "/similarity", similar) == [pytest.approx(1)]
    assert (
        house.ask("POST", "/v1/classify", {"model": NAME, "input": "card", "labels": ["card", "pizza"]})["data"][0][
            "label"
        ]
        == "card"
    )
    strange = {"model": NAME, "input": "pizza", "reference": list(NORMAL)}
    assert house.ask("POST", "/v1/anomaly/score", strange)["data"][0]["is_anomaly"] is True
    assert house.ask("POST", "/tokenize", {"model": NAME, "inputs": "card"})[0][1]["text"] == "card"
    assert house.ask("POST", "/v1/tokenize", {"model": f"{NAME}:v1", "input": "card"})["data"][0]["truncated"] is False
    assert house.ask("POST", "/decode", {"model": NAME, "ids": [40]}) == ["w10"]


def test_a_tuned_reranker_ranks(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fake_encoders(monkeypatch)
    house.own(seed=1, task="rerank")
    answer = house.client.post(
        "/v2/rerank", json={"model": NAME, "query": "my card", "documents": ["pizza", "my card"]}
    )
    assert answer.headers["x-sonde-model"] == f"{NAME}:v1"
    assert len(answer.json()["results"]) == 2


def test_models_are_listed_with_what_their_training_measured(house: House) -> None:
    house.train(promote=False)
    house.train()
    listed = {model["id"]: model for model in house.ask("GET", "/v1/models")["data"]}
    assert list(listed) == ["fake", NAME, f"{NAME}:v2"]
    assert {**listed[f"{NAME}:v2"], "id": NAME} == listed[NAME]
    trained = listed[NAME]
    assert (trained["version"], trained["versions"], trained["base"]) == ("v2", [1, 2], "fake")
    assert (trained["metrics"], trained["created"], trained["task"]) == (
        {"macro_f1": 0.9},
        MANIFEST.created,
        "classification",
    )
    assert (listed["fake"]["base"], listed["fake"]["versions"], listed["fake"]["metrics"]) == (None, [], {})
    asked = house.ask("GET", f"/v1/models/{NAME}")
    assert {**asked, **trained} == asked, "with what Cohere's clients read besides"
    assert house.ask("GET", f"/v1/models/{NAME}:v1")["version"] == "v1"
    assert [model["id"] for model in house.ask("GET", "/info")["models"]] == ["fake", NAME]


def test_what_cannot_be_loaded_says_why(house: House) -> None:
    version = house.train()
    (house.registry.path(NAME, house.train(promote=False)) / "report.md").write_text("changed")
    error = house.ask("POST", "/v1/classify", {"model": f"{NAME}:v2", "input": "hello"}, 503)
    assert error["code"] == "model_unservable"
    assert "2/report.md has SHA-256" in error["message"]
    assert house.ask("POST", "/v1/classify", {"model": NAME, "input": "hello"})["data"][0]["label"] == f"v{version}"


# --- the registry
# -----------------------------------------------------------------------------------------------------------


def test_promote_and_roll_back_in_one_call_each(house: House) -> None:
    for _ in range(2):
        house.train(promote=False)
    promoted = house.ask("POST", f"/v1/models/{NAME}/promote", {"version": 1, "why": "better"})
    assert promoted == {"object": "model.pointer", "model": NAME, "version": 1, "generation": 1, "previous": None}
    assert house.manager.find(NAME).label == f"{NAME}:v1"
    assert house.ask("POST", f"/v1/models/{NAME}/promote", {"version": 2, "expected_generation": 1})["generation"] == 2
    assert house.manager.find(NAME).label == f"{NAME}:v2"
    rolled = house.ask("POST", f"/v1/models/{NAME}/rollback")
    assert (rolled["version"], rolled["generation"], rolled["previous"]) == (1, 3, 2)
    assert house.manager.find(NAME).label == f"{NAME}:v1"
    assert house.ask("POST", f"/v1/models/{NAME}/rollback", {"why": "no, it is"})["version"] == 2
    withdrawn = house.ask("POST", f"/v1/models/{NAME}/withdraw", {})
    assert (withdrawn["version"], withdrawn["generation"], withdrawn["previous"]) == (None, 5, 2)
    told = [
        (line["action"], line["version"], line["by"], line["why"])
        for line in house.ask("GET", f"/v1/models/{NAME}/ledger")["data"]
    ]
    assert told[2:] == [
        ("promote", 1, "anonymous", "better"),
        ("promote", 2, "anonymous", ""),
        ("rollback", 1, "anonymous", ""),
        ("rollback", 2, "anonymous", "no, it is"),
        ("withdraw", None, "anonymous", ""),
    ]


def test_versions_are_told_newest_first(house: House) -> None:
    house.train()
    house.train(promote=False)
    (house.registry.path(NAME, house.train(promote=False)) / "manifest.json").write_text("{")
    told = house.ask("GET", f"/v1/models/{NAME}/versions")
    assert (told["object"], told["model"], told["generation"], told["has_more"]) == ("list", NAME, 1, False)
    broken, held, serving = told["data"]
    assert [one["in_service"] for one in told["data"]] == [False, False, True]
    assert serving == {
        "id": f"{NAME}:v1",
        "object": "model.version",
        "version": 1,
        "in_service": True,
        "created": MANIFEST.created,
        "task": "classification",
        "base": "fake",
        "base_version": "0",
        "encoder": "base",
        "job": "ftjob-1",
        "owner": "key-0",
        "error": None,
        "labels": ["v1", "other"],
        "metrics": {"macro_f1": 0.9},
        "metric_labels": {"macro_f1": "macro-F1"},
    }
    assert (held["version"], held["error"]) == (2, None)
    assert (broken["version"], broken["task"], "Invalid JSON" in broken["error"]) == (3, None, True)


def test_the_openai_client_deletes_a_version(house: House) -> None:
    house.train()
    house.train()
    client = openai.OpenAI(api_key="none", base_url="http://testserver/v1", http_client=house.client, max_retries=0)
    deleted = client.models.delete(f"{NAME}:v1")
    assert (deleted.id, deleted.object, deleted.deleted) == (f"{NAME}:v1", "model", True)
    assert house.registry.versions(NAME) == [2]
    house.train(promote=False)
    for name in (f"{NAME}:v2", NAME):
        with pytest.raises(openai.ConflictError, match="is in service") as conflict:
            client.models.delete(name)
        assert conflict.value.response.headers["x-should-retry"] == "false"
    assert client.models.delete(f"{NAME}:v3").deleted
    for name in (NAME, f"{NAME}:v2"):
        assert name in [model.id for model in client.models.list()]
        assert client.models.retrieve(name).id == name
    house.client.put("/v1/aliases/prod", json={"target": NAME})
    with pytest.raises(openai.ConflictError, match="prod"):
        client.models.delete(f"{NAME}:v2")
    assert house.registry.current(NAME) is not None
    house.client.delete("/v1/aliases/prod")
    assert client.models.delete(f"{NAME}:v2").deleted, "nothing else needs the only version"
    assert [line["action"] for line in house.registry.ledger(NAME)][-2:] == ["withdraw", "delete"]
    with pytest.raises(openai.NotFoundError):
        client.models.delete(NAME)
    house.manager.watcher.sync()
    assert [model.id for model in client.models.list()] == ["fake"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "versions", None),
        ("GET", "ledger", None),
        ("GET", "owner", None),
        ("GET", "held_out", None),
        ("PUT", "owner", {"owner": "key-" + "a" * 12}),
        ("POST", "promote", {"version": 2}),
        ("POST", "rollback", None),
        ("POST", "withdraw", None),
    ],
)
def test_the_full_name_of_a_version_works_where_the_name_does(
    house: House, method: str, path: str, body: object
) -> None:
    house.train()
    house.train()
    known = house.client.request(method, f"/v1/models/{NAME}:v2/{path}", **json_of(body))
    assert known.status_code == (404 if path == "held_out" else 200), known.text
    assert f"'{NAME}/held_out'" in known.text or known.json()["model"] == NAME
    unknown = house.client.request(method, f"/v1/models/{NAME}:v9/{path}", **json_of(body))
    assert unknown.status_code == (200 if path == "ledger" else 404)


@pytest.mark.parametrize("asked", [NAME, "prod"])
def test_a_name_is_served_the_moment_it_is_promoted(house: House, asked: str) -> None:
    house.manager.watcher.sync()
    version = train(house.registry, house.where, BASE)
    assert house.client.post("/v1/classify", json={"model": asked, "input": "a"}).status_code == 404
    house.registry.promote(NAME, version, by="test", why="")
    house.registry.set_alias("prod", NAME)
    answer = house.client.post("/v1/classify", json={"model": asked, "input": "a"})
    assert (answer.status_code, answer.headers.get("x-sonde-model")) == (200, f"{NAME}:v1"), answer.text


def test_looks_at_the_registry_are_shared(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, looks = house.manager.watcher, list[float]()

    def sync() -> None:
        looks.append(time.monotonic())
        watcher._synced_at = looks[-1]

    monkeypatch.setattr(watcher, "_sync", sync)
    asked_at = time.monotonic()
    for _ in range(5):
        watcher.look(asked_at)
    assert len(looks) == 1
    watcher.look(time.monotonic())
    assert len(looks) == 2


@pytest.mark.parametrize("path", ["rollback", "withdraw"])
def test_a_version_that_is_not_in_service_is_not_taken_out_of_it(house: House, path: str) -> None:
    house.train()
    house.train()
    error = house.ask("POST", f"/v1/models/{NAME}:v1/{path}", None, 409)
    assert error["message"] == f"{NAME}:v2 is in service, not v1: name it, or none"
    assert house.registry.generation(NAME) == 2


def test_a_promotion_names_one_version(house: House) -> None:
    house.train()
    house.train(promote=False)
    error = house.ask("POST", f"/v1/models/{NAME}:v2/promote", {"version": 1}, 422)
    assert error["param"] == "version"


MISSING = ("fake", "ft:fake:team:nothing", f"{NAME}:v9", "..", "ft:../a:b", "ft:a:b:" + "c" * 99, "%00", "é")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/versions", None),
        ("GET", "/ledger", None),
        ("POST", "/promote", {"version": 1}),
        ("POST", "/rollback", None),
        ("POST", "/withdraw", None),
        ("DELETE", "", None),
    ],
)
def test_what_is_not_there_is_404(house: House, method: str, path: str, body: object) -> None:
    house.train()
    for missing in MISSING:
        if path == "/ledger" and missing == f"{NAME}:v9":
            continue  # the ledger is the name's, whichever of its versions is asked for
        error = house.ask(method, f"/v1/models/{missing.replace('/', '%2F').replace('..', '%2E%2E')}{path}", body, 404)
        assert error["code"] in {"model_not_found", "not_registered"}, missing
        assert house.registry.versions(NAME) == [1], missing


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("promote", {"version": 3}, 404, "model"),
        ("promote", {"version": 2, "expected_generation": 7}, 409, "model"),
        ("promote", {"version": 0}, 422, "version"),
        ("promote", {"version": "2"}, 422, "version"),
        ("promote", {}, 422, "version"),
        ("promote", {"version": 2, "force": True}, 422, "force"),
        ("rollback", None, 409, "model"),
        ("rollback", {"version": 1}, 422, "version"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(house: House, path: str, body: object, status: int, param: str) -> None:
    house.train()
    house.train(promote=False)
    error = house.ask("POST", f"/v1/models/{NAME}/{path}", body, status)
    assert error["param"] == param
    if status == 409:
        assert (error["type"], error["code"]) == ("conflict_error", "registry_conflict")
    assert house.registry.generation(NAME) == 1


def test_a_corrupt_version_cannot_be_promoted(house: House) -> None:
    house.train()
    (house.registry.path(NAME, house.train(promote=False)) / "report.md").write_text("changed")
    assert house.ask("POST", f"/v1/models/{NAME}/promote", {"version": 2}, 409)["code"] == "invalid_artifact"


def test_aliases_come_and_go(house: House) -> None:
    house.train()
    assert house.ask("GET", "/v1/aliases") == {"object": "list", "data": [], "has_more": False}
    assert house.ask("PUT", "/v1/aliases/prod", {"target": NAME}) == {"id": "prod", "object": "alias", "target": NAME}
    house.ask("PUT", "/v1/aliases/old", {"target": f"{NAME}:v1"})
    assert [alias["id"] for alias in house.ask("GET", "/v1/aliases")["data"]] == ["old", "prod"]
    assert house.ask("POST", "/v1/classify", {"model": "old", "input": "hello"})["data"][0]["label"] == "v1"
    assert house.ask("GET", "/v1/models/prod")["id"] == NAME
    assert house.ask("DELETE", "/v1/aliases/prod") == {"id": "prod", "object": "alias", "deleted": True}
    house.ask("POST", "/v1/classify", {"model": "prod", "input": "hello"}, 404)
    house.ask("DELETE", "/v1/aliases/prod", status=404)


@pytest.mark.parametrize(
    ("alias", "target", "status"),
    [
        ("fake", NAME, 409),
        ("sensors", NAME, 409),
        ("prod", "ft:fake:team:nothing", 404),
        ("prod", f"{NAME}:v2", 404),
        ("prod", "ft:fake:team:a--b", 404),
        ("prod", "fake", 422),
        ("prod", "..", 422),
        ("-x", NAME, 422),
        ("a:b", NAME, 422),
        ("x" * 65, NAME, 422),
    ],
)
def test_an_alias_that_means_nothing_is_refused(house: House, alias: str, target: str, status: int) -> None:
    house.train()
    house.ask("PUT", f"/v1/aliases/{alias}", {"target": target}, status)
    assert house.registry.aliases() == {}


CHANGES: list[tuple[str, str, object]] = [
    ("POST", f"/v1/models/{NAME}/promote", {"version": 1}),
    ("POST", f"/v1/models/{NAME}/rollback", None),
    ("POST", f"/v1/models/{NAME}/withdraw", None),
    ("DELETE", f"/v1/models/{NAME}:v1", None),
    ("PUT", "/v1/aliases/prod", {"target": NAME}),
    ("DELETE", "/v1/aliases/prod", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
@pytest.mark.parametrize("scope", ["infer", "train"])
def test_only_admins_change_what_serves(house: House, method: str, path: str, body: object, scope: Any) -> None:
    house.train(promote=False)
    keyring = Keyring(house.app.state.settings.keys_file)
    _, secret = keyring.create([scope])

    def send(key: str) -> Any:
        return house.client.request(method, path, headers={"x-api-key": key}, **json_of(body))

    answer = send(secret)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert house.registry.versions(NAME) == [1]
    assert house.registry.generation(NAME) == 0
    admin, secret = keyring.create(["admin"])
    assert send(secret).status_code != 403
    assert all(line["by"] in {admin.id, "ftjob-1"} for line in house.registry.ledger(NAME))


@pytest.mark.parametrize("path", [f"/v1/models/{NAME}/versions", f"/v1/models/{NAME}/ledger", "/v1/aliases"])
def test_a_key_for_infer_may_read(house: House, path: str) -> None:
    house.train()
    _, secret = Keyring(house.app.state.settings.keys_file).create(["infer"])
    assert house.client.get(path).status_code == 401
    assert house.client.get(path, headers={"x-api-key": secret}).status_code == 200


def test_the_document_names_every_status(openapi_document: dict[str, Any]) -> None:
    paths = openapi_document["paths"]
    for path, method, expected in (
        ("/v1/models/{model}/promote", "post", {"200", "400", "401", "403", "404", "409", "413", "415", "422"}),
        ("/v1/models/{model}/rollback", "post", {"200", "400", "401", "403", "404", "409", "413", "415", "422"}),
        ("/v1/models/{model}/versions", "get", {"200", "401", "403", "404"}),
        ("/v1/models/{model}", "delete", {"200", "401", "403", "404", "409"}),
        ("/v1/aliases/{alias}", "put", {"200", "400", "401", "403", "404", "409", "413", "415", "422"}),
    ):
        assert expected <= set(paths[path][method]["responses"]), path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/v1/models/{NAME}/promote", {"version": 1}),
        ("POST", f"/v1/models/{NAME}/rollback", None),
        ("POST", f"/v1/models/{NAME}/withdraw", None),
        ("PUT", "/v1/aliases/other", {"target": NAME}),
        ("DELETE", "/v1/aliases/prod", None),
    ],
)
@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(errno.ENOSPC, 507, "disk_full"), (errno.EROFS, 503, "unavailable"), (errno.EIO, 500, "internal_error")],
)
def test_a_full_disk_is_said_and_changes_nothing(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: object,
    number: int,
    status: int,
    code: str,
) -> None:
    house.train()
    house.train()
    house.registry.set_alias("prod", NAME)
    before = house.registry.current(NAME), house.registry.aliases()

    def fail(path: Path, content: bytes, permit: object) -> None:
        raise OSError(number, "no")

    for module in ("aliases", "pointer_history"):
        monkeypatch.setattr(f"models.registry.{module}.replace_file", fail)
    assert house.ask(method, path, body, status=status)["code"] == code
    assert (house.registry.current(NAME), house.registry.aliases()) == before


def test_a_change_does_not_wait_for_another_for_long(house: House) -> None:
    house.train()
    assert LEASE_S < MAX_WAIT_S < 5, "a request takes two locks, and has to be answered within 10 s"
    house.registry._max_wait_s = 0.1
    with house.registry._locked(NAME):
        answer = house.client.post(f"/v1/models/{NAME}/promote", json={"version": 1, "why": "test"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_busy")
    assert answer.headers["retry-after"] == "1"
    house.ask("POST", f"/v1/models/{NAME}/promote", {"version": 1, "why": "test"})


def test_every_trained_name_is_listed_also_without_one_in_service(house: House) -> None:
    house.train()
    house.train(promote=False)
    others = [NAME.replace(NAME.rpartition(":")[2], suffix) for suffix in ("aa", "zz")]
    for name in others:
        house.train(promote=False, name=name)
    listed = house.ask("GET", "/v1/trained_models")
    assert {one["id"]: (one["version"], one["versions"]) for one in listed["data"]} == {
        others[0]: (None, [1]),
        NAME: (1, [1, 2]),
        others[1]: (None, [1]),
    }
    first = house.ask("GET", "/v1/trained_models?limit=2")
    assert first["has_more"]
    rest = house.ask("GET", f"/v1/trained_models?limit=2&after={first['data'][-1]['id']}")
    assert first["data"] + rest["data"] == listed["data"]
    assert not rest["has_more"]
