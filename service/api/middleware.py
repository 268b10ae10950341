"""The context of every request: its id, its key, its time, one log line, and its metrics."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import error_responses
from service.api.foreign_pages import allow_origins, refuse_foreign_page
from service.auth import ANYONE, Key, Keyring
from service.auth import Scope as KeyScope
from service.config import Settings
from service.errors import ClientGone, DeadlineExceeded, ExpiredKey, MissingKey, RateLimited, ScopeDenied
from service.key_limits import KeyLimits
from service.key_use import KeyUse
from service.logs import REQUESTS
from service.metrics import Metrics

log = logging.getLogger(REQUESTS)

# Names by which other systems ask for the health.
PROBE_ALIASES = {"/healthz", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"}
OPEN_PATHS = {"/health", "/health/live", "/health/ready", "/version", *PROBE_ALIASES}
_WATCHING_PATHS = OPEN_PATHS | {"/metrics"}
# The console and the documentation with their files. They hold no data; browsers send no key to open a page.
_OPEN_PAGES = {"console", "docs", "openapi.json", "static-offline-docs"}
_UNMATCHED = "unmatched"
_LONGEST_PATH = 200
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


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
        quiet = scope["path"] in _WATCHING_PATHS or _is_open_page(scope)
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
        self._metrics.count_key(context.key.id, context.status, used, limited=context.error_code == RateLimited.code)


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


class ContextMiddleware:
    """Authenticates every request and reports on it.

    Denied by default: as soon as a key exists, every path needs one, even a path that does not exist. Probes and the
    files of the console and the documentation are open.
    Without keys, web pages of other origins are refused.
    """

    def __init__(self, app: ASGIApp, settings: Settings, checks: RequestChecks, reports: RequestReports) -> None:
        self._app = app
        self._settings = settings
        self._checks = checks
        self._reports = reports
        self._answering = allow_origins(self._answer, settings.cors_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and report on it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._reports.begin(scope, Headers(scope=scope))
        try:
            await self._answering(scope, receive, _WatchedSend(send, context))
        finally:
            self._reports.end(scope, context)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["state"]["context"]
        headers = Headers(scope=scope)
        try:
            if scope["path"] not in OPEN_PATHS:
                self._let_in(scope, headers, context)
            await self._app(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            response = error_responses.response_to(error, scope["path"], context.request_id)
            if not context.status:
                await response(scope, receive, send)

    def _let_in(self, scope: Scope, headers: Headers, context: RequestContext) -> None:
        """Set the caller's key. Raises MissingKey (not for open pages), and what refuses foreign pages and too many."""
        page = _is_open_page(scope)
        try:
            context.key = self._checks.key_of(headers)
        except (MissingKey, ExpiredKey):
            if page:
                return
            raise
        if context.key is ANYONE:
            refuse_foreign_page(scope["method"], headers, self._settings)
        if not page and scope["path"] not in _WATCHING_PATHS:
            self._checks.admit(context.key)


class _WatchedSend:
    """Adds the request's id to the response, and keeps the response's status and error code."""

    def __init__(self, send: Send, context: RequestContext) -> None:
        self._send = send
        self._context = context

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._context.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._context.request_id
            self._context.error_code = headers.get("x-sonde-error", "")
        await self._send(message)


def _is_open_page(scope: Scope) -> bool:
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
