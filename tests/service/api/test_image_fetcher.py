"""Images by URL: which hosts, addresses and answers are taken, and what is refused with its reason."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.errors import ImageTooLarge
from service.api import image_fetcher
from service.api.image_fetcher import Address, ImageFetcher, is_public
from service.errors import InvalidRequest
from tests.fakes.image import FakeDetector, FakeImages
from tests.support.app import MakeApp
from tests.support.images import encoded, picture

DATA = encoded(picture(80, 60))
MOST = 1 << 20


class Host(BaseHTTPRequestHandler):
    """A host of one image, and of answers that are none."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["host"]))
        if self.path == "/slow.png":
            threading.Event().wait(1)
        self.send_response({"/moved.png": 302, "/missing.png": 404}.get(self.path, 200))
        self.send_header("location", "/image.png")
        self.end_headers()
        if self.path == "/large.png":
            for _ in range(64):
                self.wfile.write(bytes(1 << 16))
        self.wfile.write(DATA)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[int]:
    """The port of a host, on this machine."""
    Host.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


async def resolve_here(name: str, port: int) -> Collection[Address]:
    """Every name is this machine."""
    return [ip_address("127.0.0.1")]


def fetcher(*hosts: str, max_bytes: int = MOST) -> ImageFetcher:
    """A fetcher that takes this machine for a public one."""
    return ImageFetcher(hosts, max_bytes, resolve=resolve_here, is_allowed=lambda address: True)


def fetch(made: ImageFetcher, url: str, most: int = MOST) -> bytes:
    return asyncio.run(made.fetch(url, "images[1]", most))


def test_an_image_is_fetched_from_an_allowed_host(host: int) -> None:
    place = f"images.example:{host}"
    assert fetch(fetcher(place), f"http://IMAGES.example:{host}/image.png#part") == DATA
    assert Host.asked == [("/image.png", place)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://other.example:{port}/image.png", "expected a URL of an allowed host"),
        ("http://images.example/image.png", "expected a URL of an allowed host"),
        ("http://images.example.evil.example:{port}/image.png", "expected a URL of an allowed host"),
        ("http://images.example:{port}@evil.example/image.png", "without a user"),
        ("http://me@images.example:{port}/image.png", "without a user"),
        ("http:///image.png", "expected a URL like"),
        ("http://[::1/image.png", "expected a URL like"),
        ("http://images.example:{port}/moved.png", "got 302: a redirect, which Sonde does not follow"),
        ("http://images.example:{port}/missing.png", "got 404"),
    ],
)
def test_other_urls_are_refused(host: int, url: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fetch(fetcher(f"images.example:{host}"), url.format(port=host))
    assert caught.value.param == "images[1]"
    assert reason in caught.value.message
    assert "/image.png" not in [path for path, _ in Host.asked]


def test_a_star_allows_every_host_at_the_usual_ports(host: int) -> None:
    with pytest.raises(InvalidRequest, match="expected a URL of an allowed host"):
        fetch(fetcher("*"), f"http://images.example:{host}/image.png")
    with pytest.raises(InvalidRequest, match="could not be fetched"):  # it is allowed, and nothing listens there
        fetch(fetcher("*"), "http://images.example/image.png")


def test_images_are_bounded_while_they_come(host: int) -> None:
    url = f"http://images.example:{host}/large.png"
    for made, most in (
        (fetcher(f"images.example:{host}", max_bytes=1000), MOST),
        (fetcher(f"images.example:{host}"), 1000),
    ):
        with pytest.raises(ImageTooLarge, match="expected at most 1,000 bytes"):
            fetch(made, url, most)


def test_a_host_must_answer_in_time(host: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_fetcher, "_TIMEOUT_S", 0.2)
    with pytest.raises(InvalidRequest, match="it did not come"):
        fetch(fetcher(f"images.example:{host}"), f"http://images.example:{host}/slow.png")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "2130706433"])
def test_private_addresses_are_refused_whatever_they_are_called(host: int, name: str) -> None:
    made = ImageFetcher([f"{name.strip('[]') if name == '[::1]' else name}:{host}", "*"], MOST)
    with pytest.raises(InvalidRequest):
        fetch(made, f"http://{name}:{host}/image.png")
    assert Host.asked == []


def test_one_private_address_is_one_too_many(host: int) -> None:
    async def resolve(name: str, port: int) -> Collection[Address]:
        return [ip_address("1.1.1.1"), ip_address("10.0.0.1")]

    made = ImageFetcher([f"images.example:{host}"], MOST, resolve=resolve)
    with pytest.raises(InvalidRequest, match="public addresses alone"):
        fetch(made, f"http://images.example:{host}/image.png")


def test_a_host_is_resolved_once(host: int) -> None:
    """A second look-up could have another answer."""
    asked: list[str] = []

    async def resolve(name: str, port: int) -> Collection[Address]:
        asked.append(name)
        return [ip_address("127.0.0.1")]

    made = ImageFetcher([f"no-such-host.invalid:{host}"], MOST, resolve=resolve, is_allowed=lambda address: True)
    assert fetch(made, f"http://no-such-host.invalid:{host}/image.png") == DATA
    assert asked == ["no-such-host.invalid"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) is expected


def test_routes_take_urls_where_images_are(make_app: MakeApp, host: int) -> None:
    app = make_app(allow_urls=[f"images.example:{host}"])
    app.state.image_fetcher = fetcher(f"images.example:{host}")
    for model in (FakeImages(), FakeDetector()):
        app.state.manager.add_images(model)
    url = f"http://images.example:{host}/image.png"
    client = TestClient(app)
    for path, body in {
        "/v1/detect": {"images": url},
        "/v1/preprocess": {"images": [url]},
        "/v1/embeddings": {"input": [{"image": url}]},
        "/v2/embed": {"model": "images", "images": [url], "input_type": "image"},
        "/models/objects": {"inputs": url},
    }.items():
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
    infinity = {"model": "images", "input": [url], "modality": "image"}
    assert client.post("/v1/embeddings", json=infinity).status_code == 200
    refused = client.post("/v1/detect", json={"images": [url, "http://other.example/a.png"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "images[1]")


def test_all_images_of_a_request_share_a_limit(make_app: MakeApp, host: int) -> None:
    app = make_app(allow_urls=[f"images.example:{host}"], max_body_bytes=len(DATA) * 3 // 2)
    app.state.image_fetcher = fetcher(f"images.example:{host}")
    app.state.manager.add_images(FakeDetector())
    url = f"http://images.example:{host}/image.png"
    client = TestClient(app)
    assert client.post("/v1/detect", json={"images": [url]}).status_code == 200
    refused = client.post("/v1/detect", json={"images": [url, url]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "images[1]")
