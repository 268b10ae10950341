"""The context of every request: its id, its key, its time, one log line, and its metrics."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import SondeError
from service.api import error_responses
from service.api.foreign_pages import allow_origins, refuse_foreign_page
from service.auth import ANYONE, Key, Keyring
from service.auth import Scope as KeyScope
from service.config import Settings
from service.errors import ClientGone, RateLimited, ScopeDenied, Unavailable
from service.key_limits import KeyLimits
from service.key_use import KeyUse
from service.metrics import Metrics

log = logging.getLogger("sonde.requests")

# Names by which other systems ask for the health.
PROBE_ALIASES = {"/healthz", "/livez", "/readyz", "/ping"}
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


class ContextMiddleware:
    """Authenticates every request and reports on it.

    Denied by default: as soon as a key exists, every path needs one, even a path that does not exist. Probes and the
    files of the console and the documentation are open.
    Without keys, web pages of other origins are refused.
    `admit` raises once a shutdown has begun. Requests that came before it are answered, however slow their bodies are.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, keyring: Keyring, metrics: Metrics, admit: Callable[[], None]
    ) -> None:
        self._app = app
        self._settings = settings
        self._keyring = keyring
        # Each process counts for itself, and connections are shared out evenly.
        self._limits = KeyLimits(1 / max(settings.workers, settings.fronts, 1))
        self._use = KeyUse(settings.home)
        self._metrics = metrics
        self._admit = admit
        self._answering = allow_origins(self._answer, settings.cors_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and report on it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(_request_id(Headers(scope=scope)))
        scope.setdefault("state", {})["context"] = context
        began = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            await self._answering(scope, receive, _WatchedSend(send, context))
        self._report(scope, context, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["state"]["context"]
        headers = Headers(scope=scope)
        try:
            if scope["path"] not in OPEN_PATHS and not _is_open_page(scope):
                context.key = self._keyring.authenticate(_secret(headers))
                if context.key is ANYONE:
                    refuse_foreign_page(scope["method"], headers, self._settings)
                else:
                    self._use.note(context.key.id)
                if scope["path"] not in _WATCHING_PATHS:
                    self._admit()
                    self._limits.admit(context.key)
            await self._app(scope, receive, send)
        except SondeError as error:
            await error_responses.error_response(error, scope["path"])(scope, receive, send)
        except asyncio.CancelledError:  # uvicorn cancels requests at the end of a shutdown
            if not context.status:
                problem = Unavailable("the service is shutting down")
                await error_responses.error_response(problem, scope["path"])(scope, receive, send)
        except Exception:
            log.exception("unexpected error", extra={"request_id": context.request_id})
            if not context.status:
                await error_responses.internal(scope["path"])(scope, receive, send)

    def _report(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        self._metrics.requests.labels(route, str(context.status)).inc()
        self._metrics.latency.labels(route).observe(seconds)
        if context.error_code:
            self._metrics.errors.labels(context.error_code).inc()
        if context.error_code == ClientGone.code:
            self._metrics.client_gone.inc()
        if context.error_code == "deadline_exceeded":
            self._metrics.deadline_missed.inc()
        quiet = scope["path"] in _WATCHING_PATHS or _is_open_page(scope)
        if not quiet:
            self._count_use(context)
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={
                "request_id": context.request_id,
                "key": context.key.id,
                "method": scope["method"],
                "route": route,
                "status": context.status,
                "outcome": context.error_code or "ok",
                "seconds": round(seconds, 6),
                **({"path": scope["path"][:_LONGEST_PATH]} if route == _UNMATCHED else {}),
                **context.facts,
            },
        )

    def _count_use(self, context: RequestContext) -> None:
        """Count a request and its tokens for its key, and against the key's limits."""
        tokens = context.facts.get("tokens", 0)
        used = tokens if isinstance(tokens, int) else 0
        self._limits.charge(context.key, used)
        self._metrics.count_key(context.key.id, context.status, used, limited=context.error_code == RateLimited.code)


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


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    # Not a secret: a random id without a system call, after which the thread would wait for Python's lock again.
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _secret(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-api-key") or headers.get("api-key")  # the second is Azure OpenAI's
