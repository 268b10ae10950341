"""The client over a scripted connection: retries, waits, errors, and both clients alike."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client import AsyncClient, Client, ClientError, NotFound, Refused, TryLater, Unauthorized, Unreachable
from service.client.call import Wait
from service.client.errors import BadInput, UnexpectedAnswer

Script = list[httpx.Response | Exception]
SCORES = {
    "model": "m",
    "data": [],
    "alpha": 0.05,
    "threshold": None,
    "reference": {"count": 9},
    "drift": None,
    "warnings": [],
}
JOB = {"id": "ftjob-1", "status": "running", "paused": False, "model": "m", "fine_tuned_model": None, "created_at": 1}


def answer(content: object, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=content, headers={name.replace("_", "-"): one for name, one in headers.items()})


def refusal(status: int, message: str = "no", **headers: str) -> httpx.Response:
    return answer({"error": {"message": message, "code": "why", "param": "input"}}, status, **headers)


class Service:
    """Answers as scripted, and keeps the requests."""

    def __init__(self, *script: httpx.Response | Exception) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def answer_async(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def body(self, at: int = 0) -> Any:
        return json.loads(self.requests[at].content)


def client_of(service: Service) -> Client:
    return Client(key="secret", http=httpx.Client(base_url="http://sonde", transport=httpx.MockTransport(service)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("service.client.client.time.sleep", waited.append)
    return waited


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone"), refusal(503)])
def test_a_call_that_changes_nothing_is_sent_again(failure: httpx.Response | Exception, waits: list[float]) -> None:
    service = Service(failure, failure, answer(SCORES | {"state": None}))
    assert client_of(service).anomaly(["x"], model="m").data == []
    assert len(service.requests) == 3
    assert 0.3 < waits[0] < 0.7 < waits[1] < 1.4


def test_pauses_are_told_with_their_reasons(waits: list[float]) -> None:
    told, service = list[Wait](), Service(httpx.ConnectError("refused"), refusal(503, "busy"), answer({"data": []}))
    connection = httpx.Client(base_url="http://sonde", transport=httpx.MockTransport(service))
    Client(http=connection, on_wait=told.append).models()
    assert [(one.seconds, one.reason) for one in told] == list(zip(waits, ["refused", "busy"], strict=True))
    assert str(Wait(0.5, "refused")) == "refused; trying again in 0.5 s"


@pytest.mark.parametrize(
    ("error", "advised"),
    [
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", True),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", False),
    ],
)
def test_what_tls_refuses_is_not_sent_again(error: str, advised: bool, waits: list[float]) -> None:
    with pytest.raises(Unreachable) as caught:
        client_of(Service(httpx.ConnectError(error))).models()
    assert caught.value.message.endswith("has no TLS of its own, its address begins with http://") == advised
    assert waits == []


def test_a_handshake_that_breaks_off_is_tried_again(waits: list[float]) -> None:
    service = Service(httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF"), answer({"data": []}))
    assert client_of(service).models().data == []
    assert len(waits) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, waits: list[float]) -> None:
    service = Service(refusal(status, retry_after="7"), answer(SCORES | {"state": None}))
    client_of(service).anomaly(["x"], model="m")
    assert waits == [7.0]


def test_the_client_does_not_wait_for_minutes(waits: list[float]) -> None:
    with pytest.raises(TryLater) as caught:
        client_of(Service(refusal(503, retry_after="600"))).models()
    assert (caught.value.retry_after_s, waits) == (600.0, [])


@pytest.mark.parametrize(
    ("send", "sent"),
    [
        (lambda client: client.feedback("a", model="m", correct_label="b"), 1),
        (lambda client: client.upload(io.BytesIO(b"x"), name="x.csv"), 1),
        (lambda client: client.rollback("ft:m:local:x"), 1),
        (lambda client: client.delete_model("ft:m:local:x"), 1),
        (lambda client: client.train("file-1", model="m"), 4),  # its idempotency key makes it one job
        (lambda client: client.job("ftjob-1"), 4),
    ],
)
def test_only_what_can_be_repeated_is_repeated(send: Callable[[Client], Any], sent: int, waits: list[float]) -> None:
    service = Service(*[httpx.ReadError("broken")] * 4)
    with pytest.raises(Unreachable):
        send(client_of(service))
    assert len(service.requests) == sent
    assert len({request.headers.get("idempotency-key") for request in service.requests}) == 1


def test_a_call_that_took_too_long_is_not_repeated(waits: list[float]) -> None:
    service = Service(httpx.ReadTimeout("slow"))
    with pytest.raises(Unreachable, match="POST /v1/embeddings: no answer from the service: slow"):
        client_of(service).embed("x", model="m")
    assert waits == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (403, Unauthorized), (404, NotFound), (422, Refused), (500, Refused)]
)
def test_an_error_has_the_services_own_message(status: int, kind: type[ClientError], waits: list[float]) -> None:
    with pytest.raises(kind) as caught:
        client_of(Service(refusal(status, "labels: a label is there twice"))).classify("x", model="m")
    error = caught.value
    assert isinstance(error, Refused)
    assert (error.message, error.status, error.code, error.param) == (
        "labels: a label is there twice",
        status,
        "why",
        "input",
    )


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"error": null}', b'{"error": {"code": 1}}'])
def test_an_error_without_a_message_names_its_status(content: bytes) -> None:
    with pytest.raises(Refused, match=r"http://sonde/v1/models answered with HTTP status 502"):
        client_of(Service(httpx.Response(502, content=content))).models()


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"data": [{}]}', b"\xff"])
def test_an_answer_of_another_server_is_named(content: bytes) -> None:
    with pytest.raises(UnexpectedAnswer, match="is not a route of Sonde"):
        client_of(Service(httpx.Response(200, content=content))).models()


def test_the_key_and_only_given_fields_are_sent() -> None:
    service = Service(answer({"model": "m", "data": []}))
    client_of(service).classify("hello", model="m", labels=["a"], top_k=1)
    assert service.requests[0].headers["authorization"] == "Bearer secret"
    assert service.body() == {"model": "m", "input": ["hello"], "labels": ["a"], "top_k": 1}


def test_names_are_quoted_in_paths() -> None:
    service = Service(refusal(404))
    with pytest.raises(NotFound):
        client_of(service).versions("ft:a/b?c:local:x")
    assert service.requests[0].url.raw_path == b"/v1/models/ft%3Aa%2Fb%3Fc%3Alocal%3Ax/versions"


def test_a_stream_keeps_its_state_and_an_error_does_not_move_it(waits: list[float]) -> None:
    service = Service(answer(SCORES | {"state": "one"}), refusal(422), answer(SCORES | {"state": "two"}))
    stream = client_of(service).stream("m")
    stream.score([[1.0]])
    with pytest.raises(Refused):
        stream.score([[2.0]])
    assert stream.state == "one"
    stream.score([[2.0]])
    assert [service.body(at).get("state") for at in range(3)] == [None, "one", "one"]
    assert stream.state == "two"


def test_named_columns_are_sent_by_name_and_checked() -> None:
    service = Service(answer(SCORES | {"state": None}))
    client_of(service).anomaly(model="m", series=[[1.0, 2.0]], columns=["flow", "pressure"])
    assert service.body()["series"] == [{"flow": 1.0, "pressure": 2.0}]
    with pytest.raises(BadInput, match="row 1: expected a list of 2 numbers, for flow, pressure"):
        client_of(service).anomaly(model="m", series=[[1.0, 2.0], [1.0]], columns=["flow", "pressure"])
    with pytest.raises(BadInput, match="columns: expected each name once, got flow, flow"):
        client_of(service).anomaly(model="m", series=[[1.0, 2.0]], columns=["flow", "flow"])


NAMED: list[dict[str, Any]] = [{"series": [[1.0, 2.0]], "columns": ["flow", "pressure"]}, {"series": [{"flow": 1.0}]}]


@pytest.mark.parametrize("first", NAMED)
def test_rows_without_names_are_refused_after_rows_with_names(first: dict[str, Any]) -> None:
    service = Service(answer(SCORES | {"state": "one"}), answer(SCORES | {"state": "two"}))
    stream = client_of(service).stream("m", events={"gap": 3})
    stream.score(**first)
    with pytest.raises(BadInput, match="expected the columns' names, as in the pieces before \\(flow"):
        stream.score([[2.0, 1.0]])
    stream.score([[2.0, 1.0]], columns=["pressure", "flow"])
    assert service.body(1)["series"] == [{"pressure": 2.0, "flow": 1.0}]
    assert service.body(1)["events"] == {"gap": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(BadInput, match="expected texts, finite numbers, lists and dictionaries"):
        client_of(Service()).forecast([[value]], model="m")


def event(number: int) -> dict[str, Any]:
    return {"id": f"ftevent-{number}", "created_at": 1, "level": "info", "message": f"{number}", "type": "message"}


def followed() -> list[httpx.Response]:
    return [
        answer(JOB),
        answer({"data": [event(2), event(1)], "has_more": False}),
        answer(JOB | {"status": "succeeded"}),
        answer({"data": [event(12), event(11)], "has_more": True}),
        answer({"data": [event(3), event(2)], "has_more": True}),
    ]


def test_a_followed_job_gives_each_event_once_and_in_order(waits: list[float]) -> None:
    service = Service(*followed())
    assert [one.number for one in client_of(service).follow("ftjob-1")] == [1, 2, 3, 11, 12]
    assert service.script == []
    assert waits == [1.0]


def test_the_asynchronous_client_does_the_same() -> None:
    service = Service(*followed(), refusal(429, retry_after="0"), answer(SCORES | {"state": "s"}))

    async def run() -> list[int]:
        http = httpx.AsyncClient(base_url="http://sonde", transport=httpx.MockTransport(service.answer_async))
        async with AsyncClient(http=http) as client:
            numbers = [one.number async for one in client.follow("ftjob-1", poll_s=0)]
            stream = client.stream("m")
            await stream.score([[1.0]])
            assert stream.state == "s"
            return numbers

    assert asyncio.run(run()) == [1, 2, 3, 11, 12]
    assert service.script == []


def test_both_clients_have_the_same_methods() -> None:
    names = {name for name in dir(Client) if not name.startswith("_")}
    assert names == {name for name in dir(AsyncClient) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://[::1", "nowhere", "file:///etc/passwd", ""])
def test_what_is_no_address_is_refused(kind: type[Client | AsyncClient], url: str) -> None:
    with pytest.raises(BadInput, match="expected an address"):
        kind(url)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["ключ", "a\nb", "a\x7f"])
def test_what_cannot_be_a_key_is_refused_and_not_shown(kind: type[Client | AsyncClient], key: str) -> None:
    with pytest.raises(BadInput, match="sonde keys create") as caught:
        kind(key=key)
    assert key not in caught.value.message


def test_an_error_too_deep_to_read_is_an_error_of_its_status() -> None:
    service = Service(httpx.Response(500, content=b'{"error":' * 100_000))
    with pytest.raises(Refused, match="HTTP status 500"):
        client_of(service).models()


def test_authorities_are_loaded_for_https_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = list[ssl.SSLContext | bool]()
    real = httpx.Client

    def open_client(**options: Any) -> httpx.Client:
        verify.append(options["verify"])
        return real(**options)

    monkeypatch.setattr(httpx, "Client", open_client)
    for url in ("https://127.0.0.1:8000", "http://127.0.0.1:8000"):
        Client(url).close()
    usual, none = verify
    assert usual is True
    assert isinstance(none, ssl.SSLContext)
    assert none.get_ca_certs() == []
    assert none.verify_mode is ssl.CERT_REQUIRED
