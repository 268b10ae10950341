"""Reads JSON bodies: limits their bytes and their lists, and parses them with orjson."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from fastapi._compat import ModelField
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope

from service.api.body_counts import BodyCounts
from service.api.image_bodies import begins_like_image, is_form, is_image_body, read_image_body
from service.api.json_fault import malformed_body
from service.api.readings_parts import MISSING, READINGS, cut_readings, mark_missing
from service.api.schemas.requests import require_count
from service.config import Settings
from service.errors import BodyTooLarge, ClientGone, MalformedBody, UnsupportedMedia

T = TypeVar("T")
# An input has at most one list or object; a body has few others. The routes themselves refuse up to twice the allowed
# inputs, because they can name the parameter.
_LISTS_PER_INPUT, _OTHER = 2, 1000
# An input is a text, or an object with the text's name; so is each of the labels.
_STRINGS_PER_INPUT = 8
# Content types of nearly all bodies; some clients (LiteLLM for Voyage) name none.
_USUAL_TYPES = ("", "application/json")
# A body up to here is parsed at once, in a few milliseconds.
_INLINE_BYTES = 256 * 1024
# Parts of a body are joined at this number: as an object each, a slow sender's few bytes take 20 times as much.
_MOST_PARTS = 4096
# Parsing a large body takes several times its memory, so one thread does it, one body at a time.
_PARSE_THREAD = ThreadPoolExecutor(1, "bodies")
# No body has this number of fields; one with more is cut, because pydantic describes each unknown field.
_MAX_FIELDS = 256
_WITH_BODY = {"POST", "PUT", "PATCH"}
IMAGES = "images"


class JsonRequest(Request):
    """A request whose JSON body is already read."""

    def __init__(self, scope: Scope, receive: Receive, raw: bytes, parsed: Any) -> None:
        super().__init__(scope, receive)
        self.raw = raw
        self.parsed = parsed

    async def body(self) -> bytes:
        """The bytes that came."""
        return self.raw

    async def json(self) -> Any:
        """The parsed body."""
        return self.parsed


async def read_json(
    scope: Scope,
    receive: Receive,
    headers: Mapping[str, str],
    settings: Settings,
    *,
    with_readings: bool,
    image_field: str | None = None,
) -> JsonRequest:
    """Read and parse the body of a route, which may have readings, or images in `image_field`.

    Raises UnsupportedMedia, BodyTooLarge, MalformedBody, InvalidRequest for too many items, and ClientGone.
    """
    kind = headers.get("content-type", "")
    is_image = image_field is not None and kind not in _USUAL_TYPES and is_image_body(headers)
    if not is_image:
        _require_json(kind, or_image=image_field is not None)
    raw = await read_bytes(receive, headers, settings.max_body_bytes)
    if image_field is not None and (is_image or ("content-type" not in headers and begins_like_image(raw))):
        sent = raw, headers, scope.get("query_string", b""), image_field, settings.max_inputs
        is_large_form = len(raw) > _INLINE_BYTES and is_form(headers)
        fields = await _run_in_parse_thread(read_image_body, *sent) if is_large_form else read_image_body(*sent)
        return JsonRequest(_as_json(scope), receive, raw, fields)
    parsed = _cut_fields(await _parse(raw, with_readings, settings))
    if len(raw) > 2 * settings.max_inputs:  # a shorter body cannot have too many items
        _require_few_items(parsed, "", "", settings)
    return JsonRequest(scope, receive, raw, parsed)


class JsonRoute(APIRoute):
    """Reads and parses the body before FastAPI does, so every failure is an error of ours."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request whose body is already read."""
        handle = super().get_route_handler()
        optional = self.body_field is None or not self.body_field.field_info.is_required()
        with_readings, field = takes_readings(self.body_field), image_field(self.body_field)

        async def read_then_handle(request: Request) -> Response:
            if request.method not in _WITH_BODY or (optional and _has_no_body(request)):
                return await handle(request)
            settings: Settings = request.app.state.settings
            read = read_json(
                request.scope,
                request.receive,
                request.headers,
                settings,
                with_readings=with_readings,
                image_field=field,
            )
            return await handle(await read)

        return read_then_handle


def takes_readings(body_field: ModelField | None) -> bool:
    """Whether the body may have readings, whose columns are strings too."""
    kind = body_field.field_info.annotation if body_field is not None else None
    return isinstance(kind, type) and issubclass(kind, BaseModel) and not kind.model_fields.keys().isdisjoint(READINGS)


def image_field(body_field: ModelField | None) -> str | None:
    """The field of a body that takes images, as raw bytes or parts of a form; None where there is none."""
    kind = body_field.field_info.annotation if body_field is not None else None
    if kind is Any:  # Hugging Face's
        return "inputs"
    has_images = isinstance(kind, type) and issubclass(kind, BaseModel) and IMAGES in kind.model_fields
    return IMAGES if has_images else None


def _as_json(scope: Scope) -> Scope:
    """The scope with the content type of the fields that the body became, so that FastAPI takes them as they are."""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _has_no_body(request: Request) -> bool:
    return "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"


