"""Every error of the tree has its status, type and code in HTTP."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from models import errors as m
from service import errors as e
from service.api.error_responses import error_response, path_of, status_of

LONG = "x" * 100_000
CUT = "x" * 79 + "…"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (e.MalformedBody("x"), 400, "invalid_request_error"),
        (e.MissingKey("x"), 401, "authentication_error"),
        (e.ScopeDenied("x"), 403, "permission_error"),
        (e.ModelNotFound("x"), 404, "not_found_error"),
        (e.BodyTooLarge("x"), 413, "invalid_request_error"),
        (e.UnsupportedMedia("x"), 415, "invalid_request_error"),
        (e.InvalidRequest("x"), 422, "invalid_request_error"),
        (e.WrongTask("x"), 422, "invalid_request_error"),
        (m.TextTooLong("x"), 422, "invalid_request_error"),
        (m.BadTokens("x"), 422, "invalid_request_error"),
        (e.Overloaded("x"), 429, "rate_limit_error"),
        (e.ClientGone("x"), 499, "invalid_request_error"),
        (e.BackendError("x"), 500, "server_error"),
        (e.InvalidOutput("x"), 500, "server_error"),
        (e.Unavailable("x"), 503, "server_error"),
        (m.ModelOutOfMemory("x"), 503, "server_error"),
        (m.DeviceLost("x"), 503, "server_error"),
        (e.DeadlineExceeded("x"), 504, "server_error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_table(error: m.SondeError, status: int, kind: str) -> None:
    response = error_response(error)
    body = json.loads(bytes(response.body))["error"]
    assert (response.status_code, body["type"], body["code"]) == (status, kind, error.code)
    assert status_of(error) == status


@pytest.mark.parametrize(
    "error", [m.ModelSourceError("secret path"), e.ConfigError("secret path"), m.SondeError("secret path")]
)
def test_what_is_about_the_service_is_not_told_to_callers(
    error: m.SondeError, caplog: pytest.LogCaptureFixture
) -> None:
    response = error_response(error)
    assert (response.status_code, json.loads(bytes(response.body))["error"]["code"]) == (500, "internal_error")
    assert b"secret" not in response.body
    assert "secret path" in caplog.text


def _branches(root: type[m.SondeError]) -> list[type[m.SondeError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _branches(branch))]


def test_no_two_errors_share_a_code_but_by_kinship() -> None:
    theirs = ("models.training", "service.client")  # have a code each time
    told = [error for error in _branches(m.SondeError) if not error.__module__.startswith(theirs)]
    for error in told:
        for other in told:
            if error.code == other.code:
                assert issubclass(error, other) or issubclass(other, error), (error, other)


@pytest.mark.parametrize("error", [e.Overloaded("x", retry_after_s=7), e.Unavailable("x"), m.ModelOutOfMemory("x")])
def test_come_back_later_says_when_in_whole_seconds(error: m.SondeError) -> None:
    assert int(error_response(error).headers["retry-after"]) == getattr(error, "retry_after_s", 1)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("body", "input", 3), "input[3]"),
        (("body", "parameters", "top_k"), "parameters.top_k"),
        (("header", "X-Request-Timeout-Ms"), "X-Request-Timeout-Ms"),
        (("body", "x" * 80), "x" * 80),
        (("body", "parameters", "x" * 81), f"parameters.{'x' * 79}…"),
        (("body",), None),
        ((), None),
    ],
)
def test_places_are_written_as_callers_write_them(location: tuple[int | str, ...], path: str | None) -> None:
    assert path_of(location) == path


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("PUT", "/health", 405, "method_not_allowed"),
    ],
)
def test_routes_that_are_none_answer_in_the_envelope_too(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize("given", ["0", "-5", "soon", "1.5", "99999999999"])
def test_a_timeout_that_is_none_is_refused(client: TestClient, given: str) -> None:
    answer = client.post(
        "/v1/embeddings", json={"model": "fake", "input": "a"}, headers={"X-Request-Timeout-Ms": given}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "X-Request-Timeout-Ms")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"input": "a", LONG: 1}, CUT),
        ("/v1/classify", {"input": "a", "labels": {LONG: 5}}, f"labels.{CUT}"),
    ],
)
def test_long_names_are_not_sent_back(client: TestClient, path: str, body: dict[str, object], param: str) -> None:
    answer = client.post(path, json={"model": "fake", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert len(answer.text) < 500


def test_a_prompt_of_no_model_is_named_in_short(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a", "prompt_name": LONG})
    assert answer.status_code == 422
    assert len(answer.text) < 500


def test_half_a_character_in_a_name_is_spelled_out(client: TestClient) -> None:
    body = b'{"model": "fake", "input": "a", "\\ud800": NaN}'
    answer = client.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "no low surrogate in string" in answer.json()["error"]["message"], "the first fault: it is before the NaN"
    error = json.loads(bytes(error_response(e.InvalidRequest("a\udcffb", param="\ud800")).body))["error"]
    assert (error["message"], error["param"]) == (r"a\udcffb", r"\ud800")


@pytest.mark.parametrize("headers", [{}, {"X-Request-Timeout-Ms": "60000"}])
def test_a_value_of_lists_within_lists_is_refused_as_any_other(client: TestClient, headers: dict[str, str]) -> None:
    body = b'{"model": "fake", "input": "a", "truncate": %s}' % (b"[" * 1020 + b"]" * 1020)
    answer = client.post("/v1/embeddings", content=body, headers={"content-type": "application/json", **headers})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "truncate")


def test_long_values_are_not_sent_back(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json={"model": "fake", "input": "a", "encoding_format": "x" * 5000})
    assert len(answer.text) < 500


@pytest.mark.parametrize(
    ("method", "path", "other"),
    [
        ("POST", "/v1/v1/embeddings", "/v1/embeddings"),
        ("POST", "//v1/embeddings", "/v1/embeddings"),
        ("POST", "/v1//embeddings", "/v1/embeddings"),
        ("GET", "/v1/v1/models", "/v1/models"),
        ("POST", "/v1/v2/rerank", "/v2/rerank"),
        ("POST", "/v1/api/embed", "/api/embed"),
        ("POST", "/v1/predict", "/predict"),
        ("POST", "/classify", "/v1/classify"),
        ("GET", "/fine_tuning/jobs", "/v1/fine_tuning/jobs"),
        ("POST", "/api/v1/embeddings", "/v1/embeddings"),
    ],
)
def test_a_wrong_base_url_is_hinted_at(client: TestClient, method: str, path: str, other: str) -> None:
    answer = client.request(method, f"http://testserver{path}", json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")
    assert f"there is {other}: correct the client's base URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1", "/nothing"])
def test_a_path_that_is_like_no_other_gets_no_hint(client: TestClient, path: str) -> None:
    answer = client.post(f"http://testserver{path}", json={})
    assert answer.status_code in {404, 405}
    assert "there is" not in answer.json()["error"]["message"]
    assert answer.status_code == 405 or "; /docs shows the routes" in answer.json()["error"]["message"]
