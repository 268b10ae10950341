"""Every parser on inputs that are almost right: it answers, or refuses by an error of its own, and nothing else."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httptools
import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import SondeError
from models.registry.aliases import Aliases
from models.registry.artifact import read_manifest
from models.registry.names import check_alias, parse_name
from models.registry.pointer_history import PointerHistory
from models.safety import require_safe
from models.training.data.dataset import read_rows
from models.training.data.table import ColumnRoles, read_table
from models.training.hyperparameter_parser import parse as parse_values
from service.api.http_protocol import RequestParser
from service.api.readings import to_matrix, to_timestamps
from service.auth import Keyring
from service.config import Settings
from service.serving.stream_state import unseal
from tests.campaign.conftest import Figure
from tests.support.app import MakeApp
from tests.support.artifacts import MANIFEST
from tests.support.size import Size
from tests.support.tiny_models import encoder

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(0)]

SLOW = list(HealthCheck)
_ROUND = settings(deadline=None, derandomize=False, database=None, suppress_health_check=SLOW)
PIECES = (
    *(
        byte.encode()
        for byte in ("", "\0", "\n", "\r\n", '"', "\\", "{", "}", "[", "]", ",", ":", "-", "%00", "\ufeff")
    ),
    *(b"\xff", b"9" * 400, b"1e999", b"NaN", b"null", b"true", b"\\ud800", b"[" * 2000, b'{"a":' * 500),
    "\u0315\u0327".encode() * 50,
)


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser: right inputs to begin with, the call, and the errors by which it may refuse."""

    name: str
    seeds: Sequence[bytes]
    parse: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = (SondeError,)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to eight edits: pieces put in, cut out, repeated or overwritten."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 8))):
        start, length = draw(st.integers(0, len(content))), draw(st.integers(0, 40))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        kept = content[start : start + length]
        middle = draw(st.sampled_from([piece, piece + kept, kept * 3, b""]))
        content = content[:start] + middle + content[start + length :]
    return content


def test_parsers_refuse_by_errors_of_their_own(
    make_app: MakeApp, tmp_path: Path, pytestconfig: pytest.Config, size: Size, figure: Figure
) -> None:
    parsers = list(_parsers(make_app, tmp_path))
    each = (pytestconfig.getoption("--seconds") or size.of(30.0, 3600.0)) / len(parsers)
    counts = {parser.name: _fuzz(parser, each, size.of(20, 100)) for parser in parsers}
    figure(f"{len(parsers)} parsers, {sum(counts.values()):,} inputs in {each * len(parsers) / 60:.1f} min, no finding")
    assert all(counts.values()), counts


def _fuzz(parser: Parser, seconds: float, examples: int) -> int:
    """Parse mutated inputs for some seconds, and at least `examples`; how many."""
    count, end = 0, time.monotonic() + seconds

    @settings(_ROUND, max_examples=examples)
    @given(mutated(parser.seeds))
    def check(content: bytes) -> None:
        nonlocal count
        count += 1
        with contextlib.suppress(*parser.refusals):
            parser.parse(content)

    while not count or time.monotonic() < end:
        hypothesis.seed(time.time_ns())(check)()
    return count


def _parsers(make_app: MakeApp, home: Path) -> Iterator[Parser]:
    yield from _requests(make_app)
    yield from _training_files(home)
    yield from _model_files(home)
    yield from _values(home)


def _requests(make_app: MakeApp) -> Iterator[Parser]:
    http = TestClient(make_app(), raise_server_exceptions=True)

    def post(path: str, content_type: str = "application/json") -> Callable[[bytes], None]:
        def send(content: bytes) -> None:
            answer = http.post(path, content=content, headers={"content-type": content_type})
            assert answer.status_code < 500, answer.text

        return send

    bodies: dict[str, dict[str, object]] = {
        "/v1/embeddings": {"model": "fake", "input": ["hello", [1, 2]], "dimensions": 16, "encoding_format": "base64"},
        "/v1/classify": {"model": "fake", "input": "hello", "labels": {"a": "hello", "b": ["world"]}},
        "/v1/anomaly/score": {"model": "fake", "input": ["a"], "reference": ["a", "b", "c"] * 4, "alpha": 0.1},
        "/v1/forecast": {"model": "fake", "series": [[1.5, None], [2, 3]], "timestamps": ["2026-01-01T00:00:00Z", 2]},
        "/v1/rerank": {"model": "fake", "query": "a", "documents": ["b", {"text": "c"}], "top_n": 1},
        "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
        "/tokenize": {"inputs": ["a"], "add_special_tokens": False},
        "/v1/feedback": {"model": "fake", "text": "a", "label": "b", "correct_label": "c"},
        "/v1/fine_tuning/jobs": {"model": "fake", "training_file": "file-1", "suffix": "a", "metadata": {"a": "b"}},
    }
    for path, body in bodies.items():
        yield Parser(path, [json.dumps(body).encode()], post(path))
    form = b'--cut\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    whole = form % (b"purpose", b"", b"fine-tune") + form % (b"file", b'; filename="a.jsonl"', b"{}") + b"--cut--\r\n"
    yield Parser("multipart", [whole], post("/v1/files", "multipart/form-data; boundary=cut"))
    heads = [
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    ]
    yield Parser("HTTP", heads, _parse_http, (httptools.HttpParserError, httptools.HttpParserUpgrade))


