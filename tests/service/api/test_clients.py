"""Clients that others wrote, unchanged, against a real service with the real model."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.request
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from tests.support import tiny_models
from tests.support.server import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def strict(server: Served) -> Iterator[openai.OpenAI]:
    """The client that refuses what is not exactly as documented. It cannot read the base64 that it asks for by
    itself.
    """
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_openai_finds_the_answers_to_be_exactly_its_own(strict: openai.OpenAI) -> None:
    answer = strict.embeddings.create(model=MODEL, input=["a text", "another"], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    assert [model.id for model in strict.models.list().data] == [MODEL]
    assert strict.models.retrieve(MODEL).id == MODEL


def test_openai_embeds(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["my card is lost", "somebody stole my card", "nice weather"])
    vectors = np.array([item.embedding for item in answer.data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[1] > 0.6 > 0.3 > vectors[0] @ vectors[2]
    assert answer.usage.prompt_tokens == 6 + 6 + 4


def test_openai_gets_the_same_numbers_in_both_formats(client: openai.OpenAI) -> None:
    as_floats, as_base64 = (
        client.embeddings.create(model=MODEL, input="the same text", encoding_format="float").data[0].embedding,
        client.embeddings.create(model=MODEL, input="the same text").data[0].embedding,
    )
    np.testing.assert_allclose(as_floats, as_base64, atol=1e-7)


def test_openai_sends_dimensions(client: openai.OpenAI) -> None:
    short = client.embeddings.create(model=MODEL, input="my card is lost", dimensions=64).data[0].embedding
    whole = np.array(client.embeddings.create(model=MODEL, input="my card is lost").data[0].embedding)
    np.testing.assert_allclose(short, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-3)


def test_openai_is_told_what_to_do_about_token_ids(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=MODEL, input=[[9241, 374, 856, 3786, 30]])


def test_openai_lists_models(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "sonde")
    assert client.models.retrieve(MODEL).id == MODEL


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is: all-MiniLM-L6-v2"):
        client.embeddings.create(model="gpt-9", input="a")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model=MODEL, input=["a", ""])
    assert caught.value.param == "input[1]"


def test_openai_reaches_our_own_routes(client: openai.OpenAI) -> None:
    body = {"model": MODEL, "input": "I left my card in a taxi", "labels": ["card lost", "refund", "opening hours"]}
    answer: Any = client.post("/classify", body=body, cast_to=object)
    assert answer["data"][0]["label"] == "card lost"


def test_openai_waits_for_async_callers_too(server: Served) -> None:
    async def ask() -> int:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return len((await client.embeddings.create(model=MODEL, input="hello")).data)

    assert asyncio.run(ask()) == 1


def test_hugging_face_embeds_and_compares(server: Served) -> None:
    with InferenceClient(server.url) as client:
        vector = client.feature_extraction("my card is lost", normalize=True, truncate=True)
        same, other = client.sentence_similarity("my card is lost", other_sentences=["I lost my card", "nice weather"])
    assert vector.shape == (1, 384)
    assert same > 0.8 > 0.3 > other


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a classifier, which answers at `/`, a cross-encoder and an encoder."""
    home = tmp_path_factory.mktemp("classifiers")
    intents, cross = tiny_models.classifier(home / "intents"), tiny_models.cross_encoder(home / "cross")
    models = {"intents": intents, "cross": cross, "small": MODEL}
    flags = [word for name, path in models.items() for word in ("--model", f"{name}={path}")]
    with serving(home, *flags) as served:
        yield served


def test_several_models_are_served_side_by_side(classifiers: Served) -> None:
    with httpx.Client(base_url=classifiers.url) as http:
        listed = {model["id"]: model["task"] for model in http.get("/v1/models").json()["data"]}
        assert listed == {"small": "embedding", "intents": "classification", "cross": "rerank"}
        for path, body, name in (
            ("/embed", {"inputs": "a"}, "small"),
            ("/predict", {"inputs": "a"}, "intents"),
            ("/rerank", {"query": "a", "texts": ["b"]}, "cross"),
        ):
            assert http.post(path, json=body).headers["x-sonde-model"].startswith(f"{name}:")


def test_hugging_face_classifies(classifiers: Served) -> None:
    with InferenceClient(classifiers.url) as client:
        found = client.text_classification("hello there", top_k=2)
        assert len(found) == 2
        assert found[0].score >= found[1].score
        assert sum(item.score for item in client.text_classification("hello there")) == pytest.approx(1, abs=1e-4)


DOCUMENTS = ["The weather is nice today.", "Freeze your card in the app when you lose it.", "Refunds take seven days."]


def test_cohere_reranks(server: Served) -> None:
    for kind in (cohere.ClientV2, cohere.Client):
        with httpx.Client() as http:
            answer = kind("none", base_url=server.url, httpx_client=http).rerank(
                model=MODEL, query="what if my card is gone", documents=DOCUMENTS, top_n=2
            )
        assert answer.results[0].index == 1
        assert len(answer.results) == 2
        assert answer.results[0].relevance_score > answer.results[1].relevance_score


def test_cohere_reranks_with_a_cross_encoder(classifiers: Served) -> None:
    with httpx.Client() as http:
        client = cohere.ClientV2("none", base_url=classifiers.url, httpx_client=http)
        answer = client.rerank(model="cross", query="the card", documents=["a card", "the refund"])
        assert sorted(result.index for result in answer.results) == [0, 1]


def test_plain_http_is_enough(server: Served) -> None:
    body = json.dumps({"model": MODEL, "input": "hello"}).encode()
    request = urllib.request.Request(f"{server.url}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert math.isclose(sum(x * x for x in json.load(answer)["data"][0]["embedding"]), 1, abs_tol=1e-3)


def test_the_documentation_needs_no_network(server: Served) -> None:
    page = httpx.get(f"{server.url}/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for part in page.split('"'):
        if part.endswith((".js", ".css")):
            assert httpx.get(f"{server.url}{part}").status_code == 200
