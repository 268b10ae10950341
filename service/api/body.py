"""Reading a JSON body: at most so many bytes, really UTF-8, really JSON, parsed by orjson."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from service.api.problems import path_of
from service.errors import BodyTooLarge, ClientGone, MalformedBody, UnsupportedMedia

# Python's own parser, which knows NaN, takes a moment for more; the error then names the byte alone.
_SEARCHED_BYTES = 2**18
_WITH_BODY = {"POST", "PUT", "PATCH"}


class JsonRequest(Request):
    """A request whose JSON has been read already."""

    raw: bytes = b""
    parsed: Any = None

    async def body(self) -> bytes:
        """What was read."""
        return self.raw

    async def json(self) -> Any:
        """What was parsed."""
        return self.parsed


async def read_json(request: Request) -> JsonRequest:
    """The request with its JSON. Raises UnsupportedMedia, BodyTooLarge, MalformedBody and ClientGone."""
    prepared = JsonRequest(request.scope, request.receive)
    prepared.raw = await _read(request, request.app.state.settings.max_body_bytes)
    prepared.parsed = _parse(prepared.raw)
    return prepared


class JsonRoute(APIRoute):
    """Reads and parses the body before FastAPI validates it, so that every way to fail is an error of ours."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that is read already."""
        handle = super().get_route_handler()
        optional = self.body_field is None or not self.body_field.field_info.is_required()

        async def read_then_handle(request: Request) -> Response:
            if request.method not in _WITH_BODY or (optional and _comes_without(request)):
                return await handle(request)
            return await handle(await read_json(request))

        return read_then_handle


def _comes_without(request: Request) -> bool:
    """Whether the caller sends no body at all, which is fine where all of it is optional."""
    return "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"


async def _read(request: Request, most: int) -> bytes:
    """The body, given up on at the first byte too many. The stated length is not trusted, only used to refuse early."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    family, _, name = kind.partition("/")
    if family != "application" or "/" in name or (name != "json" and not name.endswith("+json")):
        raise UnsupportedMedia(f"expected content-type application/json, got {kind[:80] or 'none'}")
    too_large = BodyTooLarge(f"the body may have {most} bytes: send fewer inputs a request")
    if request.headers.get("content-length", "0").isdigit() and int(request.headers.get("content-length", "0")) > most:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise too_large
    except ClientDisconnect:
        raise ClientGone("the caller hung up while sending") from None
    return bytes(body)


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if place := _not_a_number(body):
            raise MalformedBody(f"{place[0]}: expected a finite number, at most 1.8e308, got {place[1]}", param=place[0]) from None
        raise MalformedBody(f"the body is not JSON in UTF-8: {error}") from None


def _not_a_number(body: bytes) -> tuple[str, float] | None:
    """Where a body that is JSON but for NaN, Infinity and numbers as large has the first of those; None where that is not the fault."""
    if len(body) > _SEARCHED_BYTES:
        return None
    keys: list[int | str] = []
    try:
        rows: list[Iterator[tuple[int | str, Any]]] = [iter([("body", json.loads(body, parse_int=float))])]
    except (ValueError, RecursionError):
        return None
    while rows:
        for key, value in rows[-1]:
            if isinstance(value, float) and not math.isfinite(value):
                return path_of((*keys, key)) or "body", value
            if isinstance(value, dict | list):
                keys.append(key)
                rows.append(_children(value))
                break
        else:
            rows.pop()
            del keys[-1:]
    return None


def _children(value: dict[str, Any] | list[Any]) -> Iterator[tuple[int | str, Any]]:
    return iter(value.items()) if isinstance(value, dict) else enumerate(value)
