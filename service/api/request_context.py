"""Every request's context: its id, its key and its time; its checks, its log line and its metrics."""

from __future__ import annotations

import ipaddress
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from service.auth import ANYONE, Key, Keyring
from service.auth import Scope as KeyScope
from service.config import Settings
from service.errors import ClientGone, DeadlineExceeded, RateLimited, ScopeDenied, UnknownHost
from service.key_limits import KeyLimits
from service.key_use import KeyUse
from service.logs import REQUESTS
from service.metrics import Metrics

log = logging.getLogger(REQUESTS)

# Names by which other systems ask for the health.
PROBE_ALIASES = {"/healthz", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"}
OPEN_PATHS = {"/health", "/health/live", "/health/ready", "/version", *PROBE_ALIASES}
WATCHING_PATHS = OPEN_PATHS | {"/metrics"}
# The keys beyond these share the label `other` in metrics.
MOST_KEYS = 100
# The console and the documentation with their files. They hold no data; browsers send no key to open a page.
_OPEN_PAGES = {"console", "docs", "openapi.json", "static-offline-docs"}
_UNMATCHED = "unmatched"
_LONGEST_PATH = 200
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\\]+)(?::[0-9]*)?", re.IGNORECASE | re.ASCII)


@dataclass(slots=True)
class RequestContext:
    """A request's id and key, and what was answered; `facts` go into its log line."""

    request_id: str
    key: Key = ANYONE
    status: int = 0
    error_code: str = ""
    facts: dict[str, object] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @staticmethod
    def of(request: Request) -> RequestContext:
        """The context that the middleware gave a request."""
        context: RequestContext = request.scope["state"]["context"]
        return context

    def require_scope(self, scope: KeyScope) -> None:
        """Raise ScopeDenied unless the caller's key has the scope."""
        if not self.key.allows(scope):
            held = ", ".join(self.key.scopes)
            raise ScopeDenied(f"this needs a key with scope {scope!r}; {self.key.id} has: {held}")


class RequestReports:
    """Gives each request its context, counts it, and writes its log line."""

    def __init__(self, metrics: Metrics, limits: KeyLimits) -> None:
        self._metrics = metrics
        self._limits = limits
        self._known_keys: set[str] = set()

    def begin(self, scope: Scope, headers: Mapping[str, str]) -> RequestContext:
        """The context of a request that has come."""
        context = RequestContext(_request_id(headers))
        scope.setdefault("state", {})["context"] = context
        self._metrics.in_flight.inc()
        return context

    def end(self, scope: Scope, context: RequestContext) -> None:
        """Report a request that was answered, or whose caller hung up."""
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        seconds = time.perf_counter() - context.began
        self._metrics.in_flight.dec()
        self._metrics.requests.labels(route, str(context.status)).inc()
        self._metrics.latency.labels(route).observe(seconds)
        if context.error_code:
            self._count_error(context.error_code)
        quiet = scope["path"] in WATCHING_PATHS or is_open_page(scope)
        if not quiet:
            self._count_use(context)
        level = logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            log.handle(_log_record(level, scope, context, route, seconds))

    def _count_error(self, code: str) -> None:
        self._metrics.errors.labels(code).inc()
        if code == ClientGone.code:
            self._metrics.client_gone.inc()
        if code == DeadlineExceeded.code:
            self._metrics.deadline_missed.inc()

    def _count_use(self, context: RequestContext) -> None:
        """Count a request and its tokens for its key, and against the key's limits."""
        tokens = context.facts.get("tokens", 0)
        used = tokens if isinstance(tokens, int) else 0
        if context.key is not ANYONE:
            self._limits.charge(context.key, used)
        label = self._label_of(context.key)
        limited = context.error_code == RateLimited.code
        outcome = "limited" if limited else "ok" if context.status < 400 else "failed"
        self._metrics.key_requests.labels(label, outcome).inc()
        self._metrics.key_tokens.labels(label).inc(used)

    def _label_of(self, key: Key) -> str:
        """A key's label in metrics."""
        if key.id in self._known_keys or len(self._known_keys) < MOST_KEYS:
            self._known_keys.add(key.id)
            return key.id
        return "other"


# A record of a request is made of it, because logging would look at the stack, the thread and the process for each.
_RECORD = logging.makeLogRecord({"name": log.name, "msg": "request"}).__dict__


def _log_record(level: int, scope: Scope, context: RequestContext, route: str, seconds: float) -> logging.LogRecord:
    """What the log says of a request."""
    now = time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(
        _RECORD,
        levelno=level,
        levelname=logging.getLevelName(level),
        created=now,
        msecs=now % 1 * 1000,
        request_id=context.request_id,
        key=context.key.id,
        method=scope["method"],
        route=route,
        status=context.status,
        outcome=context.error_code or "ok",
        seconds=round(seconds, 6),
        **context.facts,
    )
    if route == _UNMATCHED:
        record.path = scope["path"][:_LONGEST_PATH]
    return record


class RequestChecks:
    """Knows callers by their keys, and refuses what must not come in.

    `admit` raises once a shutdown has begun. Requests that came before it are answered, however slow their bodies are.
    """

    def __init__(self, settings: Settings, keyring: Keyring, limits: KeyLimits, admit: Callable[[], None]) -> None:
        self._keyring = keyring
        self._use = KeyUse(settings.home)
        self._limits = limits
        self._admit = admit

    def key_of(self, headers: Mapping[str, str]) -> Key:
        """The caller's key, ANYONE where there are no keys. Raises MissingKey."""
        key = self._keyring.authenticate(_secret(headers))
        if key is not ANYONE:
            self._use.note(key.id)
        return key

    def admit(self, key: Key) -> None:
        """Raise Unavailable in a shutdown, and RateLimited above the key's limits."""
        self._admit()
        self.limit(key)

    def limit(self, key: Key) -> None:
        """Raise RateLimited above the key's limits."""
        if key is not ANYONE:
            self._limits.admit(key)


def is_open_page(scope: Scope) -> bool:
    """Whether a request is for a page that needs no key: `/` for browsers, which Ollama's clients use otherwise."""
    if scope["method"] not in {"GET", "HEAD"}:
        return False
    path: str = scope["path"]
    if path == "/":
        return "text/html" in Headers(scope=scope).get("accept", "")
    return path[1:].partition("/")[0] in _OPEN_PAGES


def _secret(headers: Mapping[str, str]) -> str | None:
    """The key that a request brings, wherever its client puts it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key") or headers.get("api-key")  # the second is Azure OpenAI's


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    # Not a secret: a random id without a system call, after which the thread would wait for Python's lock again.
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def require_own_host(hosts: Sequence[str], settings: Settings) -> None:
    """Refuse a request without a key that came under another name than loopback's or `--host`. Raises UnknownHost."""
    if not settings.insecure and not all(_is_own_host(host, settings.host) for host in hosts):
        raise UnknownHost(
            f"expected the host localhost or {settings.host}, got {hosts[0][:80]!r}: call the service by one of these,"
            " create a key with 'sonde keys create', or pass --insecure"
        )


@lru_cache(maxsize=16)
def _is_own_host(host: str, listening: str) -> bool:
    """Whether a Host header names loopback or the address to listen on, with any port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").lower().removesuffix(".")
    return name in {"localhost", listening.lower()} or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
