"""Requests as other APIs' clients sent them, byte for byte but for the model's name.

Each answer is read as its client reads it, and compared with the vectors or the order of our own routes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.auth import Keyring
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

TEXTS = ["where is my card", "the weather is nice"]
DOCUMENTS = ["pizza", "my card is lost", "card", "rain weather"]
QUERY = "card lost"
Vectors = NDArray[np.float32]
Read = Callable[[Any], Any]


@pytest.fixture(scope="module")
def client(make_shared_app: MakeApp) -> TestClient:
    prompts = {"query": "w1 ", "passage": "w2 "}
    return TestClient(
        make_shared_app(
            FakeModel("m", prompts=prompts),
            FakeModel("intents", task="classification", labels=("yes", "no", "maybe")),
            FakeModel("cross", task="rerank"),
        )
    )


def post(client: TestClient, path: str, body: object, **headers: str) -> Any:
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def own_vectors(client: TestClient, **more: object) -> Vectors:
    answer = post(client, "/v1/embeddings", {"model": "m", "input": TEXTS, **more})
    return np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)


def own_order(client: TestClient, model: str = "m") -> list[int]:
    answer = post(client, "/v2/rerank", {"model": model, "query": QUERY, "documents": DOCUMENTS})
    return [entry["index"] for entry in answer["results"]]


def of_data(answer: Any) -> list[list[float]]:
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    return [item["embedding"] for item in answer["data"]]


def of_base64(answer: Any) -> list[Any]:
    return [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in answer["data"]]


def of_floats(answer: Any) -> list[list[float]]:
    found: list[list[float]] = answer["embeddings"]["float"]
    return found


EMBEDDINGS: dict[str, tuple[str, dict[str, Any], Read, dict[str, Any]]] = {
    "Dify": ("/v1/embeddings", {"model": "m", "input": TEXTS, "encoding_format": None}, of_data, {}),
    "LiteLLM hosted_vllm, infinity": ("/embeddings", {"model": "m", "input": TEXTS}, of_data, {}),
    "openai-python": ("/v1/embeddings", {"model": "m", "input": TEXTS, "encoding_format": "base64"}, of_base64, {}),
    "openai-python AzureOpenAI": (
        "/openai/deployments/m/embeddings?api-version=2024-02-01",
        {"model": "m", "input": TEXTS, "encoding_format": "base64"},
        of_base64,
        {},
    ),
    "go-openai, langchaingo in Azure's mode": (
        "/openai/deployments/m/embeddings?api-version=2023-05-15",
        {"input": TEXTS},
        of_data,
        {},
    ),
    "Azure, a deployment of another name than the default model's": (
        "/openai/deployments/m/embeddings?api-version=2024-02-01",
        {"model": "text-embedding-ada-002", "input": TEXTS},
        of_data,
        {},
    ),
    "Azure v1": ("/openai/v1/embeddings", {"model": "m", "input": TEXTS}, of_data, {}),
    "TEI's OpenAI route": ("/v1/embeddings", {"input": TEXTS, "model": None, "user": None}, of_data, {}),
    "langchain4j-jina": ("/v1/embeddings", {"model": "m", "late_chunking": False, "input": TEXTS}, of_data, {}),
    "chroma-go with Jina": (
        "/v1/embeddings",
        {
            "model": "m",
            "normalized": True,
            "embedding_type": "float",
            "task": "retrieval.query",
            "late_chunking": False,
            "input": [{"text": text} for text in TEXTS],
        },
        of_data,
        {"prompt_name": "query"},
    ),
    "Jina, passages": (
        "/v1/embeddings",
        {"model": "m", "task": "retrieval.passage", "input": TEXTS, "dimensions": 4},
        of_data,
        {"prompt_name": "passage", "dimensions": 4},
    ),
    "voyageai 0.5": (
        "/v1/embeddings",
        {
            "input": TEXTS,
            "model": "m",
            "input_type": "query",
            "truncation": True,
            "output_dtype": None,
            "output_dimension": None,
            "encoding_format": "base64",
        },
        of_base64,
        {"prompt_name": "query"},
    ),
    "langchain4j-voyage-ai": (
        "/v1/embeddings",
        {
            "model": "m",
            "input": TEXTS,
            "input_type": "document",
            "truncation": True,
            "output_dimension": 8,
            "encoding_format": None,
        },
        of_data,
        {"prompt_name": "passage", "dimensions": 8},
    ),
    "cohere-python 7 v2": (
        "/v2/embed",
        {"texts": TEXTS, "model": "m", "input_type": "search_query", "embedding_types": ["float"], "truncate": "END"},
        of_floats,
        {"prompt_name": "query"},
    ),
    "cohere v2 inputs": (
        "/v2/embed",
        {
            "inputs": [{"content": [{"type": "text", "text": text}]} for text in TEXTS],
            "model": "m",
            "input_type": "search_document",
            "embedding_types": ["float"],
            "output_dimension": 8,
            "images": None,
        },
        of_floats,
        {"prompt_name": "passage", "dimensions": 8},
    ),
    "cohere-go, cohere-java": (
        "/v1/embed",
        {"texts": TEXTS, "model": "m", "input_type": "search_document"},
        lambda answer: answer["embeddings"],
        {"prompt_name": "passage"},
    ),
    "@ai-sdk/cohere": (
        "/v2/embed",
        {"model": "m", "embedding_types": ["float"], "texts": TEXTS, "input_type": "search_query"},
        of_floats,
        {"prompt_name": "query"},
    ),
    "ollama-python 0.6": ("/api/embed", {"model": "m", "input": TEXTS}, lambda answer: answer["embeddings"], {}),
    "Open WebUI, Chroma, ollama for Go": (
        "/api/embed",
        {"model": "m:latest", "input": TEXTS, "truncate": True, "options": {"num_ctx": 2048}, "keep_alive": "5m"},
        lambda answer: answer["embeddings"],
        {},
    ),
    "HuggingFaceInferenceAPIEmbeddings": (
        "/pipeline/feature-extraction/m",
        {"inputs": TEXTS, "options": {"wait_for_model": True, "use_cache": True}},
        list,
        {},
    ),
    "langchain4j-hugging-face, langchaingo": (
        "/models/m/pipeline/feature-extraction",
        {"inputs": TEXTS, "options": {"use_gpu": False, "wait_for_model": True}},
        list,
        {},
    ),
    "chroma-go with Hugging Face": ("/m/pipeline/feature-extraction", {"inputs": TEXTS, "options": None}, list, {}),
    "@huggingface/inference": ("/models/m", {"inputs": TEXTS}, list, {}),
    "TEI": ("/embed", {"inputs": TEXTS, "options": None, "truncate": None}, list, {}),
    "TEI with options": ("/embed", {"inputs": TEXTS, "options": {"wait_for_model": True}}, list, {}),
    "cohere v2, priority": (
        "/v2/embed",
        {"texts": TEXTS, "model": "m", "input_type": "search_query", "embedding_types": ["float"], "priority": 0},
        of_floats,
        {"prompt_name": "query"},
    ),
    "TEI at the root": ("/", {"inputs": TEXTS, "options": {"wait_for_model": True}}, list, {}),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_are_those_of_our_own_route(client: TestClient, name: str) -> None:
    path, body, read, ours = EMBEDDINGS[name]
    np.testing.assert_allclose(np.array(read(post(client, path, body))), own_vectors(client, **ours), atol=1e-6)


def test_ollamas_older_route_embeds_one_prompt(client: TestClient) -> None:
    answer = post(client, "/api/embeddings", {"model": "m", "prompt": TEXTS[0], "options": None, "keep_alive": 300})
    np.testing.assert_allclose(answer["embedding"], own_vectors(client)[0], atol=1e-6)


RERANK: dict[str, tuple[str, dict[str, Any], Read]] = {
    "LangChain.js CohereRerank": (
        "/v1/rerank",
        {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 4, "max_chunks_per_doc": None},
        lambda answer: answer["results"],
    ),
    "langchain-cohere": (
        "/v1/rerank",
        {
            "model": "m",
            "query": QUERY,
            "documents": [{"text": text, "id": number} for number, text in enumerate(DOCUMENTS)],
            "top_n": 4,
            "rank_fields": None,
            "max_chunks_per_doc": None,
        },
        lambda answer: answer["results"],
    ),
    "cohere-go, cohere-java": (
        "/v1/rerank",
        {
            "model": "m",
            "query": QUERY,
            "documents": [{"title": text, "text": "pizza"} for text in DOCUMENTS],
            "rank_fields": ["title"],
            "priority": 0,
            "max_chunks_per_doc": 10,
            "return_documents": True,
        },
        lambda answer: answer["results"],
    ),
    "LiteLLM huggingface": (
        "/rerank",
        {
            "model": "m",
            "raw_scores": False,
            "truncation_direction": "Right",
            "query": QUERY,
            "top_n": 4,
            "texts": DOCUMENTS,
            "return_text": True,
        },
        lambda answer: [{"index": entry["index"], "relevance_score": entry["score"]} for entry in answer],
    ),
    "LiteLLM infinity": (
        "/rerank",
        {"model": "m", "query": QUERY, "top_n": 4, "documents": DOCUMENTS, "return_documents": True},
        lambda answer: answer["results"],
    ),
    "LiteLLM hosted_vllm": (
        "/v1/rerank",
        {"model": "m", "query": QUERY, "top_n": 4, "documents": DOCUMENTS, "return_documents": True},
        lambda answer: answer["results"],
    ),
    "Open WebUI": (
        "/v1/rerank",
        {"model": "m", "query": QUERY, "documents": DOCUMENTS, "top_n": 4},
        lambda answer: answer["results"],
    ),
    "langchain4j-jina": (
        "/v1/rerank",
        {"model": "m", "query": QUERY, "documents": DOCUMENTS, "return_documents": True},
        lambda answer: answer["results"],
    ),
    "voyageai 0.5": (
        "/v1/rerank",
        {"query": QUERY, "documents": DOCUMENTS, "model": "m", "top_k": 4, "truncation": True},
        lambda answer: answer["data"],
    ),
}


@pytest.mark.parametrize("name", RERANK)
def test_documents_come_in_the_order_of_our_own_route(client: TestClient, name: str) -> None:
    path, body, read = RERANK[name]
    found = read(post(client, path, body))
    assert [entry["index"] for entry in found] == own_order(client)
    scores = [entry["relevance_score"] for entry in found]
    assert scores == sorted(scores, reverse=True)


def test_jinas_and_voyages_clients_find_usage_and_model(client: TestClient) -> None:
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, "return_documents": True}
    for path in ("/v1/rerank", "/rerank"):
        answer = post(client, path, body)
        assert answer["usage"]["total_tokens"] > 0
        assert answer["model"] == "m"


def test_documents_come_back_in_each_clients_form(client: TestClient) -> None:
    body = {"model": "m", "query": QUERY, "documents": DOCUMENTS, "return_documents": True, "top_n": 1}
    best = DOCUMENTS[own_order(client)[0]]
    cohere = post(client, "/v1/rerank", body)
    assert cohere["results"][0]["document"] == {"text": best}
    assert cohere["data"][0]["document"] == best  # Voyage's
    assert post(client, "/rerank", body)["results"][0]["document"] == best  # Infinity's
    sent = {"title": best, "text": "pizza", "id": 7}
    objects = {**body, "documents": [sent], "rank_fields": ["title", "missing"]}
    assert post(client, "/v1/rerank", objects)["results"][0]["document"] == sent
    assert post(client, "/rerank", objects)["results"][0]["document"] == best


def plain(labels: list[dict[str, object]]) -> list[dict[str, object]]:
    """Our labels as Hugging Face's clients read them."""
    return [{"label": label["label"], "score": label["score"]} for label in labels]


