"""Control characters that callers send reach no line of the log, no terminal and no header."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from service.auth import Keyring
from service.cli import main
from service.printable import printable
from tests.support import tiny_models
from tests.support.control_characters import FORBIDDEN, HOSTILE, forbidden
from tests.support.server import Served, serving


@pytest.mark.parametrize("char", [*sorted(FORBIDDEN), "\ud800"])
def test_a_control_character_becomes_an_escape(char: str) -> None:
    assert printable(f"a{char}b") == f"a\\u{ord(char):04x}b"


@pytest.mark.parametrize("text", ["", "zwölf 漢字", "क्\u200dष 👩\u200d💻", "a\u00a0b", "back\\slash"])
def test_text_of_all_scripts_stays(text: str) -> None:
    assert printable(text) == text


def test_json_stays_the_same_json() -> None:
    assert json.loads(printable(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False))) == {HOSTILE: HOSTILE}


def test_the_name_of_a_key_controls_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Keyring(tmp_path / "keys.json").create(["infer"], HOSTILE + "\ud800")
    assert main(["keys", "list", "--home", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert not forbidden(out.replace("\t", "").replace("\n", ""))
    assert len(out.splitlines()) == 2, "a line of headings, and one for the key"
    assert "\\u001b[2J" in out


def test_an_error_controls_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table := tmp_path / "rows.csv").write_text("at,flow\n1,2\n")
    flags = ["--model", HOSTILE, "--home", str(tmp_path), "--out", str(tmp_path / HOSTILE / "x")]
    assert main(["score", str(table), *flags]) == 1
    err = capsys.readouterr().err
    assert not forbidden(err.removesuffix("\n"))
    assert "\\u001b[2J" in err


def head_of(served: Served, request: bytes) -> bytes:
    """The head of the answer to raw bytes."""
    parts = urlsplit(served.url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
            answer += more
    return answer.partition(b"\r\n\r\n")[0]


def raw(method: str, path: str, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: localhost", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@pytest.mark.slow
@pytest.mark.real
def test_nothing_that_callers_send_controls_the_log_or_a_header(tmp_path: Path) -> None:
    model = tiny_models.encoder(tmp_path / "model")
    named = json.dumps({"model": HOSTILE, "input": HOSTILE}).encode()
    as_json = b"content-type: application/json"
    bytes_of_headers = HOSTILE.replace("\r\n", "").encode()
    requests = [
        raw("POST", "/v1/embeddings", as_json, body=named),
        raw("POST", "/v1/classify", as_json, body=named),
        raw("GET", f"/v1/models/{quote(HOSTILE)}"),
        raw("DELETE", f"/v1/models/{quote(HOSTILE)}"),
        raw("PUT", f"/v1/aliases/{quote(HOSTILE)}", as_json, body=b'{"target": "x"}'),
        raw("GET", f"/v1/files/{quote(HOSTILE)}"),
        raw("GET", f"/v1/fine_tuning/jobs/{quote(HOSTILE)}/report/plots/{quote(HOSTILE)}.svg"),
        raw("GET", f"/v1/fine_tuning/jobs?{quote(HOSTILE)}={quote(HOSTILE)}&metadata[{quote(HOSTILE)}]=x"),
        raw("GET", f"/{quote(HOSTILE)}"),
        raw("GET", "/version", b"x-request-id: " + bytes_of_headers),
        raw("GET", "/version", b"x-request-id: id\x85\x9b31m"),
        raw("GET", "/version", b"x-request-id: id\x1b[2J"),
        raw("GET", "/version", b"user-agent: " + bytes_of_headers, b"x-forwarded-for: " + bytes_of_headers),
        raw("POST", "/v1/embeddings", b"content-type: \xc2\x9b31m", body=named),
        raw("POST", "/v1/embeddings", as_json, b"x-request-timeout-ms: \xc2\x9b31m", body=named),
        raw("GET", "/v1/models", b"authorization: Bearer \xc2\x9b31m"),
        raw("GET", "/v1/models", b"host: \xc2\x9b31m"),
        b"GET /\x1b[2J HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ]
    with serving(tmp_path, "--model", f"tiny={model}", "--device", "cpu", "--log-level", "debug") as served:
        started = (tmp_path / "server.log").stat().st_size  # libraries show progress bars while models load
        heads = [head_of(served, request) for request in requests]
        upload = {"file": (f"{HOSTILE}.jsonl", b'{"text": "a", "label": "b"}\n')}
        answer = httpx.post(f"{served.url}/v1/files", files=upload, data={"purpose": HOSTILE})
        assert answer.status_code == 422
        answer = httpx.post(f"{served.url}/v1/files", files=upload, data={"purpose": "fine-tune"})
        assert answer.status_code == 200
    assert all(head.startswith(b"HTTP/1.1 ") for head in heads), heads
    for head in heads:
        for line in head.decode("latin-1").split("\r\n"):
            assert not forbidden(line), head
    lines = (tmp_path / "server.log").read_bytes()[started:].decode().removesuffix("\n").split("\n")
    assert len(lines) >= len(requests)
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert not forbidden(line), line
