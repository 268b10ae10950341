"""Calls over gRPC: the checks, limits, log lines and metrics that HTTP's requests have."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from fastapi import FastAPI

from models.errors import SondeError
from models.registry.registry import Registry
from service.api.request_context import RequestChecks, RequestContext, RequestReports
from service.api.tensors.inference import INLINE_BYTES
from service.auth import Scope
from service.config import Settings
from service.errors import ClientGone, DeadlineExceeded, MalformedBody
from service.inference_messages import SERVICE
from service.metrics import Metrics
from service.rpc.errors import INTERNAL, status_and_message
from service.rpc.fields import parse
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller

log = logging.getLogger(__name__)

# Fields of a message beside a text each: 1,000 inputs and outputs, with their parameters.
_OTHER_FIELDS = 16_384


@dataclass(frozen=True, slots=True)
class RpcCall:
    """A call that came in: the service's parts, its context, and its caller."""

    manager: ModelManager
    registry: Registry
    settings: Settings
    metrics: Metrics
    context: RequestContext
    caller: Caller


@dataclass(frozen=True, slots=True)
class RpcMethod:
    """A method of the service. Without a `scope`, it needs no key."""

    name: str
    answer: Callable[[Any, RpcCall], Awaitable[Any]]
    scope: Scope | None = "infer"

    @property
    def path(self) -> str:
        """As the log and the metrics have it."""
        return f"/{SERVICE}/{self.name}"


class Calls:
    """Answers calls of an application's callers."""

    def __init__(self, app: FastAPI) -> None:
        self._checks: RequestChecks = app.state.checks
        self._reports: RequestReports = app.state.reports
        self._parts = (app.state.manager, app.state.registry, app.state.settings, app.state.metrics)

    def handler(self, method: RpcMethod) -> Callable[[Any, Any], Awaitable[Any]]:
        """A method as grpc.aio calls it. It reads the message itself, once the key is known."""

        async def handle(_: Any, rpc: Any) -> Any:
            scope = {"type": "grpc", "method": "GRPC", "path": method.path, "route": method}
            headers = {name: value for name, value in rpc.invocation_metadata() or () if isinstance(value, str)}
            context = self._reports.begin(scope, headers)
            try:
                status, code, answer = await self._answer(method, rpc, headers, context)
            except asyncio.CancelledError:
                context.status, context.error_code = 499, ClientGone.code
                raise
            else:
                context.status = status
            finally:
                self._reports.end(scope, context)
            rpc.set_trailing_metadata(_trailing(context))
            if code is not None:
                await rpc.abort(code, answer)
            return answer

        return handle

    async def _answer(
        self, method: RpcMethod, rpc: Any, headers: dict[str, str], context: RequestContext
    ) -> tuple[int, grpc.StatusCode | None, Any]:
        """The status, and the answer; with an error's code, its message."""
        try:
            if method.scope is not None:
                context.key = self._checks.key_of(headers)
                self._checks.limit(context.key)  # in a shutdown, calls that were taken before are answered
                context.require_scope(method.scope)
            call = RpcCall(*self._parts, context, self._caller(rpc, context))
            return 200, None, await method.answer(await self._read(method, rpc), call)
        except SondeError as error:
            status, code, message = status_and_message(error)
            if status == 500:
                log.exception("request failed: %s", error.message)
            context.error_code = error.code
            return status, code, message
        except Exception:
            log.exception("unexpected error", extra={"request_id": context.request_id})
            context.error_code = "internal_error"
            return 500, grpc.StatusCode.INTERNAL, INTERNAL

    async def _read(self, method: RpcMethod, rpc: Any) -> Any:
        """The request's message. Raises BodyTooLarge, MalformedBody, and DeadlineExceeded where it does not come."""
        settings: Settings = self._parts[2]
        try:
            async with asyncio.timeout(settings.default_timeout_s):
                content = await rpc.read()
        except TimeoutError:
            raise DeadlineExceeded(f"the message did not come within {settings.default_timeout_s:g} s") from None
        if content is grpc.aio.EOF:
            raise MalformedBody("expected a message, got none")
        work = partial(parse, f"{method.name}Request", content, 2 * settings.max_inputs + _OTHER_FIELDS)
        return await asyncio.to_thread(work) if len(content) > INLINE_BYTES else work()

    def _caller(self, rpc: Any, context: RequestContext) -> Caller:
        """The caller with its deadline. Fairness is between keys, or between addresses where keys are not in use."""
        settings: Settings = self._parts[2]
        client = context.key.id if context.key.digest else _address(rpc.peer())
        remaining = rpc.time_remaining()
        if remaining is not None:
            return Caller(client, time.monotonic() + remaining)
        patience = settings.default_timeout_s
        return Caller(client, time.monotonic() + patience, patience)


def _address(peer: str) -> str:
    """`ipv4:127.0.0.1:5000` → `127.0.0.1`."""
    return peer.partition(":")[2].rpartition(":")[0]


def _trailing(context: RequestContext) -> tuple[tuple[str, str], ...]:
    """What HTTP's answers say in headers."""
    fields = {
        "x-request-id": context.request_id,
        "x-sonde-error": context.error_code,
        "x-sonde-model": str(context.facts.get("model", "")),
    }
    return tuple((name, value) for name, value in fields.items() if value)