async def read_bytes(receive: Receive, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """Read the body, and stop at the first byte too many. Raises BodyTooLarge, and ClientGone.

    The stated length only serves to refuse early.
    """
    stated = headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise _body_too_large(max_bytes, stated)
    parts: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the caller hung up while sending")
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        more = message.get("more_body", False)
        if length > max_bytes:
            raise _body_too_large(max_bytes, "more")
        if len(parts) == _MOST_PARTS:
            parts = [b"".join(parts)]
    return b"".join(parts)


def _require_json(content_type: str, *, or_image: bool) -> None:
    """Refuse other content types. `or_image` says that the route takes images and forms as well."""
    if content_type in _USUAL_TYPES:
        return
    kind = content_type.partition(";")[0].strip().lower()
    family, _, name = kind.partition("/")
    if family != "application" or "/" in name or (name != "json" and not name.endswith("+json")):
        others = " (or image/jpeg and the like for an image, multipart/form-data for a form)" if or_image else ""
        raise UnsupportedMedia(f"expected content-type application/json{others}, got {kind[:80] or 'none'}")


def _body_too_large(max_bytes: int, got: str) -> BodyTooLarge:
    limit = f"expected a body of at most {max_bytes} bytes, as --max-body-bytes says"
    return BodyTooLarge(f"{limit}, got {got[:20]}: send fewer or smaller inputs a request")


async def _parse(body: bytes, with_readings: bool, settings: Settings) -> Any:
    """The body. JSON has no NaN, which pandas and NumPy send for a missing reading; a failure looks for it."""
    try:
        return await _parse_json(body, with_readings, settings)
    except orjson.JSONDecodeError as error:
        marked = await _run_in_parse_thread(mark_missing, body) if with_readings else body
        if marked == body:
            raise await _run_in_parse_thread(malformed_body, error) from None
        fault = error
    try:
        return await _parse_json(await _run_in_parse_thread(marked.replace, MISSING, b"null"), with_readings, settings)
    except orjson.JSONDecodeError:
        raise await _run_in_parse_thread(_malformed_readings, fault, marked) from None


async def _parse_json(body: bytes, with_readings: bool, settings: Settings) -> Any:
    if len(body) > _INLINE_BYTES:
        return await _run_in_parse_thread(_parse_large, body, with_readings, settings)
    if not with_readings and len(body) > _OTHER:  # a shorter one cannot hold too much
        _body_limits(settings).require_within(body)
    return _loads(body)


async def _run_in_parse_thread(work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_PARSE_THREAD, work, *arguments)


def _parse_large(body: bytes, with_readings: bool, settings: Settings) -> Any:
    if with_readings:
        return _without_garbage_collection(_parse_with_readings, body, settings)
    _body_limits(settings).require_within(body)
    return _loads(body)


def _parse_with_readings(body: bytes, settings: Settings) -> Any:
    """Parse readings part by part, and the rest at once, if it is little."""
    cut = cut_readings(body, settings.max_readings)
    _body_limits(settings).require_within(cut.rest)
    parsed = orjson.loads(cut.rest)
    if cut.restore(parsed):
        return parsed
    _body_limits(settings).require_within(body)  # the lists are another object's, or the first of two of one name
    return orjson.loads(body)


def _body_limits(settings: Settings) -> BodyCounts:
    """What a body may hold beside readings."""
    strings = _OTHER + _STRINGS_PER_INPUT * settings.max_inputs
    return BodyCounts(
        strings=strings,
        lists=_OTHER + _LISTS_PER_INPUT * max(settings.max_inputs, settings.max_readings),
        values=strings + settings.max_request_tokens,
    )


def _loads(body: bytes) -> Any:
    return _without_garbage_collection(orjson.loads, body)


def _without_garbage_collection(work: Callable[..., T], *arguments: Any) -> T:
    """Do work with Python's garbage collector off, which would traverse all lists built so far.

    Only the call that switched the collector off switches it on again, whatever other threads do meanwhile.
    """
    if not gc.isenabled():
        return work(*arguments)
    gc.disable()
    try:
        return work(*arguments)
    finally:
        gc.enable()


def _cut_fields(body: Any) -> Any:
    """The body without most of its unknown fields, of which one is enough to refuse it."""
    if not isinstance(body, dict) or len(body) <= _MAX_FIELDS:
        return body
    return dict(islice(body.items(), _MAX_FIELDS))


def _require_few_items(node: Any, param: str, name: str, settings: Settings) -> None:
    """Raise InvalidRequest for a list or object that no route takes, before its items are checked one by one.

    The routes count too, exactly, and only once they know that each item is valid.
    """
    most = max(settings.max_inputs, _MAX_FIELDS)
    if isinstance(node, dict):
        require_count(len(node), most, param)
        for key, value in node.items():
            if isinstance(value, list | dict):
                _require_few_items(value, f"{param}.{key}" if param else key, key, settings)
    elif isinstance(node, list) and name in READINGS:
        require_count(len(node), settings.max_readings, param)
    elif isinstance(node, list) and node:
        ids = isinstance(node[0], int | float)
        require_count(len(node), max(settings.max_request_tokens, most) if ids else most, param)
        inner = sum(len(item) for item in node if isinstance(item, list | dict))
        require_count(inner, max(settings.max_request_tokens, most), param)


def _malformed_readings(error: orjson.JSONDecodeError, marked: bytes) -> MalformedBody:
    """The parser's error in a whole body with readings, at its place as it came: 0.0 is as long as NaN."""
    try:
        _loads(marked.replace(MISSING, b"0.0"))
    except orjson.JSONDecodeError as found:
        error = found
    return malformed_body(error)
