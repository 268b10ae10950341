"""Clients of other APIs, unchanged, in their own environment against a real service with the real model.

Each program is what `docs/clients.md` tells its users; its vectors or order are those of our own routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.conftest import RunClient
from tests.support.programs import host, open_program, program_path
from tests.support.server import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
TEXTS = ["where is my card?", "the weather is nice", "I want my money back"]
DOCUMENTS = ["The weather is nice today.", "Freeze your card in the app when you lose it.", "Refunds take seven days."]
QUERY = "what if my card is gone"
_GIVEN = f"MODEL, TEXTS, DOCUMENTS, QUERY = {MODEL!r}, {TEXTS!r}, {DOCUMENTS!r}, {QUERY!r}\n"

EMBEDDINGS = {
    "openai": """
from openai import OpenAI
client = OpenAI(base_url=f"{url}/v1", api_key="none")
result = [item.embedding for item in client.embeddings.create(model=MODEL, input=TEXTS).data]
""",
    "openai, Azure": """
from openai import AzureOpenAI
client = AzureOpenAI(azure_endpoint=url, api_key="none", api_version="2024-10-21")
result = [item.embedding for item in client.embeddings.create(model=MODEL, input=TEXTS).data]
""",
    "openai, Azure (v1)": """
from openai import OpenAI
client = OpenAI(base_url=f"{url}/openai/v1/", api_key="none")
result = [item.embedding for item in client.embeddings.create(model=MODEL, input=TEXTS).data]
""",
    "langchain-openai": """
from langchain_openai import OpenAIEmbeddings
client = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False)
result = client.embed_documents(TEXTS)
""",
    "langchain-openai, Azure": """
from langchain_openai import AzureOpenAIEmbeddings
client = AzureOpenAIEmbeddings(
    model=MODEL, azure_endpoint=url, api_key="none", api_version="2024-10-21", check_embedding_ctx_length=False)
result = client.embed_documents(TEXTS)
""",
    "cohere (v2)": """
import cohere
client = cohere.ClientV2("none", base_url=url)
result = client.embed(texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["float"])
result = result.embeddings.float_
""",
    "cohere (v1)": """
import cohere
client = cohere.Client("none", base_url=url)
result = client.embed(texts=TEXTS, model=MODEL, input_type="search_query").embeddings
""",
    "ollama": """
import ollama
client = ollama.Client(host=url)
assert client.list().models[0].model == MODEL
assert client.show(MODEL).capabilities == ["embedding"]
result = [list(vector) for vector in client.embed(model=MODEL, input=TEXTS).embeddings]
""",
    "ollama (older route)": """
import ollama
client = ollama.Client(host=url)
result = [list(client.embeddings(model=MODEL, prompt=text).embedding) for text in TEXTS]
""",
    "langchain-ollama": """
from langchain_ollama import OllamaEmbeddings
result = OllamaEmbeddings(model=MODEL, base_url=url, validate_model_on_init=True).embed_documents(TEXTS)
""",
    "voyageai": """
import voyageai
client = voyageai.Client(api_key="none", base_url=f"{url}/v1")
result = client.embed(TEXTS, model=MODEL, input_type="document").embeddings
""",
    "litellm, openai": """
import litellm
answer = litellm.embedding(model=f"openai/{MODEL}", input=TEXTS, api_base=f"{url}/v1", api_key="none")
result = [item["embedding"] for item in answer.data]
""",
    "litellm, hosted_vllm": """
import litellm
answer = litellm.embedding(model=f"hosted_vllm/{MODEL}", input=TEXTS, api_base=url, api_key="none")
result = [item["embedding"] for item in answer.data]
""",
    "litellm, azure": """
import litellm
answer = litellm.embedding(
    model=f"azure/{MODEL}", input=TEXTS, api_base=url, api_key="none", api_version="2024-10-21")
result = [item["embedding"] for item in answer.data]
""",
    "litellm, cohere": """
import litellm
answer = litellm.embedding(model=f"cohere/{MODEL}", input=TEXTS, api_base=f"{url}/v1/embed", api_key="none")
result = [item["embedding"] for item in answer.data]
""",
    **{
        f"litellm, {provider}": f"""
import litellm
answer = litellm.embedding(model=f"{provider}/{{MODEL}}", input=TEXTS, api_base={base}, api_key="none")
result = [item["embedding"] for item in answer.data]
"""
        for provider, base in {
            "infinity": "url",
            "jina_ai": 'f"{url}/v1/embeddings"',
            "ollama": "url",
            "voyage": 'f"{url}/v1/embeddings"',
        }.items()
    },
    "huggingface_hub": """
from huggingface_hub import InferenceClient
client = InferenceClient(f"{url}/models/{MODEL}")
result = client.feature_extraction(TEXTS).tolist()
""",
}

RERANK = {
    "cohere (v2)": """