@pytest.mark.parametrize("path", ["/", "/models/intents"])
def test_hugging_face_classifies_into_a_list_for_each_input(client: TestClient, path: str) -> None:
    answer = post(client, path, {"inputs": "hello", "model": "intents"})
    [own] = post(client, "/v1/classify", {"model": "intents", "input": "hello"})["data"]
    assert answer == [plain(own["labels"])]


def test_below_a_models_name_a_list_holds_texts_and_no_pair(client: TestClient) -> None:
    answer = post(client, "/models/intents", {"inputs": ["hello", "world"], "parameters": {"top_k": 1}})
    own = post(client, "/v1/classify", {"model": "intents", "input": ["hello", "world"], "top_k": 1})["data"]
    assert answer == [plain(entry["labels"]) for entry in own]


@pytest.mark.parametrize("path", ["/", "/models/m"])
@pytest.mark.parametrize("labels", [["card lost", "rain"], "card lost, rain"])
def test_hugging_face_classifies_without_training(client: TestClient, path: str, labels: Any) -> None:
    parameters = {"candidate_labels": labels, "multi_label": False, "hypothesis_template": None}
    answer = post(client, path, {"inputs": QUERY, "parameters": parameters})
    [own] = post(client, "/v1/classify", {"model": "m", "input": QUERY, "labels": ["card lost", "rain"]})["data"]
    assert answer == plain(own["labels"])
    assert post(client, path, {"inputs": [QUERY], "parameters": parameters}) == [answer]


