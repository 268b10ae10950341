"""Where models come from: names, the shipped model's hash, a hub, and what is never loaded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models import source
from models.errors import ModelSourceError, UnsafeModelError
from models.source import DEFAULT_MODEL, ModelSource, locate, locate_ahead, parse_spec, weights_bytes
from tests.support import tiny_models


@pytest.mark.parametrize(
    ("spec", "name", "place"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("support=/models/x", "support", "/models/x"),
        ("/models/bge-small", "bge-small", "/models/bge-small"),
        ("BAAI/bge-small-en", "bge-small-en", "BAAI/bge-small-en"),
    ],
)
def test_specs(spec: str, name: str, place: str) -> None:
    assert parse_spec(spec) == (name, place)


@pytest.mark.parametrize("spec", ["", "=x", "name=", "two words=x"])
def test_bad_specs(spec: str) -> None:
    with pytest.raises(ModelSourceError, match="--model takes"):
        parse_spec(spec)


@pytest.mark.real
def test_the_shipped_model_is_the_original() -> None:
    found = locate(DEFAULT_MODEL)
    digest = hashlib.sha256((found.path / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (found.name, found.origin, found.immutable) == (DEFAULT_MODEL, "shipped with Sonde", True)


def test_the_size_of_weights_is_known_before_they_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"12345")
    (tmp_path / "model-1-of-1.safetensors").write_bytes(b"123")
    assert weights_bytes(f"net={tmp_path / 'net.pt2'}") == 5
    assert weights_bytes(f"mine={tmp_path}") == 3
    assert 80 * 10**6 < weights_bytes(DEFAULT_MODEL) < 100 * 10**6
    assert weights_bytes("owner/of-the-hub") == 0


def test_a_directorys_files_may_change(tmp_path: Path) -> None:
    assert not locate(str(tiny_models.encoder(tmp_path / "model"))).immutable


def test_files_of_a_network_may_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "is_on_network", lambda path: True)
    assert not locate(DEFAULT_MODEL).immutable


@pytest.mark.real
def test_models_are_located_ahead_and_each_error_is_raised_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Event()
    whole = locate

    def find(spec: str) -> ModelSource:
        if spec != DEFAULT_MODEL:
            both.set()
        return whole(spec)

    monkeypatch.setattr("models.source.locate", find)
    found = locate_ahead([DEFAULT_MODEL, "/no/such/directory"])
    assert both.wait(timeout=10)  # before anyone asks for one
    assert next(found).name == DEFAULT_MODEL
    with pytest.raises(ModelSourceError, match="there is no directory"):
        next(found)


def test_a_changed_shipped_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "DEFAULT_MODEL_SHA256", "0" * 64)
    with pytest.raises(ModelSourceError, match="expected 0000"):
        locate(DEFAULT_MODEL)


def test_the_version_changes_with_weights_and_with_settings(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    first = locate(str(path)).version
    assert locate(str(path)).version == first
    config = path / "1_Pooling" / "config.json"
    config.write_text(config.read_text().replace("mean", "cls"))
    second = locate(str(path)).version
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert len({first, second, locate(str(path)).version}) == 3


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeModelError, match=r"found pytorch_model\.bin: pickles"):
        locate(str(tmp_path))


def test_code_in_configs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(UnsafeModelError, match="auto_map"):
        locate(str(tmp_path))


def test_modules_from_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "modules.json").write_text('[{"type": "custom.Evil", "path": ""}]')
    with pytest.raises(UnsafeModelError, match=r"custom\.Evil"):
        locate(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_settings_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelSourceError, match=r"config\.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize("place", ["/nowhere/model", "./missing", "../missing", "missing", "a/b/c", "missing/"])
def test_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelSourceError, match=f"there is no directory '{place}'"):
        locate(place)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelSourceError, match="expected a directory with a model, got the file"):
        locate(str(tmp_path / "model.safetensors"))


class _Hub(BaseHTTPRequestHandler):
    """As much of a hub as downloading one model takes."""

    root: Path
    commit = "a" * 40

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        if path.startswith("/api/models/team/tiny/tree/"):
            entries = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": (self.root / name).stat().st_size}
                for name in files
            ]
            self._send(json.dumps(entries).encode())
        elif path.startswith("/api/models/team/tiny"):
            about = {"id": "team/tiny", "sha": self.commit, "siblings": [{"rfilename": name} for name in files]}
            self._send(json.dumps(about).encode())
        elif path.startswith("/team/tiny/resolve/"):
            self._send((self.root / path.split("/", 5)[5]).read_bytes())
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *about: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    model = tiny_models.encoder(tmp_path / "hub" / "tiny")
    (model / "evil.py").write_text("raise SystemExit('code from a hub was run')")
    handler = type("Handler", (_Hub,), {"root": model})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _locate_elsewhere(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`locate` in a process of its own: huggingface_hub reads its variables once, when it is imported."""
    code = (
        "from models.source import locate; found = locate('team/tiny'); print(found.path, sorted(p.name for p in "
        "found.path.iterdir()))"
    )
    variables = {**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.real
def test_a_hub_model_is_downloaded_once_without_its_code_and_then_found_offline(hub: str, tmp_path: Path) -> None:
    online = _locate_elsewhere(tmp_path / "cache", HF_ENDPOINT=hub)
    assert "model.safetensors" in online.stdout, online.stderr
    assert "evil.py" not in online.stdout
    offline = _locate_elsewhere(tmp_path / "cache", HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout, offline.stderr


@pytest.mark.real
def test_offline_and_not_cached_says_so(tmp_path: Path) -> None:
    result = _locate_elsewhere(tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert "ModelSourceError: 'team/tiny' is no directory here and could not be fetched from the hub" in result.stderr
