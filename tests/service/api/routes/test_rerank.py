"""Rerank as Cohere's clients ask for it, by an encoder and by a cross-encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sentence_transformers import SentenceTransformer

from models.loader import load
from models.runtime.placement import place
from models.source import locate
from tests.fakes.model import FakeModel
from tests.support import tiny_models
from tests.support.app import MakeApp

DOCUMENTS = ["pizza", "my card is lost", "card", "rain weather"]


@pytest.fixture
def both(make_app: MakeApp) -> TestClient:
    return TestClient(
        make_app(FakeModel("fake", prompts={"query": "w1 ", "document": "w2 "}), FakeModel("cross", task="rerank"))
    )


def rerank(client: TestClient, path: str = "/v2/rerank", **body: object) -> Any:
    answer = client.post(path, json={"model": "fake", "query": "card lost", "documents": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_documents_come_by_relevance(client: TestClient) -> None:
    answer = rerank(client)
    assert [entry["index"] for entry in answer["results"]][:2] in ([1, 2], [2, 1])
    scores = [entry["relevance_score"] for entry in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= value <= 1 for value in scores)
    assert answer["meta"]["billed_units"] == {"search_units": 1}


@pytest.mark.parametrize(("path", "version"), [("/v1/rerank", "1"), ("/v2/rerank", "2")])
def test_both_versions_of_the_route_answer(client: TestClient, path: str, version: str) -> None:
    assert rerank(client, path)["meta"]["api_version"] == {"version": version}


def test_documents_may_be_objects_and_come_back(client: TestClient) -> None:
    answer = rerank(client, "/v1/rerank", documents=[{"text": "pizza"}, "card lost"], return_documents=True, top_n=1)
    assert [(entry["index"], entry["document"]) for entry in answer["results"]] == [(1, {"text": "card lost"})]


def test_a_cross_encoder_reads_query_and_document_together(both: TestClient) -> None:
    answer = rerank(both, model="cross")
    assert sorted(entry["index"] for entry in answer["results"]) == [0, 1, 2, 3]
    # [CLS] card lost [SEP] … [SEP]
    assert answer["meta"]["tokens"]["input_tokens"] == sum(5 + len(text.split()) for text in DOCUMENTS)


def test_an_encoder_uses_its_prompts_for_queries_and_documents(both: TestClient) -> None:
    # [CLS] w2 … [SEP] for each document, and [CLS] w1 card lost [SEP]
    assert rerank(both)["meta"]["tokens"]["input_tokens"] == sum(3 + len(text.split()) for text in DOCUMENTS) + 5


@pytest.mark.slow
@pytest.mark.parametrize("documents_are", ["document", "passage", "corpus", None])
def test_an_encoder_ranks_as_sentence_transformers_does(
    tmp_path: Path, make_app: MakeApp, documents_are: str | None
) -> None:
    prompts = {"query": "find: "} | ({documents_are: "the card: "} if documents_are else {})
    path = tiny_models.roughen(tiny_models.encoder(tmp_path / "model", prompts=prompts, default_prompt="query"))
    client = TestClient(make_app(load(locate(str(path)), place("cpu", "float32"))))
    library = SentenceTransformer(str(path), device="cpu")
    name = {"prompt_name": documents_are} if documents_are else {}
    cosines = library.similarity(library.encode_query("card lost"), library.encode_document(DOCUMENTS, **name))[0]
    answer = rerank(client, model="model")
    scores = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert [scores[index] for index in range(len(DOCUMENTS))] == pytest.approx(cosines.clip(0, 1).tolist(), abs=1e-4)


@pytest.mark.slow
def test_an_encoder_cuts_queries_and_documents_as_sentence_transformers_does(tmp_path: Path, make_app: MakeApp) -> None:
    path = tiny_models.roughen(tiny_models.encoder(tmp_path / "model"))
    settings = path / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "query_length": 5, "document_length": 9}))
    client = TestClient(make_app(load(locate(str(path)), place("cpu", "float32"))))
    library = SentenceTransformer(str(path), device="cpu")
    cosines = library.similarity(library.encode_query("card lost"), library.encode_document(DOCUMENTS))[0]
    answer = rerank(client, model="model")
    scores = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}
    assert [scores[index] for index in range(len(DOCUMENTS))] == pytest.approx(cosines.clip(0, 1).tolist(), abs=1e-4)
    assert answer["meta"]["truncated"] == 3


def test_long_documents_may_be_cut(client: TestClient) -> None:
    answer = rerank(client, documents=["card is lost " * 5, "card lost"], max_tokens_per_doc=2)
    assert answer["meta"]["truncated"] == 1
    # [CLS] card is [SEP], [CLS] card lost [SEP] twice
    assert answer["meta"]["tokens"]["input_tokens"] == 12


def test_a_cross_encoder_cuts_the_document_and_not_the_query(both: TestClient) -> None:
    answer = rerank(
        both, model="cross", query="where is my card", documents=["card is lost " * 5], max_tokens_per_doc=2
    )
    assert answer["meta"]["tokens"]["input_tokens"] == 3 + 4 + 2


def test_rank_fields_are_read_in_their_order(client: TestClient) -> None:
    document = {"title": "card", "body": "lost", "year": 2020, "text": "pizza", "empty": None}
    fields = ["title", "body", "year", "empty", "missing"]
    for chosen, read in ((fields, "card\nlost\n2020"), (["missing"], "pizza"), (None, "pizza")):
        by_fields = rerank(client, documents=[document], rank_fields=chosen)["results"]
        assert by_fields == rerank(client, documents=[read])["results"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1]"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a"] * 6}, "documents"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"priority": 1000}, "priority"),
        ({"documents": ["a", {"text": ""}]}, "documents[1]"),
        ({"documents": [{"text": 5}]}, "documents[0]"),
        ({"documents": [{"title": ""}], "rank_fields": ["title"]}, "documents[0]"),
        ({"top_n": 1, "top_k": 2}, "top_k"),
        ({"documents": ["a", "w1 " * 40], "truncation": False}, "documents[1]"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(make_app: MakeApp, change: dict[str, Any], param: str) -> None:
    client = TestClient(make_app(max_inputs=5))
    answer = client.post("/v2/rerank", json={"model": "fake", "query": "a", "documents": ["b"], **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_a_field_that_is_named_often_is_read_once(client: TestClient) -> None:
    once = rerank(client, documents=[{"title": "my card", "text": "lost"}], rank_fields=["title", "text"])
    often = rerank(client, documents=[{"title": "my card", "text": "lost"}], rank_fields=["title", "text"] * 50)
    assert often["meta"]["tokens"] == once["meta"]["tokens"]
    body = {"model": "fake", "query": "a", "documents": ["b"], "rank_fields": ["title"] * 101}
    assert client.post("/v2/rerank", json=body).json()["error"]["param"] == "rank_fields"
