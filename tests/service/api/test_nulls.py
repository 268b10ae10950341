"""Null is the same as an absent field, in every body that a route takes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import _COMPUTING
from service.api.hot_path import ComputeRoute
from service.api.schemas.requests import CompatibleBody, RequestBody
from tests.service.api.test_hot_path import GOOD, with_each_kind
from tests.support.app import MakeApp

BODIES: dict[str, type[RequestBody]] = {
    route.path: route.body_field.field_info.annotation  # type: ignore[misc]
    for module in _COMPUTING
    for route in module.router.routes
    if isinstance(route, ComputeRoute) and route.body_field is not None
}


@pytest.fixture(scope="module")
def client(make_shared_app: MakeApp) -> TestClient:
    return TestClient(with_each_kind(make_shared_app))


def optional_fields(kind: type[RequestBody]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if not field.is_required()]


def values(answer: Any) -> Any:
    """An answer without what differs from one to the next."""
    if isinstance(answer, dict):
        return {name: values(value) for name, value in answer.items() if name not in {"id", "total_duration"}}
    return answer


@pytest.mark.parametrize("path", sorted(GOOD.keys() & BODIES.keys()))
def test_a_null_for_each_optional_field_changes_nothing(client: TestClient, path: str) -> None:
    absent = {name: None for name in optional_fields(BODIES[path]) if name not in GOOD[path]}
    client.post(path, json=GOOD[path])  # what is kept of labels and references is there from now on
    plain, with_nulls = (client.post(path, json=body) for body in (GOOD[path], GOOD[path] | absent))
    assert with_nulls.status_code == plain.status_code == 200, with_nulls.text
    assert values(with_nulls.json()) == values(plain.json())


@pytest.mark.parametrize("path", sorted(GOOD.keys() & BODIES.keys()))
def test_an_unknown_field_is_refused_and_its_null_only_on_our_own_routes(client: TestClient, path: str) -> None:
    assert client.post(path, json=GOOD[path] | {"surprise": 1}).json()["error"]
    compatible = issubclass(BODIES[path], CompatibleBody)
    answer = client.post(path, json=GOOD[path] | {"surprise": None})
    assert answer.status_code == (200 if compatible else 422), answer.text


def test_our_own_routes_are_those_without_a_model_elsewhere() -> None:
    own = {path for path, kind in BODIES.items() if not issubclass(kind, CompatibleBody)}
    assert own == {f"/v1/{name}" for name in ("classify", "anomaly/score", "forecast", "preprocess", "detect", "ocr")}


def test_null_for_a_required_field_is_told(client: TestClient) -> None:
    error = client.post("/embed", json={"inputs": None}).json()["error"]
    assert (error["param"], error["code"]) == ("inputs", "invalid_value")
    assert "got null" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": "w1", "model": "judge", "parameters": {"top_k": None, "function_to_apply": None}}),
        ("/similarity", {"inputs": {"source_sentence": "w1", "sentences": ["w1"]}, "parameters": {"truncate": None}}),
    ],
)
def test_nulls_within_objects_are_absent_too(client: TestClient, path: str, body: Any) -> None:
    assert client.post(path, json=body).status_code == 200
