"""Bodies that come compressed, and answers that leave so; other requests pass through."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import MalformedBody, UnsupportedMedia

# Bytes that are unpacked at a time: the reader of the body counts them, and stops at its limit.
_PIECE_BYTES = 256 * 1024
# Smaller answers gain less than the work costs. Larger ones than the second size are compressed in a thread.
LEAST_BYTES, _THREAD_BYTES = 1024, 32 * 1024
# Level 1 compresses JSON to half its size in a quarter of the time of level 6.
_LEVEL = 1
# Uploaded files go back as they came; most are compressed by themselves.
_UNCOMPRESSED_TYPES = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")
NAMES = ("gzip", "deflate", "br", "zstd")
_MAX_ZSTD_WINDOW_LOG = 23  # 8 MiB, RFC 9659


class _Decompressor(Protocol):
    """Unpacks a stream piece by piece.

    `decompress` gives at most about `_PIECE_BYTES`; call it with nothing until it gives nothing. It raises an error of
    its library for other data.
    """

    @property
    def is_complete(self) -> bool: ...

    def decompress(self, data: bytes) -> bytes: ...


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)

    @property
    def is_complete(self) -> bool:
        return self._inner.eof and not self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _PIECE_BYTES)


class _Zstd:
    def __init__(self) -> None:
        # Imported here, since few callers need it.
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW_LOG})

    @property
    def is_complete(self) -> bool:
        return self._inner.eof and not self._inner.unused_data

    def decompress(self, data: bytes) -> bytes:
        if self._inner.eof and not data:
            return b""
        piece: bytes = self._inner.decompress(data, _PIECE_BYTES)
        return piece


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._inner = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._inner.is_finished())

    def decompress(self, data: bytes) -> bytes:
        if self.is_complete and not data:
            return b""
        piece: bytes = self._inner.process(data, output_buffer_limit=_PIECE_BYTES)
        return piece


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    "x-gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
    "br": _Brotli,
    "zstd": _Zstd,
}


class ContentEncodingMiddleware:
    """Unpacks bodies with a Content-Encoding, and compresses answers by gzip where Accept-Encoding allows it.

    The limits on bodies apply to the unpacked bytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressing = compressing(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Raises UnsupportedMedia for an encoding that is not known."""
        app, encoding = self._app, b""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"accept-encoding" and accepts_gzip(value.decode("latin-1")):
                    app = self._compressing
                elif name == b"content-encoding":
                    encoding = value
        if encoding and (decompressor := _decompressor(encoding)) is not None and _has_body(scope):
            receive = _UnpackingReceive(receive, decompressor, _name(encoding))
            scope["headers"] = _headers_of_unpacked(scope["headers"])
        await app(scope, receive, send)


def compressing(app: ASGIApp) -> ASGIApp:
    """The application, or one response, whose answers are compressed by gzip where that is worth it."""
    return GZipMiddleware(
        app,
        minimum_size=LEAST_BYTES,
        compresslevel=_LEVEL,
        thread_minimum_size=_THREAD_BYTES,
        exclude_content_types=_UNCOMPRESSED_TYPES,
    )


class _UnpackingReceive:
    """`receive` of a request whose body is unpacked on the way."""

    def __init__(self, receive: Receive, decompressor: _Decompressor, encoding: str) -> None:
        self._receive = receive
        self._decompressor = decompressor
        self._encoding = encoding
        self._more_to_come = True
        self._more_to_unpack = False

    async def __call__(self) -> Message:
        """The next unpacked piece. Raises MalformedBody."""
        if not (self._more_to_come or self._more_to_unpack):
            return await self._receive()
        packed = b""
        if self._more_to_unpack:
            await asyncio.sleep(0)  # other callers get their turn between the pieces
        else:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            packed, self._more_to_come = message.get("body", b""), message.get("more_body", False)
        piece = self._unpack(packed)
        self._more_to_unpack = bool(piece)
        more = self._more_to_come or self._more_to_unpack
        if not more and not self._decompressor.is_complete:
            raise self._malformed()
        return {"type": "http.request", "body": piece, "more_body": more}

    def _unpack(self, packed: bytes) -> bytes:
        try:
            return self._decompressor.decompress(packed)
        except Exception as error:  # each library has an error of its own, and brotli's is no public name
            raise self._malformed() from error

    def _malformed(self) -> MalformedBody:
        return MalformedBody(f"the body is not {self._encoding}, as its content-encoding says")


def _name(encoding: bytes) -> str:
    return encoding.decode("latin-1").strip().lower()


def _decompressor(encoding: bytes) -> _Decompressor | None:
    """What unpacks an encoding; None for `identity`. Raises UnsupportedMedia."""
    name = _name(encoding)
    if name == "identity":
        return None
    if name not in _DECOMPRESSORS:
        *most, last = NAMES
        raise UnsupportedMedia(
            f"content-encoding: expected {', '.join(most)} or {last}, got {name[:80]!r}: send the body by one of these "
            "or plain",
            param="content-encoding",
        )
    return _DECOMPRESSORS[name]()


def _has_body(scope: Scope) -> bool:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )


def _headers_of_unpacked(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of the same request with a plain body, whose length is not known."""
    about_packed = {b"content-encoding", b"content-length", b"transfer-encoding"}
    return [*(header for header in headers if header[0] not in about_packed), (b"transfer-encoding", b"chunked")]


@lru_cache(maxsize=64)
def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with the weight 0."""
    for part in accepted.split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False
