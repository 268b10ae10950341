"""The console's files: who gets the page, what it may do, and that it leads nowhere else."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from tests.support.app import MakeApp

WEB = Path(__file__).parents[4] / "service" / "web"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
_PRELOADED = re.compile(r'(?:href|src)="(console/[^"]+)"')
_IMPORTED = re.compile(r'^(?:import|export)\b[^;]*?from\s*"([^"]+)"', re.MULTILINE)


@pytest.mark.parametrize("path", ["/", "/console"])
def test_browsers_get_the_page_and_what_it_may_do(client: TestClient, path: str) -> None:
    page = client.get(path, headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


def test_other_clients_get_what_they_always_got(client: TestClient) -> None:
    for accept in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        answer = client.get("/", headers=accept)
        assert (answer.text, answer.headers["vary"]) == ("Sonde is running", "accept")
    assert client.head("/").headers["content-length"] == str(len("Sonde is running"))


@pytest.mark.slow
def test_the_page_needs_no_key_and_what_it_calls_does(make_app: MakeApp) -> None:
    app = make_app()
    Keyring(app.state.settings.keys_file).create(["infer"])
    client = TestClient(app)
    assert client.get("/", headers=BROWSER).status_code == 200
    for path in ("/console", "/console/main.mjs", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    assert client.get("/").status_code == client.get("/v1/models").status_code == 401
    assert [client.post(path).status_code for path in ("/console", "/console/x", "/docs", "/")] == [401] * 4


def test_files_are_revalidated_and_only_those_of_the_page(client: TestClient) -> None:
    first = client.get("/console/main.mjs")
    assert "javascript" in first.headers["content-type"]
    assert first.headers["cache-control"] == "no-cache"
    assert client.get("/console/main.mjs", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert client.get("/console/", follow_redirects=False).headers["location"] == "../console"
    for path in ("../config.py", "%2e%2e/config.py", "..%2fconfig.py", "pages", "none.mjs"):
        assert client.get(f"/console/{path}").status_code == 404, path
    assert client.get("/static-offline-docs/none.js").status_code == 404


def test_every_import_is_a_file_of_the_page() -> None:
    for module in WEB.rglob("*.mjs"):
        for target in _IMPORTED.findall(module.read_text(encoding="utf-8")):
            assert target.startswith("."), f"{module.name} imports {target}"
            assert (module.parent / target).is_file(), f"{module.name} imports {target}"


def test_no_address_outside_and_no_script_in_the_page() -> None:
    for file in [*WEB.glob("*.*"), *WEB.glob("pages/*"), *WEB.glob("parts/*")]:
        found = re.findall(r"https?://[^\s\"'`]+", file.read_text(encoding="utf-8"))
        assert [address for address in found if not address.startswith("http://www.w3.org/")] == [], file
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", (WEB / "index.html").read_text())


def test_the_first_page_is_small(client: TestClient) -> None:
    """All that the Overview loads, gzipped as it goes over the wire: at most 60 KB."""
    wanted, seen = ["console", *_PRELOADED.findall(client.get("/console").text), "console/pages/overview.mjs"], set()
    size = 0
    while wanted:
        if (path := wanted.pop()) in seen:
            continue
        seen.add(path)
        body = client.get(f"/{path}").content
        size += len(gzip.compress(body, 1))
        if path.endswith(".mjs"):
            wanted += [urljoin(path, target) for target in _IMPORTED.findall(body.decode())]
    assert "console/vendor/preact.mjs" in seen
    assert size <= 60_000
