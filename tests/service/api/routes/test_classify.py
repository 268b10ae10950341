"""Classification over HTTP: labels sent along, or a model's own."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

LONG = "w1 " * 40
EXAMPLES = {
    "lost": [f"my card is lost w{number}" for number in range(10)],
    "refund": [f"refund my order please w{number}" for number in range(10)],
}


def classify(client: TestClient, **body: object) -> Any:
    answer = client.post("/v1/classify", json={"model": "fake", "input": "my card is lost", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_nearest_label_wins(client: TestClient) -> None:
    [item] = classify(client, labels=["refund order", "card lost"])["data"]
    assert item["label"] == "card lost"
    assert [entry["label"] for entry in item["labels"]] == ["card lost", "refund order"]
    assert sum(entry["score"] for entry in item["labels"]) == pytest.approx(1)
    assert (item["object"], item["index"], item["truncated"]) == ("classification", 0, False)
    assert (item["out_of_scope"], item["p_value"]) == (None, None), "nothing is known of what is in scope"


def test_underscores_in_a_label_are_spaces_to_the_model(client: TestClient) -> None:
    plain, joined = (
        classify(client, labels=[name, "refund"])["data"][0]["labels"] for name in ("card lost", "card_lost")
    )
    assert [entry["score"] for entry in plain] == [entry["score"] for entry in joined]
    assert joined[0]["label"] == "card_lost"


def test_descriptions_and_examples_count_beside_names(client: TestClient) -> None:
    assert classify(client, input="pizza please", labels=["w1", "pizza"])["data"][0]["label"] == "pizza"
    described = classify(
        client, input="pizza please", labels={"w1": ["pizza please", "please, pizza"], "pizza": "rain weather"}
    )
    assert described["data"][0]["label"] == "w1"


def test_labels_may_be_judged_one_by_one(client: TestClient) -> None:
    [item] = classify(client, labels=["my card is lost", "lost card is my", "rain"], multi_label=True)["data"]
    assert [entry["score"] > 0.5 for entry in item["labels"]] == [True, True, False]


def test_a_single_label_is_judged_by_itself(client: TestClient) -> None:
    items = classify(client, input=["my card is lost", "rain"], labels=["card lost"])["data"]
    assert items == classify(client, input=["my card is lost", "rain"], labels=["card lost"], multi_label=True)["data"]
    near, far = (item["labels"][0]["score"] for item in items)
    assert far < 0.5 < near < 1
    ranked = client.post("/models/fake", json={"inputs": "rain", "parameters": {"candidate_labels": "card lost"}})
    assert ranked.json() == [{"label": "card lost", "score": far}]


def test_a_single_label_with_examples_has_the_chance_of_being_in_scope(client: TestClient) -> None:
    [item] = classify(client, labels={"lost": [f"my card is lost w{number}" for number in range(20)]})["data"]
    [label] = item["labels"]
    assert label["score_in_scope"] == 1
    assert 0 < label["score"] < 1


def test_only_the_best_may_be_asked_for(client: TestClient) -> None:
    items = classify(client, input=["card", "refund"], labels=["card", "refund", "rain"], top_k=1)["data"]
    assert [[entry["label"] for entry in item["labels"]] for item in items] == [["card"], ["refund"]]


def test_enough_examples_tell_what_is_out_of_scope(client: TestClient) -> None:
    items = classify(client, input=["my card is lost w3", "pizza weather rain"], labels=EXAMPLES)["data"]
    assert [item["out_of_scope"] for item in items] == [False, True]
    assert items[1]["p_value"] == pytest.approx(1 / 21)


def test_the_scope_enters_the_score(client: TestClient) -> None:
    near, far = classify(client, input=["my card is lost w3", "pizza weather rain"], labels=EXAMPLES)["data"]
    for item in (near, far):
        shares = [entry["score"] / entry["score_in_scope"] for entry in item["labels"]]
        assert shares == [pytest.approx(shares[0], rel=1e-5)] * 2, "one probability of being in scope for all labels"
        assert sum(entry["score_in_scope"] for entry in item["labels"]) == pytest.approx(1)
    assert near["labels"][0]["score"] > 0.8 > 0.6 > far["labels"][0]["score"]
    # None of 20 examples was taken for the other label's, so the error rate may be 14 %.
    assert near["labels"][0]["score_in_scope"] <= 0.05 ** (1 / 20) + 1e-6


def test_names_alone_say_nothing_of_the_scope(client: TestClient) -> None:
    for entry in classify(client, labels=["refund order", "card lost"])["data"][0]["labels"]:
        assert entry["score"] == entry["score_in_scope"]


def test_a_least_confidence_leaves_the_label_out(client: TestClient) -> None:
    texts = ["my card is lost w3", "pizza weather rain"]
    items = classify(client, input=texts, labels=EXAMPLES, min_confidence=0.6)["data"]
    assert [item["label"] for item in items] == ["lost", None]
    assert [len(item["labels"]) for item in items] == [2, 2], "the scores stay"
    assert [item["label"] is None for item in classify(client, input=texts, labels=EXAMPLES)["data"]] == [False] * 2
    for wrong in (-0.1, 1.5, "sure"):
        body = {"model": "fake", "input": "a", "labels": ["a", "b"], "min_confidence": wrong}
        answer = client.post("/v1/classify", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "min_confidence")


def test_descriptions_tell_nothing_of_the_scope(client: TestClient) -> None:
    labels = {f"w{number}": f"my card is lost w{number}" for number in range(25)}
    assert classify(client, labels=labels)["data"][0]["out_of_scope"] is None


def test_labels_that_were_cut_are_counted(client: TestClient) -> None:
    labels = {"a": ["w1 " * 40, "b"]}
    assert classify(client, labels=labels)["label_set"] == {"count": 3, "cached": False, "truncated": 1}
    assert classify(client, labels=labels)["label_set"] == {"count": 3, "cached": True, "truncated": 1}
    refused = client.post("/v1/classify", json={"model": "fake", "input": "a", "labels": labels, "truncate": False})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "labels.a[0]")


@pytest.mark.parametrize(
    ("labels", "param"),
    [
        ({"x": ["a", "b", "c"], "y": LONG}, "labels.y"),
        ({"x": ["a", "b", "c"], "y": ["a", LONG]}, "labels.y[1]"),
        ({"x": "a", LONG: "b"}, f"labels.{LONG[:79]}…"),
        (["x", "y", LONG], "labels[2]"),
        (["x", "y"], "input"),
    ],
    ids=["description", "example", "name", "name alone", "input"],
)
def test_a_label_that_may_not_be_cut_is_named_as_it_was_sent(client: TestClient, labels: Any, param: str) -> None:
    given = LONG if param == "input" else "a"
    error = client.post(
        "/v1/classify", json={"model": "fake", "input": given, "labels": labels, "truncate": False}
    ).json()["error"]
    assert (error["code"], error["param"]) == ("input_too_long", param)
    assert error["message"].startswith(f"{param} has at least 42 tokens")


def test_labels_are_computed_once(make_app: MakeApp) -> None:
    model = FakeModel("fake")
    client = TestClient(make_app(model, cache_mb=1))
    first, again = classify(client, labels=EXAMPLES), classify(client, labels=EXAMPLES)
    assert first["data"] == again["data"]
    assert again["usage"]["total_tokens"] == 6, "the input alone"
    before = len(model.batches)
    classify(client, input="refund please", labels=EXAMPLES)
    assert sum(len(batch) for batch in model.batches[before:]) == 1


def test_a_trained_classifier_has_labels_of_its_own(make_app: MakeApp) -> None:
    client = TestClient(make_app(FakeModel("fake", task="classification", labels=("yes", "no", "maybe"))))
    [item] = classify(client)["data"]
    assert {entry["label"] for entry in item["labels"]} == {"yes", "no", "maybe"}
    assert sum(entry["score"] for entry in item["labels"]) == pytest.approx(1)
    refused = client.post("/v1/classify", json={"model": "fake", "input": "a", "labels": ["x"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "labels")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({}, "labels"),
        ({"labels": []}, "labels"),
        ({"labels": {}}, "labels"),
        ({"labels": "a"}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", ""]}, "labels[1]"),
        ({"labels": {"a": 5}}, "labels.a"),
        ({"labels": {"a": ["x", ""]}}, "labels.a[1]"),
        ({"labels": [f"w{number}" for number in range(6)]}, "labels"),
        ({"labels": ["a"], "top_k": 0}, "top_k"),
        ({"labels": ["a"], "input": ["b"] * 6}, "input"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(make_app: MakeApp, change: dict[str, Any], param: str) -> None:
    client = TestClient(make_app(max_inputs=5))
    answer = client.post("/v1/classify", json={"model": "fake", "input": "hello", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_a_reranker_classifies_nothing(make_app: MakeApp) -> None:
    client = TestClient(
        make_app(FakeModel("cross", task="rerank"), FakeModel("fake", task="classification", labels=("a", "b")))
    )
    error = client.post("/v1/classify", json={"model": "cross", "input": "a"}).json()["error"]
    assert error["code"] == "wrong_task"
    assert "models that do classification with texts: fake" in error["message"]


@pytest.mark.parametrize(
    ("inputs", "labels"), [(2000, ["x" * 20_000, "y"]), (1000, [f"label {number}" for number in range(900)])]
)
def test_an_answer_that_would_name_labels_too_often_is_refused(
    client: TestClient, inputs: int, labels: list[str]
) -> None:
    body = {"model": "fake", "input": ["w1"] * inputs, "labels": labels}
    error = client.post("/v1/classify", json=body).json()["error"]
    assert error["param"] == "input"
    assert f"{inputs} inputs and {len(labels)} labels make an answer of" in error["message"]
    assert client.post("/v1/classify", json={**body, "input": ["w1"]}).status_code == 200
    short = client.post("/v1/classify", json={**body, "input": ["w1"] * 400, "top_k": 1})
    assert short.status_code == 200, short.text
