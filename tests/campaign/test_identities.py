"""Every route with every identity: each may do what its scope says, and no more.

The OpenAPI document lacks the routes of the Open Inference Protocol, so those come from the application.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.auth import Keyring, Scope
from tests.campaign.conftest import Figure
from tests.fakes.model import FakeModel
from tests.service.api.test_middleware import leaves
from tests.support.app import MakeApp

pytestmark = [pytest.mark.slow]

OPEN = {"/health", "/health/live", "/health/ready", "/version"}
# What changes the models in service needs `admin`, jobs and what they learn from need `train`, all else `infer`.
TRAIN = re.compile(r"/v1/(files|fine_tuning|feedback|kept_inputs|models/.*/held_out)")
TRAIN_READS = re.compile(r"/v1/models/.*/owner")
CHANGES = {"post", "put", "delete"}
ADMIN = re.compile(r"/v1/(models/.*|aliases/.*)|/v2/repository/models/.*")
PROTOCOL = "Open Inference Protocol"
IDENTITIES: dict[str, tuple[Scope, ...]] = {
    "infer": ("infer",),
    "train": ("train",),
    "infer and train": ("infer", "train"),
    "admin": ("admin",),
}
STRANGERS = ("no key", "wrong key", "revoked key", "key's id", "key in the query")


def test_every_route_lets_in_whom_it_should(make_app: MakeApp, figure: Figure) -> None:
    app = make_app(FakeModel("fake"))
    headers = _headers(app)
    asked, wrong = 0, []
    with TestClient(app, raise_server_exceptions=False) as client:
        for path, methods in {**app.openapi()["paths"], **_protocol_routes(app)}.items():
            for method, operation in methods.items():
                for identity in headers:
                    asked += 1
                    got = _ask(client, path, method, operation, headers[identity], identity)
                    if got != (expected := _expected(path, method, identity)):
                        wrong.append(f"{method} {path} as {identity}: {got}, expected {expected}")
    figure(f"{asked} requests, {len(wrong)} wrongly let in or refused")
    assert asked > 300
    assert wrong == []


def _protocol_routes(app: FastAPI) -> dict[str, dict[str, Any]]:
    """The routes of the Open Inference Protocol, as the document has others."""
    found: dict[str, dict[str, Any]] = {}
    for route in leaves(app.routes):
        if PROTOCOL in getattr(route, "tags", ()):
            for method in route.methods or ():
                found.setdefault(route.path, {})[method.lower()] = {"requestBody": {}} if method == "POST" else {}
    assert len(found) >= 12
    return found


def _headers(app: FastAPI) -> dict[str, dict[str, str]]:
    """What each identity sends."""
    keyring = Keyring(app.state.settings.keys_file)
    known = {name: keyring.create(scopes, name) for name, scopes in IDENTITIES.items()}
    revoked, secret = keyring.create(["admin"])
    keyring.revoke(revoked.id)
    strangers = ["", "sonde_" + "a" * 43, secret, known["admin"][0].id, ""]
    sent = {name: secret for name, (_, secret) in known.items()} | dict(zip(STRANGERS, strangers, strict=True))
    return {name: {"authorization": f"Bearer {secret}"} if secret else {} for name, secret in sent.items()}


def _expected(path: str, method: str, identity: str) -> str:
    if path in OPEN:
        return "let in"
    if identity in STRANGERS:
        return "401"
    scopes = IDENTITIES[identity]
    return "let in" if "admin" in scopes or needed(path, method) in scopes else "403"


def needed(path: str, method: str) -> Scope:
    """The scope that a route should need."""
    if TRAIN.match(path) or (TRAIN_READS.match(path) and method not in CHANGES):
        return "train"
    return "admin" if ADMIN.match(path) and method in CHANGES else "infer"


def _ask(
    client: TestClient, path: str, method: str, operation: dict[str, Any], headers: dict[str, str], identity: str
) -> str:
    query = "?api_key=sonde_x" if identity == "key in the query" else ""
    url = re.sub(r"\{[^}]+\}", "none", path) + query
    body: dict[str, Any] = {"json": {}} if "requestBody" in operation else {}
    status = client.request(method, url, headers=headers, **body).status_code
    return (
        str(status) if status in (401, 403) else f"error {status}" if status >= 500 and path not in OPEN else "let in"
    )