import cohere
answer = cohere.ClientV2("none", base_url=url).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
result = [[entry.index, entry.relevance_score, None] for entry in answer.results]
""",
    "cohere (v1)": """
import cohere
client = cohere.Client("none", base_url=url)
answer = client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, return_documents=True)
result = [[entry.index, entry.relevance_score, entry.document.text] for entry in answer.results]
""",
    "cohere (v1, documents with fields)": """
import cohere
documents = [{"title": text, "text": "pizza"} for text in DOCUMENTS]
client = cohere.Client("none", base_url=url)
answer = client.rerank(model=MODEL, query=QUERY, documents=documents, rank_fields=["title"])
result = [[entry.index, entry.relevance_score, None] for entry in answer.results]
""",
    "voyageai": """
import voyageai
client = voyageai.Client(api_key="none", base_url=f"{url}/v1")
answer = client.rerank(QUERY, DOCUMENTS, model=MODEL)
assert answer.total_tokens > 0
result = [[entry.index, entry.relevance_score, entry.document] for entry in answer.results]
""",
    **{
        f"litellm, {provider}": f"""
import litellm
answer = litellm.rerank(
    model=f"{provider}/{{MODEL}}", query=QUERY, documents=DOCUMENTS, top_n=3, api_base={base}, api_key="none")
result = [
    [entry["index"], entry["relevance_score"], (entry.get("document") or {{}}).get("text")] for entry in answer.results]
"""
        for provider, base in {
            "cohere": "url",
            "hosted_vllm": 'f"{url}/v1"',
            "infinity": "url",
            "jina_ai": "url",
            "huggingface": "url",
            "voyage": "url",
        }.items()
    },
}


def own_vectors(url: str) -> Any:
    answer = httpx.post(f"{url}/v1/embeddings", json={"model": MODEL, "input": TEXTS}).json()
    return [item["embedding"] for item in answer["data"]]


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_are_those_of_our_own_route(server: Served, run_client: RunClient, name: str) -> None:
    vectors = run_client(_GIVEN + EMBEDDINGS[name], server.url)
    np.testing.assert_allclose(vectors, own_vectors(server.url), atol=2e-3)


@pytest.mark.parametrize("name", RERANK)
def test_documents_come_in_the_order_of_our_own_route(server: Served, run_client: RunClient, name: str) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}
    own = httpx.post(f"{server.url}/v2/rerank", json=body).json()["results"]
    found = run_client(_GIVEN + RERANK[name], server.url)
    assert [index for index, _, _ in found] == [entry["index"] for entry in own]
    np.testing.assert_allclose([score for _, score, _ in found], [entry["relevance_score"] for entry in own], atol=5e-3)
    assert {text for index, _, text in found if text not in {None, DOCUMENTS[index]}} == set()


def test_vectors_of_integers_are_read_as_voyage_and_cohere_send_them(server: Served, run_client: RunClient) -> None:
    program = """
import cohere, voyageai
voyage = voyageai.Client(api_key="none", base_url=f"{url}/v1")
client = cohere.ClientV2("none", base_url=url)
ours = client.embed(texts=TEXTS, model=MODEL, input_type="search_document", embedding_types=["int8", "ubinary"])
result = {
    "voyage": [list(map(int, row)) for row in voyage.embed(TEXTS, model=MODEL, output_dtype="int8").embeddings],
    "cohere": ours.embeddings.int8,
    "bits": ours.embeddings.ubinary,
}
"""
    found = run_client(_GIVEN + program, server.url)
    floats = np.array(own_vectors(server.url))
    for name in ("voyage", "cohere"):
        read = np.array(found[name], dtype=np.float64)
        cosines = (read * floats).sum(axis=1) / np.linalg.norm(read, axis=1)
        assert cosines.min() > 0.999
    bits = np.unpackbits(np.array(found["bits"], dtype=np.uint8), axis=1)
    assert (bits == (floats > 0)).mean() > 0.99


def test_cohere_tokenizes_and_lists_models(server: Served, run_client: RunClient) -> None:
    program = """
import cohere
client = cohere.Client("none", base_url=url)
tokens = client.tokenize(text="my card is lost", model=MODEL, offline=False)
text = client.detokenize(tokens=tokens.tokens, model=MODEL, offline=False).text
result = [tokens.tokens, tokens.token_strings, text, [model.name for model in client.models.list().models]]
"""
    body = {"model": MODEL, "input": "my card is lost", "add_special_tokens": False}
    own = httpx.post(f"{server.url}/v1/tokenize", json=body).json()["data"][0]
    assert run_client(_GIVEN + program, server.url) == [own["ids"], own["tokens"], "my card is lost", [MODEL]]


def test_hugging_face_classifies_without_training(server: Served, run_client: RunClient) -> None:
    labels = ["card lost", "refund", "opening hours"]
    program = f"""
