"""Reading a JSON body: at most so many bytes, really UTF-8, really JSON, parsed by orjson."""

from __future__ import annotations

import asyncio
import gc
import math
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from service.api.error_responses import path_of
from service.api.position import count_outside_strings, path_to
from service.api.schemas.fields import brief
from service.errors import BodyTooLarge, ClientGone, MalformedBody, UnsupportedMedia

T = TypeVar("T")
# An input is one list or object at most, few are beside. Up to twice as many inputs are counted by the routes, which
# name the parameter.
_LISTS_PER_INPUT, _LISTS_BESIDE = 2, 1000
# Also as C and Python print them, which JSON knows as little.
_NUMBER = re.compile(rb"-?(?:(?i:nan|inf|infinity)\b|[0-9][0-9.eE+-]*)")
# To look through a large body takes half a second and ten times its memory.
_ONE_AT_A_TIME = ThreadPoolExecutor(1, "bodies")
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
    settings = request.app.state.settings
    prepared.raw = await _read(request, settings.max_body_bytes)
    most_lists = _LISTS_BESIDE + _LISTS_PER_INPUT * max(settings.max_readings, settings.max_inputs)
    prepared.parsed = await _parsed(prepared.raw, most_lists)
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


async def _parsed(body: bytes, most_lists: int) -> Any:
    if len(body) > most_lists and body.count(b"[") + body.count(b"{") > most_lists:
        await _apart(_require_few_lists, body, most_lists)
    try:
        return _loads(body)
    except orjson.JSONDecodeError as error:
        raise await _apart(_fault, body, error) from None


async def _apart(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_ONE_AT_A_TIME, work, *arguments)


def _require_few_lists(body: bytes, most: int) -> None:
    """Refuse what would take long to make for nothing. Brackets in texts are no lists; NaN the parser refuses before
    it makes any.
    """
    count, unparsable = count_outside_strings(body, b"[{", b"NI")
    if count > most and not unparsable:
        raise BodyTooLarge(f"the body has {count} lists and objects, it may have {most}: send fewer inputs a request")


def _loads(body: bytes) -> Any:
    """What a body says. Meanwhile the garbage collector waits: it would look through all lists made so far, again
    and again.

    Only who has switched it off switches it on again: so it ends as it was, whatever other threads do.
    """
    if not gc.isenabled():
        return orjson.loads(body)
    gc.disable()
    try:
        return orjson.loads(body)
    finally:
        gc.enable()


def _fault(body: bytes, error: orjson.JSONDecodeError) -> MalformedBody:
    """What is wrong with a body, with its place where that is a number which is not finite: the parser stops at the
    first fault.
    """
    at = len(error.doc[: error.pos].encode())
    at -= body[at - 1 : at] == b"-"
    if (came := _not_finite(body, at)) and (path := path_to(body, at)) is not None:
        place = path_of(("body", *path)) or "body"
        return MalformedBody(
            f"{place}: expected a finite number (float64, at most 1.8e308 either way), got {brief(came)}", param=place
        )
    return MalformedBody(f"the body is not JSON in UTF-8: {error}")


def _not_finite(body: bytes, at: int) -> str | None:
    """The number at a byte, as it is written, if it is NaN, infinite or too large."""
    found = _NUMBER.match(body, at)
    try:
        return found[0].decode() if found and not math.isfinite(float(found[0])) else None
    except ValueError:
        return None
