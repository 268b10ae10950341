"""The OpenAPI document as generators of clients read it: whole, with examples, without what they cannot express."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.examples import EXAMPLES
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

COMPONENTS = "#/components/schemas/"


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(FakeModel("all-MiniLM-L6-v2"), token_ids="model")


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of a document, but those below `then`."""
    if isinstance(node, dict):
        yield node
        for name, child in node.items():
            if name != "then":
                yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)


def test_every_reference_leads_somewhere(openapi_document: dict[str, Any]) -> None:
    named = {node["$ref"].removeprefix(COMPONENTS) for node in nodes(openapi_document) if "$ref" in node}
    assert named
    assert named <= openapi_document["components"]["schemas"].keys()


def test_every_operation_has_one_tag_and_an_id_of_its_own(openapi_document: dict[str, Any]) -> None:
    operations = [operation for path in openapi_document["paths"].values() for operation in path.values()]
    assert {len(operation["tags"]) for operation in operations} == {1}
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)


def test_unions_are_of_components(openapi_document: dict[str, Any]) -> None:
    for node in nodes(openapi_document):
        kinds = [choice for choice in node.get("anyOf", []) if choice != {"type": "null"}]
        assert len(kinds) < 2 or all("$ref" in choice for choice in kinds), node


def test_what_has_fields_is_no_map(openapi_document: dict[str, Any]) -> None:
    for node in nodes(openapi_document):
        if "properties" in node:
            assert not node.get("additionalProperties"), "Kotlin's clients would send and read no field of it"


def test_no_boolean_is_an_enumeration(openapi_document: dict[str, Any]) -> None:
    for node in nodes(openapi_document):
        assert not isinstance(node.get("const"), bool), "it does not compile in Java"
        assert not any(isinstance(choice, bool) for choice in node.get("enum", [])), "nor does it"


def test_no_choice_differs_from_another_in_case_alone(openapi_document: dict[str, Any]) -> None:
    for node in nodes(openapi_document):
        choices = [str(choice).lower() for choice in node.get("enum", [])]
        assert len(set(choices)) == len(choices), node


def test_every_body_has_an_example_that_its_schema_allows(openapi_document: dict[str, Any]) -> None:
    seen = set()
    for path, operations in openapi_document["paths"].items():
        for method, operation in operations.items():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                content = operation["requestBody"]["content"]["application/json"]
                schema = {**content["schema"], "components": openapi_document["components"]}
                assert jsonschema_rs.is_valid(schema, content["example"]), path
                seen.add((method, path))
    assert seen == EXAMPLES.keys()


@pytest.mark.parametrize("path", [path for method, path in EXAMPLES if method == "post" and "{model}" not in path])
def test_the_service_takes_the_examples(app: FastAPI, path: str) -> None:
    url = path.replace("{deployment}", "all-MiniLM-L6-v2")
    answer = TestClient(app).post(url, json=EXAMPLES["post", path])
    refused = {"model_not_found", "wrong_task", "file_not_found", "invalid_tokens"}  # there is one fake encoder alone
    assert answer.status_code == 200 or answer.json()["error"]["code"] in refused, answer.text


@pytest.mark.slow
def test_examples_name_models_in_service(make_app: MakeApp) -> None:
    """Also those that came since the document was last asked for."""
    app = make_app(FakeModel("mine"))
    client = TestClient(app)

    def example(path: str) -> Any:
        body = client.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]
        return body["content"]["application/json"]["example"]

    assert example("/v1/embeddings")["model"] == "mine"
    answered = client.post("/v1/embeddings", json=example("/v1/embeddings"))
    assert answered.status_code == 200, answered.text
    trained = example("/v1/feedback")["model"]
    app.state.manager.add(FakeModel("ft:mine:local:x", task="classification"))
    assert trained != example("/v1/feedback")["model"] == "ft:mine:local:x"


WRONG = [
    ("ExplainBody", {"model": "m", "input": "a", "text": "b"}),
    ("ExplainBody", {"model": "m"}),
    ("ExplainBody", {"model": "m", "input": None, "text": None}),
    ("AnomalyBody", {"model": "m", "input": "a", "records": [[1.0]]}),
    ("AnomalyBody", {"model": "m"}),
    ("TeiRerankBody", {"query": "a", "texts": ["b"], "documents": ["b"]}),
    ("TeiRerankBody", {"query": "a"}),
    ("CohereEmbedBody", {"model": "m"}),
    ("OllamaShowBody", {}),
    ("OllamaShowBody", {"model": None, "name": None}),
    ("EmbeddingsBody", {"model": "m", "input": 5}),
    ("EmbeddingsBody", {"model": "m", "input": ["a", 5]}),
    ("EmbeddingsBody", {"model": "m", "input": ["a"] * 2049}),
    ("EmbeddingsBody", {"model": "m", "input": "a", "surprise": 1}),
    ("EmbeddingsBody", {"model": "m", "input": "a", "late_chunking": True}),
]
RIGHT = [
    ("ExplainBody", {"model": "m", "input": "a", "text": None}),
    ("ExplainBody", {"model": "m", "text": "a"}),
    ("OllamaShowBody", {"name": "m"}),
    ("OllamaShowBody", {"model": "m", "name": "m"}),
    ("AnomalyBody", {"model": "m", "input": None, "records": [[1.0]]}),
    ("TeiRerankBody", {"query": "a", "documents": ["b"], "truncation_direction": "Left"}),
    ("EmbeddingsBody", {"model": "m", "input": [[1, 2], [3]]}),
    ("EmbeddingsBody", {"model": "m", "input": "a", "surprise": None, "late_chunking": False}),
]


@pytest.mark.parametrize(
    ("schema", "body", "valid"), [(*one, False) for one in WRONG] + [(*one, True) for one in RIGHT]
)
def test_the_document_is_as_strict_as_the_service(
    openapi_document: dict[str, Any], schema: str, body: dict[str, Any], valid: bool
) -> None:
    given = {"$ref": f"{COMPONENTS}{schema}", "components": openapi_document["components"]}
    assert jsonschema_rs.is_valid(given, body) is valid