class _Listener:
    """Keeps the head, as the protocol does."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.url, self.headers = b"", []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def _parse_http(content: bytes) -> None:
    RequestParser(_Listener()).feed_data(content)


def _training_files(home: Path) -> Iterator[Parser]:
    seeds = {
        "jsonl": [
            b'{"text": "a card", "label": "lost"}\n{"text": "b", "label": "found"}\n' * 3,
            b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 2,
            b'{"timestamp": "2026-01-01T00:00:00Z", "pressure": 1.5}\n{"pressure": null}\n',
        ],
        "csv": [b'text,label\n"a, card",lost\nb,found\n', b"timestamp;p;q\n2026-01-01;1,5;2\n2026-01-02;1;\n"],
    }
    table = pa.table({"text": ["a", "b"] * 4, "label": ["x", "y"] * 4})
    pq.write_table(table, home / "seed.parquet")
    seeds["parquet"] = [(home / "seed.parquet").read_bytes()]
    for kind, given_seeds in seeds.items():
        path = home / f"rows.{kind}"
        yield Parser(f"{kind} of texts", given_seeds, _reading(path, read_rows))
        yield Parser(f"{kind} of readings", given_seeds, _reading(path, lambda path: read_table(path, ColumnRoles())))


def _reading(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def parse(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return parse


def _model_files(home: Path) -> Iterator[Parser]:
    (name := home / "ft--a--b--c").mkdir()
    record = {"action": "promote", "version": 1, "by": "a", "why": "b", "at": 1.0, "generation": 1, "previous": None}
    line = json.dumps(record).encode()
    history = PointerHistory(name)
    yield Parser("current.json", [line], _reading(name / "current.json", lambda path: history.last()))
    (name / "current.json").unlink(missing_ok=True)
    ledger = [line + b"\n" + line + b"\n"]
    yield Parser("ledger.jsonl", ledger, _reading(name / "ledger.jsonl", lambda path: history.ledger()))
    aliases = [b'{"a": "ft:a:b:c:v1"}']
    yield Parser("aliases.json", aliases, _reading(home / "aliases.json", lambda path: Aliases(home).all()))
    manifest = json.dumps(asdict(MANIFEST)).encode()
    parse = _reading(name / "manifest.json", lambda path: read_manifest(path.parent))
    yield Parser("manifest.json", [manifest], parse)
    model = encoder(home / "model")
    for file in ("config.json", "modules.json", "tokenizer_config.json", "model.safetensors"):
        if (path := model / file).is_file():
            whole = path.read_bytes()
            yield Parser(file, [whole], _reading(path, lambda path: require_safe(path.parent)))
            path.write_bytes(whole)


def _values(home: Path) -> Iterator[Parser]:
    keyring = Keyring(home / "keys.json")
    keyring.create(["infer"])
    keys = (home / "keys.json").read_bytes()
    yield Parser("keys.json", [keys], _reading(home / "keys.json", lambda path: Keyring(path).keys))
    yield Parser("names", [b"ft:all-MiniLM-L6-v2:local:support:v12"], lambda content: parse_name(_text(content)))
    yield Parser("aliases", [b"production"], lambda content: check_alias(_text(content)))
    yield Parser("states", [b"AAAA" * 20], lambda content: unseal(_text(content), "0" * 12))
    columns = ("a", "b")
    rows = [b"[[1, 2], [3, null]]", b'[{"a": 1, "b": 2.5}]']
    yield Parser("readings", rows, lambda content: to_matrix(_list(content), columns, "series"))
    stamps = [b'["2026-01-01T00:00:00Z", "2026-01-02"]', b"[1, 2.5, 3e9]"]
    yield Parser("timestamps", stamps, _parse_timestamps)
    values = [b'{"mode": "frozen", "n_epochs": 3, "augmentation": {"typos": 0.1}}']
    yield Parser("hyperparameters", values, lambda content: parse_values("classification", _object(content)))
    flags = [b'{"port": 1, "trusted_proxies": ["10.0.0.0/8"], "model": "a=b,c", "org": "a"}']
    yield Parser("settings", flags, lambda content: Settings.read(_object(content)))


def _parse_timestamps(content: bytes) -> None:
    values = _list(content)
    to_timestamps(values, max(len(values), 1), None)  # a series has a row


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _json(content: bytes, kind: type[Any]) -> Any:
    """The JSON of one kind in an input; else an empty one, as these parsers get JSON that was read before."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return kind()
    return value if isinstance(value, kind) else kind()


def _list(content: bytes) -> list[Any]:
    found: list[Any] = _json(content, list)
    return found


def _object(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = _json(content, dict)
    return found
