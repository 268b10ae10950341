"""The routes of text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

LONG = "w1 " * 40
UNCUT = {"parameters": {"truncate": False}}


@pytest.fixture(scope="module")
def everything(make_shared_app: MakeApp) -> TestClient:
    """A model of each kind, so that routes without `model` must choose."""
    return TestClient(
        make_shared_app(
            FakeModel("intents", task="classification", labels=("yes", "no", "maybe")),
            FakeModel("fake", prompts={"query": "w1 "}),
            FakeModel("cross", task="rerank"),
        )
    )


def post(client: TestClient, path: str, **body: object) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_embed_gives_plain_lists(everything: TestClient, client: TestClient) -> None:
    vectors = np.array(post(everything, "/embed", inputs=["hello", "my card"]))
    np.testing.assert_array_equal(post(client, "/", inputs=["hello", "my card"]), vectors)
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    openai = post(everything, "/v1/embeddings", model="fake", input="hello")["data"][0]["embedding"]
    np.testing.assert_allclose(vectors[0], openai, atol=1e-6)


@pytest.mark.parametrize("path", ["/", "/models/fake"])
def test_a_body_of_any_task_is_needed(everything: TestClient, path: str) -> None:
    for headers in ({}, {"content-type": "application/json"}):
        answer = everything.post(path, headers=headers)
        assert answer.status_code in (400, 415), answer.text
    for body, status in (("null", 422), ("{}", 422), ("[]", 422), ("", 400)):
        answer = everything.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text


def test_embed_cuts_from_the_side_that_is_asked_for(everything: TestClient) -> None:
    words = " ".join(f"w{number}" for number in range(40))
    left = post(everything, "/embed", inputs=words, truncation_direction="Left")
    assert left == post(everything, "/embed", inputs=" ".join(words.split()[-30:]))
    assert left != post(everything, "/embed", inputs=words, truncate=None)


WORDS = [f"w{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("side", "kept"), [("Left", WORDS[-27:]), ("left", WORDS[-27:]), ("Right", WORDS[:27]), (None, WORDS[:27])]
)
def test_a_cross_encoder_cuts_the_side_that_is_asked_for(everything: TestClient, side: str | None, kept: Any) -> None:
    def score(text: str, **more: object) -> Any:
        return post(everything, "/rerank", query="my card", texts=[text], raw_scores=True, **more)

    # [CLS] my card [SEP] … [SEP] are 32 tokens.
    assert score(" ".join(WORDS), truncation_direction=side) == score(" ".join(kept))


@pytest.mark.parametrize(("side", "kept"), [("Left", WORDS[-30:]), ("Right", WORDS[:30]), (None, WORDS[:30])])
def test_predict_cuts_the_side_that_is_asked_for(everything: TestClient, side: str | None, kept: Any) -> None:
    cut = post(everything, "/predict", inputs=" ".join(WORDS), truncation_direction=side)
    assert cut == post(everything, "/predict", inputs=" ".join(kept))


@pytest.mark.parametrize(
    ("inputs", "batched"),
    [("hello", False), (["hello"], False), (["hello", "world"], False), ([["hello"], ["world"]], True)],
)
def test_predict_answers_as_it_is_asked(everything: TestClient, inputs: Any, batched: bool) -> None:
    answer = post(everything, "/predict", inputs=inputs)
    lines = answer if batched else [answer]
    assert len(lines) == (len(inputs) if batched else 1)
    for line in lines:
        assert [entry["score"] for entry in line] == sorted((entry["score"] for entry in line), reverse=True)
        assert sum(entry["score"] for entry in line) == pytest.approx(1)


def test_predict_scores_as_its_parameters_say(everything: TestClient) -> None:
    def scores(**more: object) -> dict[str, float]:
        answer = post(everything, "/predict", inputs="hello", **more)
        return {entry["label"]: entry["score"] for entry in (answer[0] if "parameters" in more else answer)}

    logits = scores(raw_scores=True)
    assert scores(parameters={"function_to_apply": "none"}) == logits
    each = scores(parameters={"function_to_apply": "sigmoid"})
    assert each == pytest.approx({label: 1 / (1 + np.exp(-value)) for label, value in logits.items()})
    assert len(scores(parameters={"top_k": 2})) == 2


def test_rerank_ranks_and_returns_texts(everything: TestClient) -> None:
    ranked = post(
        everything, "/rerank", query="card lost", texts=["pizza", "card lost"], return_text=True, model="fake"
    )
    assert [(entry["index"], entry["text"]) for entry in ranked] == [(1, "card lost"), (0, "pizza")]
    assert ranked[0]["score"] > 0.8 > ranked[1]["score"]


def test_rerank_prefers_a_cross_encoder(everything: TestClient) -> None:
    answer = everything.post("/rerank", json={"query": "card", "texts": ["card"]})
    assert answer.headers["x-sonde-model"] == "cross:0"


def test_raw_rerank_scores_may_be_negative(everything: TestClient) -> None:
    raw = [
        entry["score"]
        for entry in post(everything, "/rerank", query="card", texts=["pizza", "w1", "w9", "rain"], raw_scores=True)
    ]
    assert min(raw) < 0
    shaped = [
        entry["score"] for entry in post(everything, "/rerank", query="card", texts=["pizza", "w1", "w9", "rain"])
    ]
    assert shaped == pytest.approx([1 / (1 + np.exp(-value)) for value in raw])


def test_similarity_is_the_cosine_to_the_source(everything: TestClient) -> None:
    inputs = {"source_sentence": "my card", "sentences": ["my card", "pizza"]}
    same, other = post(everything, "/similarity", inputs=inputs)
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.9


def test_tokenize_shows_places_in_the_text(everything: TestClient) -> None:
    [tokens] = post(everything, "/tokenize", inputs="my  card", model="fake")
    assert [(token["text"], token["special"], token["start"], token["stop"]) for token in tokens] == [
        ("[CLS]", True, None, None),
        ("my", False, 0, 2),
        ("card", False, 4, 8),
        ("[SEP]", True, None, None),
    ]


def test_our_tokenize_shows_what_the_model_sees(everything: TestClient) -> None:
    answer = post(everything, "/v1/tokenize", model="fake", input=["my \t card ", "w1 " * 40], prompt_name="query")
    first, second = answer["data"]
    assert (first["text"], first["tokens"]) == ("w1 my \t card ", ["[CLS]", "w1", "my", "card", "[SEP]"])
    assert (first["truncated"], second["truncated"], answer["max_tokens"]) == (False, True, 32)


def test_decode_undoes_tokenize(everything: TestClient) -> None:
    [tokens] = post(everything, "/tokenize", inputs="my card")
    ids = [token["id"] for token in tokens]
    assert post(everything, "/decode", ids=ids) == ["my card"]
    assert post(everything, "/decode", ids=[ids], skip_special_tokens=False) == ["[CLS] my card [SEP]"]


def test_the_root_does_what_the_first_model_does(everything: TestClient, make_app: MakeApp) -> None:
    # In a list of its own, as Hugging Face's clients read it.
    assert post(everything, "/", inputs="hello") == [post(everything, "/predict", inputs="hello")]
    cross = TestClient(make_app(FakeModel("cross", task="rerank")))
    assert post(cross, "/", query="a", texts=["b"]) == post(cross, "/rerank", query="a", texts=["b"])
    inputs = {"source_sentence": "my card", "sentences": ["my card", "pizza"]}
    assert post(everything, "/", inputs=inputs) == post(everything, "/similarity", inputs=inputs)
    refused = everything.post("/", json={"inputs": "", "nonsense": 1})
    assert refused.status_code == 422
    assert everything.post("/", json=[]).status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ("/embed", {"inputs": LONG, "truncate": False}, "inputs"),
        ("/embed", {"inputs": ["a", LONG], "truncate": False}, "inputs[1]"),
        ("/embed", {"inputs": [4, 99_999]}, "inputs"),
        ("/predict", {"inputs": LONG, "truncate": False}, "inputs"),
        ("/predict", {"inputs": ["a", LONG], "truncate": False}, "inputs"),
        ("/predict", {"inputs": [["a"], [LONG]], "truncate": False}, "inputs[1]"),
        ("/rerank", {"query": LONG, "texts": ["a"], "truncate": False, "model": "fake"}, "query"),
        ("/rerank", {"query": "a", "texts": ["a", LONG], "truncate": False, "model": "fake"}, "texts[1]"),
        ("/rerank", {"query": "a", "texts": ["a", LONG], "truncate": False}, "texts[1]"),
        ("/similarity", {"inputs": {"source_sentence": LONG, "sentences": ["a"]}, **UNCUT}, "inputs.source_sentence"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["a", LONG]}, **UNCUT}, "inputs.sentences[1]"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "inputs"),
        ("/predict", {"inputs": [["a"], ["b", "c"]]}, "inputs"),
        ("/predict", {"inputs": "a", "model": "fake"}, "model"),
        ("/rerank", {"query": "a", "texts": []}, "texts"),
        ("/rerank", {"query": "a"}, "texts"),
        ("/rerank", {"query": "a", "texts": ["a"], "documents": ["a"]}, "documents"),
        ("/rerank", {"query": "a", "documents": ["a", LONG], "truncate": False, "model": "fake"}, "documents[1]"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences"),
        ("/tokenize", {"inputs": "a", "model": "fake", "prompt_name": "none"}, "prompt_name"),
        ("/decode", {"ids": [[4], [99_999]]}, "ids[1]"),
        ("/decode", {"ids": ["a"]}, "ids[0]"),
        ("/decode", {"ids": [4, 2**64 - 1]}, "ids"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(everything: TestClient, path: str, body: Any, param: str) -> None:
    answer = everything.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, param), error


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize", "/decode"])
def test_what_needs_no_model_has_limits_too(make_app: MakeApp, path: str) -> None:
    client = TestClient(make_app(FakeModel("fake"), max_request_tokens=20))
    field = {"/tokenize": "inputs", "/v1/tokenize": "input", "/decode": "ids"}[path]
    for given in (
        [[4] * 21] if path == "/decode" else "w1 " * 21,
        [[4] * 11] * 2 if path == "/decode" else ["w1 " * 9] * 2,
    ):
        answer = client.post(path, json={"model": "fake", field: given})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, field), answer.text


def test_a_route_without_a_model_for_it_says_so(client: TestClient) -> None:
    answer = client.post("/predict", json={"inputs": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_task")


def test_an_answer_that_would_name_labels_too_often_is_refused(make_app: MakeApp) -> None:
    client = TestClient(make_app(FakeModel("intents", task="classification", labels=("x" * 20_000, "y"))))
    answer = client.post("/predict", json={"inputs": [["w1"]] * 1000})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "inputs")
    assert client.post("/predict", json={"inputs": "w1"}).status_code == 200


@pytest.mark.parametrize(
    ("inputs", "parameters", "says"),
    [
        (["w1"], {"candidate_labels": "," * 100_000}, "candidate_labels has 100001 items, 2048 are allowed"),
        (["w1"], {"candidate_labels": [str(number) for number in range(2049)]}, "has 2049 items, 2048 are allowed"),
        (["w1"], {"candidate_labels": ["a"], "hypothesis_template": "{} {}"}, "expected {} at most once"),
        (["w1"], {"candidate_labels": ["a"], "hypothesis_template": "x" * 1001}, "at most 1000 characters"),
        (["w1"] * 1000, {"candidate_labels": ["x" * 20_000, "y"]}, "1000 inputs and 2 labels make an answer of"),
    ],
)
def test_candidate_labels_cost_no_more_than_their_body(
    client: TestClient, inputs: list[str], parameters: dict[str, object], says: str
) -> None:
    answer = client.post("/models/fake", json={"inputs": inputs, "parameters": parameters})
    assert answer.status_code == 422, answer.text[:200]
    assert says in answer.json()["error"]["message"]
