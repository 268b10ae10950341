"""Token ids of OpenAI's vocabularies become the texts that they stand for."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.errors import BadTokens
from service.errors import ConfigError
from service.serving import token_ids
from service.serving.token_ids import TokenDecoder
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

TEXTS = ["my card is lost", "the weather"]
OPENAI_PATHS = ["/v1/embeddings", "/embeddings", "/openai/v1/embeddings", "/openai/deployments/fake/embeddings"]


@pytest.fixture
def vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vocabulary of the 256 bytes, in place of cl100k_base."""
    pytest.importorskip("tiktoken")
    file = tmp_path / "bytes.tiktoken"
    file.write_bytes(b"".join(b"%b %d\n" % (b64encode(bytes([rank])), rank) for rank in range(256)))
    monkeypatch.setitem(token_ids._SHA256, "cl100k_base", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # no copy in the temporary directory
    return str(file)


def ids(text: str) -> list[int]:
    return list(text.encode())


def embed(client: TestClient, given: Any, path: str = "/v1/embeddings") -> Any:
    return client.post(path, json={"model": "fake", "input": given})


def test_the_vocabularies_are_tiktokens_own() -> None:
    public = pytest.importorskip("tiktoken_ext.openai_public")
    source = Path(public.__file__).read_text(encoding="utf-8")
    for name, digest in token_ids._SHA256.items():
        assert f'"{token_ids._URL.format(name)}"' in source
        assert f'"{digest}"' in source


def test_ids_are_decoded(vocabulary: str) -> None:
    decoder = TokenDecoder("cl100k_base", vocabulary)
    assert decoder.decode(ids("Grüße 🎉"), "input") == "Grüße 🎉"
    assert decoder.decode(ids("ü")[:1], "input") == "\ufffd"
    with pytest.raises(BadTokens, match=r"input\[3\]: 256 is no token id of cl100k_base") as caught:
        decoder.decode([97, 256], "input[3]")
    assert caught.value.param == "input[3]"


@pytest.mark.parametrize("content", [b"", b"YQ== 0\n", None], ids=["empty", "another", "none"])
def test_a_file_that_is_not_the_vocabulary_is_refused_at_the_start(
    make_app: MakeApp, vocabulary: str, content: bytes | None
) -> None:
    file = Path(vocabulary)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bytes\.tiktoken is not its vocabulary .*: download https://") as caught:
        make_app(token_ids="cl100k_base", token_ids_file=vocabulary)
    assert caught.value.param == "token_ids"


def test_a_file_without_its_vocabularys_name_is_refused(make_app: MakeApp) -> None:
    with pytest.raises(ConfigError, match="goes with --token-ids cl100k_base"):
        make_app(token_ids="model", token_ids_file="/x/cl100k_base.tiktoken")


@pytest.mark.parametrize("path", OPENAI_PATHS)
def test_ids_give_the_vector_of_their_text(make_app: MakeApp, vocabulary: str, path: str) -> None:
    model = FakeModel(prompts={"query": "w1 "})
    client = TestClient(make_app(model, token_ids="cl100k_base", token_ids_file=vocabulary))
    for given in (ids(TEXTS[0]), [ids(text) for text in TEXTS], [ids(text * 300) for text in TEXTS]):
        text = [bytes(one).decode() for one in given] if isinstance(given[0], list) else bytes(given).decode()
        by_ids, by_text = embed(client, given, path), embed(client, text, path)
        assert by_ids.status_code == 200, by_ids.text
        assert by_ids.json() == by_text.json()


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ([[97], [300]], "input[1]", "invalid_tokens"),
        ([97, 300], "input", "invalid_tokens"),
        ([[97], [0]], "input[1]", "invalid_value"),
    ],
)
def test_an_error_names_the_list(make_app: MakeApp, vocabulary: str, given: Any, param: str, code: str) -> None:
    client = TestClient(make_app(token_ids="cl100k_base", token_ids_file=vocabulary))
    answer = embed(client, given)
    assert (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]) == (422, param, code)


@pytest.mark.parametrize("path", OPENAI_PATHS)
@pytest.mark.parametrize("given", [[9241, 374, 856], [[9241, 374, 856]]])
def test_ids_are_refused_unless_their_vocabulary_is_known(client: TestClient, path: str, given: Any) -> None:
    error = embed(client, given, path).json()["error"]
    assert (error["param"], error["code"]) == ("input", "invalid_value")
    for remedy in ("check_embedding_ctx_length=False", "--token-ids model", "cl100k_base"):
        assert remedy in error["message"]


def test_ids_of_the_models_own_vocabulary_are_read_where_that_is_said(make_app: MakeApp) -> None:
    client = TestClient(make_app(token_ids="model"))
    tokens = client.post("/v1/tokenize", json={"model": "fake", "input": TEXTS[0]}).json()["data"][0]["ids"]
    assert embed(client, tokens).json()["data"] == embed(client, TEXTS[0]).json()["data"]


def test_ids_on_another_apis_route_are_the_models_own(client: TestClient) -> None:
    tokens = client.post("/v1/tokenize", json={"model": "fake", "input": TEXTS[0]}).json()["data"][0]["ids"]
    by_ids, by_text = (client.post("/embed", json={"inputs": given}).json() for given in ([tokens], TEXTS[0]))
    assert by_ids == by_text
