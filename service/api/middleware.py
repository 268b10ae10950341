"""The general way of requests: a context for each, a key, and the refusal of foreign pages."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import error_responses
from service.api.foreign_pages import allow_origins, refuse_foreign_page
from service.api.request_context import (
    OPEN_PATHS,
    WATCHING_PATHS,
    RequestChecks,
    RequestContext,
    RequestReports,
    is_open_page,
)
from service.auth import ANYONE
from service.config import Settings
from service.errors import ExpiredKey, MissingKey


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
        page = is_open_page(scope)
        try:
            context.key = self._checks.key_of(headers)
        except (MissingKey, ExpiredKey):
            if page:
                return
            raise
        if context.key is ANYONE:
            refuse_foreign_page(scope["method"], headers, self._settings)
        if not page and scope["path"] not in WATCHING_PATHS:
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
