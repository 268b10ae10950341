"""One call of the service: its request, its retries and its answer, without input and output.

`exchange` yields what is to be done, and both clients do it. So there is one implementation of requests.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Generic, TypeVar

import httpx

from service.client.errors import KINDS, BadInput, Refused, TryLater, UnexpectedAnswer, Unreachable

T = TypeVar("T")
_ATTEMPTS = 4
# Errors of TLS that another attempt would meet again; httpx passes Python's on as text. The first is an answer in HTTP.
_NO_TLS, _NOT_TRUSTED = "[SSL: WRONG_VERSION_NUMBER]", "[SSL: CERTIFICATE_VERIFY_FAILED]"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request and how its answer is read.

    `repeatable`: sending it twice does what sending it once does, so it may be sent again after a failure.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: object = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, IO[bytes]] | None = None
    repeatable: bool = True

    def request(self) -> dict[str, Any]:
        """The arguments of `httpx.Client.request`."""
        given: dict[str, Any] = {"method": self.method, "url": self.path, "headers": dict(self.headers)}
        if self.params:
            given["params"] = {name: value for name, value in self.params.items() if value is not None}
        if self.body is not None:
            given["content"] = _encode(self.body)
            given["headers"]["content-type"] = "application/json"
        if self.file is not None:
            given |= {"data": {"purpose": "fine-tune"}, "files": {"file": self.file}}
        return given


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause before the next attempt, and why the last one failed."""

    seconds: float
    reason: str

    def __str__(self) -> str:
        return f"{self.reason}; trying again in {self.seconds:.1f} s"


def address_of(url: str) -> httpx.URL:
    """The base of all paths. Raises BadInput for what is no address."""
    try:
        address = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL as error:
        raise BadInput(f"url: expected an address like http://127.0.0.1:8000, got {url!r}: {error}") from error
    if address.scheme not in ("http", "https"):
        raise BadInput(f"url: expected an address like http://127.0.0.1:8000, got {url!r}")
    return address


def authorities_for(address: httpx.URL) -> ssl.SSLContext | bool:
    """What httpx's `verify` takes: for https the usual authorities, which take 30 ms to load; for http none."""
    return True if address.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def key_headers(key: str | None) -> dict[str, str]:
    """The header that brings a key. Raises BadInput for what cannot be one."""
    if key and not (key.isascii() and key.isprintable()):
        raise BadInput("key: expected the text that 'sonde keys create' shows, got one with other characters")
    return {"authorization": f"Bearer {key}"} if key else {}


Exchange = Generator[dict[str, Any] | Wait, httpx.Response | httpx.TransportError | None, T]


def exchange(call: Call[T]) -> Exchange[T]:
    """Yield requests and pauses; return the answer.

    A repeatable call is sent up to four times: after a broken connection, and after 429 or 503 as `Retry-After` asks.
    One that took too long is not sent again, since it may still be at work; nor is one to an address without TLS or
    with a certificate that is not trusted. Raises ClientError.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        got = yield call.request()
        if isinstance(got, httpx.Response) and got.is_success:
            return _read(call, got)
        error = _refusal(got) if isinstance(got, httpx.Response) else _unreachable(call, got)
        wait = None if _is_final(got) else _wait_s(error, attempt)
        if not call.repeatable or attempt == _ATTEMPTS or wait is None:
            raise error
        yield Wait(wait, error.message if isinstance(got, httpx.Response) else str(got) or type(got).__name__)
    raise AssertionError("the last attempt returns or raises")


def _encode(body: object) -> bytes:
    """JSON; arrays become lists. Raises BadInput."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, default=_to_list).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(error.start - 20, 0) : error.start]
        raise BadInput(f"expected texts in UTF-8, got half a character after {around!r}") from error
    except (ValueError, TypeError) as error:
        raise BadInput(f"expected texts, finite numbers, lists and dictionaries: {error}") from error


def _to_list(value: Any) -> object:
    """The list or number of a NumPy value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")


def _unreachable(call: Call[Any], got: httpx.TransportError | None) -> Unreachable:
    message = f"{call.method} {call.path}: no answer from the service: {got or type(got).__name__}"
    if _NO_TLS in str(got):
        message += "; where the service has no TLS of its own, its address begins with http://"
    elif isinstance(got, httpx.ConnectError):
        where = str(got.request.url.copy_with(path="/", query=None)).rstrip("/")
        message += f"; nothing listens on {where}: start it with 'sonde up', or name another address (--url, SONDE_URL)"
    return Unreachable(message)


def _is_final(got: httpx.Response | httpx.TransportError | None) -> bool:
    """Whether another attempt would end the same, or do what the last one may still do."""
    return isinstance(got, httpx.ReadTimeout | httpx.WriteTimeout) or any(
        error in str(got) for error in (_NO_TLS, _NOT_TRUSTED)
    )


def _refusal(response: httpx.Response) -> Refused:
    """The service's error, with its message."""
    kind = KINDS.get(response.status_code, Refused)
    try:
        fault = response.json()["error"]
        message, code, param = str(fault["message"]), str(fault.get("code")), fault.get("param")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message, code, param = f"{response.url} answered with HTTP status {response.status_code}", "http_error", None
    after = response.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isdecimal() else None
    return kind(message, status=response.status_code, code=code, param=param, retry_after_s=retry_after_s)


def _wait_s(error: Refused | Unreachable, attempt: int) -> float | None:
    """Seconds until the next attempt; None where another one would end the same, or the service asks for too long."""
    if isinstance(error, TryLater) and error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= _LONGEST_WAIT_S else None
    if isinstance(error, TryLater | Unreachable):
        return _FIRST_WAIT_S * float(2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
    return None


def _read(call: Call[T], got: httpx.Response) -> T:
    try:
        return call.read(got)
    except ValueError as error:  # JSON's, UTF-8's and pydantic's errors are ValueErrors
        raise UnexpectedAnswer(f"{got.url} is not a route of Sonde: {error}") from error
