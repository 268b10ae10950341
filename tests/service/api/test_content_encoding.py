"""Bodies that come compressed, and answers that leave so."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.app import MakeApp

BODY = {"model": "fake", "input": ["hello", "good day"]}
PLAIN = json.dumps(BODY).encode()
MIB = 2**20
ENCODINGS = ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd"]


def _br(content: bytes) -> bytes:
    made: bytes = pytest.importorskip("brotli").compress(content, quality=1)
    return made


def _zstd(content: bytes) -> bytes:
    made: bytes = pytest.importorskip("backports.zstd").compress(content)
    return made


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": _br,
    "zstd": _zstd,
}


def pack(content: bytes, encoding: str) -> bytes:
    return PACK[encoding.lower()](content)


def post(client: TestClient, content: bytes, encoding: str, path: str = "/v1/embeddings") -> Any:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    return client.post(path, content=content, headers=headers)


@pytest.mark.parametrize("encoding", [*ENCODINGS])
def test_a_compressed_body_is_the_body_itself(client: TestClient, encoding: str) -> None:
    plain = client.post("/v1/embeddings", json=BODY).json()["data"]
    assert post(client, pack(PLAIN, encoding), encoding).json()["data"] == plain


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_it_may_come_in_parts_of_a_byte(client: TestClient, encoding: str) -> None:
    packed = pack(PLAIN, encoding)
    headers = {"content-type": "application/json", "content-encoding": encoding}
    parts = (packed[at : at + 1] for at in range(len(packed)))
    assert client.post("/v1/embeddings", content=parts, headers=headers).status_code == 200


def test_every_route_reads_it(client: TestClient) -> None:
    body = gzip.compress(b'{"inputs": ["a"]}')
    assert post(client, body, "gzip", "/embed").status_code == 200
    headers = {"content-encoding": "gzip", "content-type": "multipart/form-data; boundary=x"}
    form = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
        b'content-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        b'{"text": "a", "label": "b"}\r\n--x--\r\n'
    )
    answer = client.post("/v1/files", content=gzip.compress(form), headers=headers)
    assert (answer.status_code, answer.json().get("bytes")) == (200, 27)


def test_a_body_of_no_bytes_needs_no_encoding(client: TestClient) -> None:
    answer = client.post("/v1/fine_tuning/jobs/ftjob-none/cancel", headers={"content-encoding": "gzip"})
    assert answer.json()["error"]["code"] == "job_not_found"


@pytest.mark.parametrize("encoding", ["compress", "snappy", "gzip, br", "aes128gcm"])
def test_other_encodings_are_named(client: TestClient, encoding: str) -> None:
    answer = post(client, PLAIN, encoding)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert answer.json()["error"]["message"] == (
        f"content-encoding: expected gzip, deflate, br or zstd, got {encoding!r}: send the body by one of these "
        "or plain"
    )
    assert answer.headers["accept-encoding"] == "gzip, deflate, br, zstd"


def test_identity_is_no_encoding(client: TestClient) -> None:
    assert post(client, PLAIN, "identity").status_code == 200


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_not_compressed_as_it_says_is_malformed(client: TestClient, encoding: str) -> None:
    packed = pack(PLAIN, encoding)
    for wrong in (PLAIN, packed[:-3], packed + b"more", b"\0"):
        answer = post(client, wrong, encoding)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")
        assert f"is not {encoding.lower()}" in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_at_the_first_byte_too_many(make_app: MakeApp, encoding: str) -> None:
    bomb = pack(b" " * (16 * MIB), encoding)
    client = TestClient(make_app(max_body_bytes=MIB))
    tracemalloc.start()
    answer = post(client, bomb, encoding)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert peak < 8 * MIB


def test_a_window_larger_than_the_standard_allows_is_refused(client: TestClient) -> None:
    zstd = pytest.importorskip("backports.zstd")
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    stream = zstd.ZstdCompressor(options=options)
    answer = post(client, stream.compress(PLAIN) + stream.flush(), "zstd")
    assert answer.json()["error"]["code"] == "malformed_body"


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate, br", "br;q=1.0, gzip;q=0.5"])
def test_large_answers_are_compressed_when_asked_for(client: TestClient, accepted: str) -> None:
    body = {"model": "fake", "input": ["hello"] * 30}
    answer = client.post("/v1/embeddings", json=body, headers={"accept-encoding": accepted})
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.content) / 2
    assert answer.headers["vary"] == "Accept-Encoding"
    assert len(answer.json()["data"]) == 30


@pytest.mark.parametrize("accepted", ["identity", "", "gzip;q=0", "br", "*;q=0"])
def test_and_not_otherwise(client: TestClient, accepted: str) -> None:
    body = {"model": "fake", "input": ["hello"] * 30}
    answer = client.post("/v1/embeddings", json=body, headers={"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers


def test_small_answers_stay_as_they_are(client: TestClient) -> None:
    answer = client.get("/health", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
