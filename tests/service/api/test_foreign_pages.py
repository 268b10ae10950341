"""What a web page of another origin can do to a service without keys: nothing."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from service.api.foreign_pages import refuse_foreign_page
from service.auth import Keyring
from service.config import Settings
from service.errors import ForeignOrigin, UnknownHost
from tests.support.app import MakeApp


def settings(**flags: object) -> Settings:
    return Settings.read(flags)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.1.2.3:1", "[::1]", "[::1]:8000", "my.host:80"],
)
def test_loopback_and_the_host_of_the_flag_are_served(host: str) -> None:
    for method in ("GET", "POST"):
        refuse_foreign_page(method, Headers({"host": host}), settings(host="my.host"))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "x.localhost:8000"),
        *("10.0.0.1", "0.0.0.0", "[::]", "[::ffff:1.2.3.4]", "", ":8000", "localhost:8000:1", "localhost@evil.example"),
        *("evil.example#localhost", "[::1", "127.0.0.1, evil.example", "2130706433", "localhost\\evil"),
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(UnknownHost, match="expected the host localhost or"):
            refuse_foreign_page(method, Headers({"host": host}), settings())


def test_one_of_two_hosts_is_not_enough() -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    with pytest.raises(UnknownHost):
        refuse_foreign_page("GET", headers, settings())


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost:3000"},
    {"origin": "http://localhost:8000.evil.example"},
    {"origin": "http://localhost"},
    {"origin": "http://localhost:8000/", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "Cross-Site", "origin": "http://localhost:8000"},
]


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("given", FOREIGN)
def test_pages_of_other_origins_change_nothing(given: dict[str, str], method: str, insecure: bool) -> None:
    headers = Headers({"host": "localhost:8000", **given})
    with pytest.raises(ForeignOrigin, match="this service's own pages"):
        refuse_foreign_page(method, headers, settings(insecure=insecure))
    refuse_foreign_page("GET", headers, settings(insecure=insecure))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},
        {"origin": "HTTP://LocalHost:8000"},
        {"sec-fetch-site": "none"},
    ],
)
def test_own_pages_and_other_clients_may_change(given: dict[str, str]) -> None:
    refuse_foreign_page("POST", Headers({"host": "localhost:8000", **given}), settings())


def test_insecure_serves_every_host() -> None:
    refuse_foreign_page("POST", Headers({"host": "models.lan"}), settings(host="0.0.0.0", insecure=True))


ATTACKS = [
    ("POST", "/v1/models/fake/withdraw", {}),
    ("POST", "/v1/models/fake/rollback", {}),
    ("DELETE", "/v1/models/fake", {}),
    ("POST", "/v1/fine_tuning/jobs/x/cancel", {}),
    ("POST", "/v1/files", {"content-type": "multipart/form-data; boundary=a"}),
    ("POST", "/v1/embeddings", {"content-type": "application/json"}),
]


@pytest.mark.parametrize(("method", "path", "headers"), ATTACKS)
def test_every_route_is_behind_the_rule(make_app: MakeApp, method: str, path: str, headers: dict[str, str]) -> None:
    client = TestClient(make_app())
    for more, code in (
        ({"origin": "https://evil.example"}, "foreign_origin"),
        ({"sec-fetch-site": "cross-site"}, "foreign_origin"),
        ({"host": "evil.example"}, "unknown_host"),
    ):
        answer = client.request(method, path, headers={**headers, **more})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
        assert answer.json()["error"]["type"] == "permission_error"


def test_a_rebound_name_reads_nothing(make_app: MakeApp) -> None:
    client = TestClient(make_app())
    for path in ("/v1/models", "/v1/files", "/docs", "/openapi.json", "/metrics", "/nothing"):
        assert client.get(path, headers={"host": "evil.example"}).status_code == 403
    assert client.get("/health/ready", headers={"host": "10.0.0.1"}).status_code == 200, "probes name any address"


def test_a_key_opens_to_every_host_and_page(make_app: MakeApp) -> None:
    app = make_app()
    secret = Keyring(app.state.settings.keys_file).create(["infer"])[1]
    headers = {"x-api-key": secret, "host": "models.example", "origin": "https://app.example"}
    answer = TestClient(app).post("/v1/embeddings", json={"model": "fake", "input": "a"}, headers=headers)
    assert answer.status_code == 200
