"""Clients for JavaScript, and the JDK's own HTTP client, unchanged against a real service with the real model."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.environment import NODE_CLIENTS, CannotInstall, node_modules
from tests.clients.test_python_clients import DOCUMENTS, MODEL, QUERY, TEXTS, own_vectors
from tests.support.server import Served

pytestmark = [pytest.mark.slow, pytest.mark.real]

EMBEDDINGS = {
    "openai": """
const { default: OpenAI } = await import('openai');
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
return (await client.embeddings.create({ model: MODEL, input: TEXTS })).data.map((item) => item.embedding);
""",
    "openai, Azure": """
const { AzureOpenAI } = await import('openai');
const client = new AzureOpenAI({ endpoint: url, apiKey: 'none', apiVersion: '2024-10-21' });
return (await client.embeddings.create({ model: MODEL, input: TEXTS })).data.map((item) => item.embedding);
""",
    "@ai-sdk/openai": """
const { embedMany } = await import('ai');
const { createOpenAI } = await import('@ai-sdk/openai');
const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: 'none' }).embedding(MODEL);
return (await embedMany({ model, values: TEXTS })).embeddings;
""",
    "@ai-sdk/cohere": """
const { embedMany } = await import('ai');
const { createCohere } = await import('@ai-sdk/cohere');
const model = createCohere({ baseURL: `${url}/v2`, apiKey: 'none' }).embedding(MODEL);
return (await embedMany({ model, values: TEXTS })).embeddings;
""",
    "cohere-ai": """
const { CohereClientV2 } = await import('cohere-ai');
const client = new CohereClientV2({ token: 'none', environment: url });
const asked = { model: MODEL, texts: TEXTS, inputType: 'search_document', embeddingTypes: ['float'] };
return (await client.embed(asked)).embeddings.float;
""",
    "@huggingface/inference": """
const { InferenceClient } = await import('@huggingface/inference');
const client = new InferenceClient('none', { endpointUrl: `${url}/models/${MODEL}` });
return client.featureExtraction({ inputs: TEXTS });
""",
    "voyageai": """
const { VoyageAIClient } = await import('voyageai');
const client = new VoyageAIClient({ apiKey: 'none', environment: `${url}/v1` });
return (await client.embed({ model: MODEL, input: TEXTS })).data.map((item) => item.embedding);
""",
    "ollama": """
const { Ollama } = await import('ollama');
return (await new Ollama({ host: url }).embed({ model: MODEL, input: TEXTS })).embeddings;
""",
}
RERANK = {
    "@ai-sdk/cohere": """
const { rerank } = await import('ai');
const { createCohere } = await import('@ai-sdk/cohere');
const model = createCohere({ baseURL: `${url}/v2`, apiKey: 'none' }).reranking(MODEL);
const { ranking } = await rerank({ model, query: QUERY, documents: DOCUMENTS });
return ranking.map((entry) => [entry.originalIndex, entry.score]);
""",
    "cohere-ai": """
const { CohereClientV2 } = await import('cohere-ai');
const client = new CohereClientV2({ token: 'none', environment: url });
const answer = await client.rerank({ model: MODEL, query: QUERY, documents: DOCUMENTS });
return answer.results.map((entry) => [entry.index, entry.relevanceScore]);
""",
    "voyageai": """
const { VoyageAIClient } = await import('voyageai');
const client = new VoyageAIClient({ apiKey: 'none', environment: `${url}/v1` });
const answer = await client.rerank({ model: MODEL, query: QUERY, documents: DOCUMENTS });
return answer.data.map((entry) => [entry.index, entry.relevanceScore]);
""",
}
# `HttpClient` asks to upgrade each request to HTTP/2 unless it is told not to.
_JAVA = """
import java.net.URI;
import java.net.http.*;

class Call {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int number = 0; number < 200; number++) {
            var body = HttpRequest.BodyPublishers.ofString(given[1]);
            var request = HttpRequest.newBuilder(URI.create(given[0] + "/v1/embeddings"))
                .header("content-type", "application/json").POST(body).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) throw new Exception(number + ": " + answer.body());
            if (number == 199) System.out.println(answer.body());
        }
    }
}
"""


def call(program: str, url: str, directory: Path) -> Any:
    """What the body of a JavaScript function returns."""
    try:
        (directory / "node_modules").symlink_to(node_modules(NODE_CLIENTS))
    except CannotInstall as error:
        pytest.skip(str(error))
    names = {"url": url, "MODEL": MODEL, "TEXTS": TEXTS, "DOCUMENTS": DOCUMENTS, "QUERY": QUERY}
    given = "\n".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
    code = f"{given}\nasync function call() {{{program}}}\ncall().then((found) => console.log(JSON.stringify(found)));"
    (directory / "call.mjs").write_text(code)
    return json.loads(_run(["node", "call.mjs"], directory))


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_are_those_of_our_own_route(server: Served, tmp_path: Path, name: str) -> None:
    np.testing.assert_allclose(call(EMBEDDINGS[name], server.url, tmp_path), own_vectors(server.url), atol=2e-3)


@pytest.mark.parametrize("name", RERANK)
def test_documents_come_in_the_order_of_our_own_route(server: Served, tmp_path: Path, name: str) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}
    own = httpx.post(f"{server.url}/v2/rerank", json=body).json()["results"]
    found = call(RERANK[name], server.url, tmp_path)
    assert [index for index, _ in found] == [entry["index"] for entry in own]
    np.testing.assert_allclose([score for _, score in found], [entry["relevance_score"] for entry in own], atol=5e-3)


def test_200_posts_of_the_jdks_client_are_answered(server: Served, tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("java runs a single file only where a JDK is installed")
    (tmp_path / "Call.java").write_text(_JAVA)
    body = json.dumps({"model": MODEL, "input": TEXTS})
    answer = json.loads(_run(["java", "Call.java", server.url, body], tmp_path))
    vectors = [item["embedding"] for item in answer["data"]]
    np.testing.assert_allclose(vectors, own_vectors(server.url), atol=2e-3)