def test_parameters_for_an_encoder_are_refused_in_words(client: TestClient) -> None:
    """As huggingface_hub asks for labels, entities or text."""
    answer = client.post("/models/m", json={"inputs": QUERY, "parameters": {"top_k": 1}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "parameters")
    assert "the model computes vectors" in answer.json()["error"]["message"]


def test_a_template_describes_each_label(client: TestClient) -> None:
    parameters = {"candidate_labels": ["card lost", "rain"], "hypothesis_template": "the text is {}"}
    described = {"card lost": "the text is card lost", "rain": "the text is rain"}
    [own] = post(client, "/v1/classify", {"model": "m", "input": QUERY, "labels": described})["data"]
    assert post(client, "/models/m", {"inputs": QUERY, "parameters": parameters}) == plain(own["labels"])


def test_hugging_face_compares_sentences(client: TestClient) -> None:
    body = {"inputs": {"source_sentence": QUERY, "sentences": DOCUMENTS}}
    assert post(client, "/models/m", body) == post(client, "/similarity", body)


def test_cohere_tokenizes_and_back(client: TestClient) -> None:
    found = post(client, "/v1/tokenize", {"text": "my card", "model": "m"})
    own = post(client, "/v1/tokenize", {"input": "my card", "model": "m", "add_special_tokens": False})["data"][0]
    assert (found["tokens"], found["token_strings"]) == (own["ids"], own["tokens"]) == (own["ids"], ["my", "card"])
    assert post(client, "/v1/detokenize", {"tokens": found["tokens"], "model": "m"})["text"] == "my card"


def test_cohere_and_openai_list_the_same_models(client: TestClient) -> None:
    for path in ("/v1/models", "/models"):
        answer = client.get(path).json()
        assert [model["name"] for model in answer["models"]] == [model["id"] for model in answer["data"]]
    assert answer["models"][0]["endpoints"] == ["embed", "rerank"]
    assert client.get("/models/cross").json() == client.get("/v1/models/cross").json()
    for model in answer["models"]:
        one = client.get(f"/v1/models/{model['name']}").json()
        assert {key: one[key] for key in model} == model, "as cohere-python's models.get reads it"


KEYED = [
    *{path.partition("?")[0] for path, _, _, _ in EMBEDDINGS.values()},
    *{path for path, _, _ in RERANK.values()},
    "/api/embeddings",
    "/api/show",
    "/v1/tokenize",
    "/v1/detokenize",
]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in sorted(KEYED)),
        *(("GET", path) for path in ("/", "/models", "/models/m", "/api/tags", "/api/version")),
    ],
)
def test_every_route_needs_a_key_with_the_scope(make_app: MakeApp, method: str, path: str) -> None:
    app = make_app(FakeModel("m"))
    _, secret = Keyring(app.state.settings.keys_file).create(["train"])
    client = TestClient(app)
    assert client.request(method, path, json={}).status_code == 401
    refused = client.request(method, path, json={}, headers={"api-key": secret})
    assert (refused.status_code, refused.headers["x-sonde-error"]) == (403, "insufficient_scope")
