"""`docs/clients.md` and the tests agree: each thing that works has a test, and each tested client has a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import (
    environment,
    test_generators,
    test_inference_clients,
    test_node_and_java_clients,
    test_python_clients,
)
from tests.service.api import test_clients, test_recorded_clients
from tests.service.api.routes import test_ollama

PAGE = Path("docs/clients.md").read_text(encoding="utf-8")
GENERATORS = "Clients of your own"
_PACKAGES = {
    "tritonclient": "tritonclient[grpc,http]",
    "huggingface_hub": "huggingface-hub",
    "openapi-generator": "openapi-generator-cli",
}
_VECTORS, _ORDER = "embeddings", "rerank"


@dataclass(frozen=True)
class Covered:
    """The clients whose vectors and order tests compare, and the tests of what else works."""

    vectors: set[str]
    order: set[str]
    others: dict[tuple[str, str], Callable[..., None]]

    def covers(self, client: str, what: str) -> bool:
        compared = {_VECTORS: self.vectors, _ORDER: self.order}
        return client in compared.get(what, ()) or (client, what) in self.others


def clients(*names: str) -> set[str]:
    """Names of tests without what they say of a variant, in brackets."""
    return {re.sub(r" \(.*\)$", "", name) for name in names}


TESTS = {
    "Python clients": Covered(
        clients(*test_python_clients.EMBEDDINGS),
        clients(*test_python_clients.RERANK),
        {
            ("openai", "models"): test_python_clients.test_openais_client_lists_models_and_keeps_files_and_jobs,
            ("openai", "files"): test_python_clients.test_openais_client_lists_models_and_keeps_files_and_jobs,
            ("openai", "fine-tuning"): test_python_clients.test_openais_client_lists_models_and_keeps_files_and_jobs,
            ("langchain-ollama", "checked model names"): test_python_clients.test_embeddings_are_those_of_our_own_route,
            ("cohere", "tokenize"): test_python_clients.test_cohere_tokenizes_and_lists_models,
            ("cohere", "models"): test_python_clients.test_cohere_tokenizes_and_lists_models,
            ("ollama", "list"): test_python_clients.test_embeddings_are_those_of_our_own_route,
            ("ollama", "show"): test_python_clients.test_embeddings_are_those_of_our_own_route,
            ("voyageai", "int8 vectors"): (
                test_python_clients.test_vectors_of_integers_are_read_as_voyage_and_cohere_send_them
            ),
            ("tritonclient, http", "tensors"): test_python_clients.test_tritons_client_sends_tensors,
            ("tritonclient, http", "texts"): test_inference_clients.test_tritonclient_http_gets_vectors,
            **dict.fromkeys(
                [("tritonclient, http", "metadata"), ("tritonclient, http", "repository")],
                test_inference_clients.test_tritonclient_http_asks_for_everything_else,
            ),
            **dict.fromkeys(
                [("tritonclient, grpc", what) for what in ("tensors", "texts", "metadata", "repository")],
                test_inference_clients.test_tritonclient_grpc_gets_vectors_and_errors,
            ),
            **dict.fromkeys(
                [("kserve", what) for what in ("texts", "over REST and gRPC")],
                test_inference_clients.test_kserves_client_gets_vectors,
            ),
            **dict.fromkeys(
                [("mlserver, types", what) for what in ("texts", "metadata")],
                test_inference_clients.test_mlservers_types_are_read_and_written,
            ),
            ("huggingface_hub", "similarity"): test_clients.test_hugging_face_embeds_and_compares,
            ("huggingface_hub", "classification"): test_clients.test_hugging_face_classifies,
            ("huggingface_hub", "zero-shot"): test_python_clients.test_hugging_face_classifies_without_training,
        },
    ),
    "JavaScript and Java clients": Covered(
        clients(*test_node_and_java_clients.EMBEDDINGS),
        clients(*test_node_and_java_clients.RERANK),
        {
            ("java.net.http.HttpClient", _VECTORS): (
                test_node_and_java_clients.test_200_posts_of_the_jdks_client_are_answered
            )
        },
    ),
    "Clients by their requests": Covered(
        clients(*test_recorded_clients.EMBEDDINGS),
        clients(*test_recorded_clients.RERANK),
        {
            ("Open WebUI, Chroma, ollama for Go", "tags"): test_ollama.test_models_are_listed_and_shown,
            ("Open WebUI, Chroma, ollama for Go", "version"): test_ollama.test_the_root_and_the_version_answer,
            ("@huggingface/inference", "classification"): (
                test_recorded_clients.test_hugging_face_classifies_into_a_list_for_each_input
            ),
            (
                "@huggingface/inference",
                "zero-shot",
            ): test_recorded_clients.test_hugging_face_classifies_without_training,
        },
    ),
}


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without the marks of code."""
    [table] = re.findall(rf"^## {section}$.*?^\|---.*?\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def works(section: str) -> Iterator[tuple[str, str]]:
    """Each client of a section with each thing that works."""
    at = -2  # the line to set follows
    for cells in rows(section):
        yield from ((cells[0].strip().removesuffix("/"), what) for what in cells[at].split(", "))


@pytest.mark.parametrize("section", TESTS)
def test_what_works_is_tested(section: str) -> None:
    told = list(works(section))
    assert [(client, what) for client, what in told if not TESTS[section].covers(client, what)] == []
    assert set(TESTS[section].others) <= set(told)


@pytest.mark.parametrize("section", ["Python clients", "JavaScript and Java clients"])
def test_what_is_tested_is_told(section: str) -> None:
    told, tests = set(works(section)), TESTS[section]
    tested = {(name, _VECTORS) for name in tests.vectors} | {(name, _ORDER) for name in tests.order}
    assert tested - told == set()


def versions(listing: Path) -> dict[str, str]:
    """The pinned version of each package."""
    text = listing.read_text(encoding="utf-8")
    if listing.suffix == ".json":
        pinned: dict[str, str] = json.loads(text)["dependencies"]
        return pinned
    return dict(re.findall(r"^(\S+)==(\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("section", "listing"),
    [
        ("Python clients", environment.REQUIREMENTS),
        ("Python clients", environment.INFERENCE),
        ("Python clients", environment.KSERVE),
        ("JavaScript and Java clients", environment.NODE_CLIENTS),
        (GENERATORS, environment.GENERATORS),
        (GENERATORS, environment.NODE_GENERATORS),
    ],
)
def test_versions_are_those_that_are_tested(section: str, listing: Path) -> None:
    pinned = versions(listing)
    found = 0
    for client, version, *_ in rows(section):
        name = re.split("[,:]", client)[0]
        if full := pinned.get(_PACKAGES.get(name, name)):
            assert full.startswith(f"{version.split()[0]}."), f"{name}: the page says {version}, {listing.name} {full}"
            found += 1
    assert found >= len(pinned) - 1  # `ai` and the compiler stand in no row of their own


def test_generators_make_calls_where_the_page_says_so() -> None:
    calls = {row[0] for row in rows(GENERATORS) if row[2] == "makes a call"}
    assert calls == {
        "openapi-python-client",
        "@hey-api/openapi-ts",
        "openapi-generator: java with --library native, go, typescript-fetch",
    }
    for name in ("openapi_python_client", "hey_apis_client", "the_client_for_java", "the_client_for_go",
                 "the_client_of_typescript_fetch"):  # fmt: skip
        assert hasattr(test_generators, f"test_{name}_makes_calls")