from huggingface_hub import InferenceClient
found = InferenceClient(url).zero_shot_classification(QUERY, {labels!r})
result = [[entry.label, entry.score] for entry in found]
"""
    found = run_client(_GIVEN + program, server.url)
    body = {"model": MODEL, "input": QUERY, "labels": labels}
    own = httpx.post(f"{server.url}/v1/classify", json=body).json()["data"][0]["labels"]
    assert [label for label, _ in found] == [entry["label"] for entry in own]
    np.testing.assert_allclose([score for _, score in found], [entry["score"] for entry in own], atol=5e-3)


def test_ollamas_client_raises_the_services_message(server: Served, run_client: RunClient) -> None:
    program = """
import ollama
try:
    ollama.Client(host=url).embed(model="none", input="a")
except ollama.ResponseError as error:
    result = [error.status_code, error.error]
"""
    status, message = run_client(program, server.url)
    assert status == 404
    assert message.startswith("no model 'none' here")


LANGCHAIN_DEFAULT = """
from langchain_openai import OpenAIEmbeddings
try:
    result = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key="none").embed_documents(TEXTS)
except Exception as error:
    result = str(error)
"""


def test_langchains_default_is_refused_with_the_remedy(server: Served, run_client: RunClient) -> None:
    assert "check_embedding_ctx_length=False" in run_client(_GIVEN + LANGCHAIN_DEFAULT, server.url)


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Iterator[Served]:
    """A service that decodes OpenAI's token ids, with the vocabulary's file given, and has a program beside MiniLM."""
    pytest.importorskip("tiktoken", reason="sonde[tiktoken] is not installed")
    file = vocabularies / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # as tiktoken names cl100k_base
    models = "--model", MODEL, "--model", f"net={program_path('mlp')}"
    flags = "--token-ids", "cl100k_base", "--token-ids-file", str(file), *models
    with serving(tmp_path_factory.mktemp("decoding"), *flags) as served:
        yield served


def test_langchains_default_gives_the_vectors_of_its_texts(decoding: Served, run_client: RunClient) -> None:
    vectors = run_client(_GIVEN + LANGCHAIN_DEFAULT, decoding.url)
    np.testing.assert_allclose(vectors, own_vectors(decoding.url), atol=2e-3)


def test_openais_client_lists_models_and_keeps_files_and_jobs(decoding: Served, run_client: RunClient) -> None:
    rows = "".join(json.dumps({"text": text, "label": label}) + "\n" for text in TEXTS for label in ("a", "b"))
    program = f"""
from openai import OpenAI
client = OpenAI(base_url=f"{{url}}/v1", api_key="none", max_retries=0)
file = client.files.create(file={rows.encode()!r}, purpose="fine-tune")
job = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, seed=7)
assert job.training_file == file.id
cancelled = client.fine_tuning.jobs.cancel(job.id)
kept = client.files.content(file.id).text
assert client.files.delete(file.id).deleted
models = [model.id for model in client.models.list()]
result = [models, kept, job.status, job.hyperparameters.n_epochs, cancelled.status]
"""
    assert run_client(_GIVEN + program, decoding.url) == [[MODEL, "net"], rows, "queued", "auto", "cancelled"]


TRITON = """
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
client = triton.InferenceServerClient(url.removeprefix("http://"))
states = [client.is_server_live(), client.is_server_ready(), client.is_model_ready("net"), client.is_model_ready("no")]
metadata = client.get_model_metadata("net")

def infer(rows, raw, **options):
    rows = np.array(rows, np.float32)
    tensor = triton.InferInput("x", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows, binary_data=raw)
    outputs = [triton.InferRequestedOutput("output", binary_data=raw)]
    return client.infer("net", [tensor], outputs=outputs, **options).as_numpy("output").tolist()

answers = [infer(ROWS, True), infer(ROWS, False, request_compression_algorithm="gzip", request_id="7")]
try:
    infer([row[:15] for row in ROWS], True)
except InferenceServerException as error:
    refusal = [error.status(), error.message()]
result = [states, metadata["inputs"], answers, refusal]
"""


def test_tritons_client_sends_tensors(decoding: Served, run_client: RunClient) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    states, inputs, answers, refusal = run_client(f"ROWS = {rows.tolist()!r}\n" + TRITON, decoding.url)
    assert states == [True, True, True, False]
    assert inputs == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
    expected = open_program("mlp").run({"x": host(rows)})["output"].values
    for answer in answers:
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
    assert refusal == ["422", "x: expected float32 [batch, 16], got [3, 15]: dimension 1 is 15, expected 16"]
