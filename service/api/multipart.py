"""Reads a multipart upload: the file goes to disk, small fields stay in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.errors import BodyTooLarge, ClientGone, InvalidRequest, UnsupportedMedia
from service.jobs.backend import JobBackend

if TYPE_CHECKING:
    from service.jobs.files import IncomingFile

FILE_FIELD = "file"
_NAMELESS = b"upload"  # the name of a file whose part has none; it is JSONL, as clients send bytes
_START_BYTES, _JSON_STARTS = 64, ("{", "[")
_MAX_FIELD_BYTES = 4096
_MAX_PARTS = 16
# Limit of everything beside the file: boundaries, headers, fields.
OVERHEAD_BYTES = 64 * 1024


@dataclass(slots=True)
class Form:
    """The file's name and the fields beside it."""

    filename: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


async def read_upload(request: Request, incoming: IncomingFile, jobs: JobBackend) -> Form:
    """Write the part called `file` to `incoming`, in threads; return the rest.

    Raises UnsupportedMedia, BodyTooLarge, InvalidRequest, StorageFull, Unavailable when the disk hangs, and ClientGone
    when the caller hangs up.
    """
    reader = _Reader(_require_boundary(request))
    _refuse_early(request, incoming)
    try:
        async for chunk in request.stream():
            pieces = reader.feed(chunk)
            if pieces:
                await jobs.run_on_disk(_write, incoming, pieces)
    except ClientDisconnect:
        raise ClientGone("the caller hung up while sending") from None
    return reader.finish()


def _write(incoming: IncomingFile, pieces: list[bytes]) -> None:
    for piece in pieces:
        incoming.write(piece)


def _require_boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedMedia(
            f"expected content-type multipart/form-data with a boundary, got {kind.decode('latin-1')[:80] or 'none'}"
        )
    if len(boundary) > 256:
        raise UnsupportedMedia("the multipart boundary is longer than 256 characters")
    return boundary


def _refuse_early(request: Request, incoming: IncomingFile) -> None:
    """Refuse by the stated length, which is not trusted otherwise."""
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated[:20]) > incoming.max_bytes + OVERHEAD_BYTES:
        raise incoming.too_large(f"a body of {stated[:20]}")


class _Reader:
    """Callbacks of the parser: separates the file's bytes from the fields'."""

    def __init__(self, boundary: bytes) -> None:
        self._form = Form()
        self._parts = 0
        self._name = ""
        self._is_file = self._is_nameless = False
        self._complete = False
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._value = bytearray()
        self._pieces: list[bytes] = []
        self._outside = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._name_part,
                "on_end": self._complete_body,
            },
        )

    def feed(self, chunk: bytes) -> list[bytes]:
        """Parse a chunk; return the pieces of the file in it."""
        self._pieces = []
        if self._complete:
            self._count_outside(len(chunk))
            return []
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidRequest("the body is not multipart/form-data as its content-type says", param="body") from None
        self._count_outside(len(chunk) - sum(map(len, self._pieces)))
        return self._pieces

    def finish(self) -> Form:
        """The form. Raises InvalidRequest when the body is incomplete or has no file."""
        if not self._complete:
            raise InvalidRequest("the body ends before its last part does", param="body")
        if self._form.filename is None:
            raise InvalidRequest.at(FILE_FIELD, "expected a part called 'file', got none; curl: -F file=@rows.csv")
        return self._form

    def _count_outside(self, size: int) -> None:
        self._outside += size
        if self._outside > OVERHEAD_BYTES:
            raise BodyTooLarge(
                f"expected at most {OVERHEAD_BYTES} bytes beside the file, got more: leave other parts out"
            )

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"expected at most {_MAX_PARTS} parts", param="body")
        self._headers, self._value, self._header = {}, bytearray(), (bytearray(), bytearray())

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _name_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == FILE_FIELD or b"filename" in options
        self._is_nameless = self._is_file and b"filename" not in options
        if self._is_file:
            if self._name != FILE_FIELD or self._form.filename is not None:
                raise InvalidRequest("expected one file, in a part called 'file'", param=self._name or "body")
            name = options.get(b"filename") or _NAMELESS
            self._form.filename = name.decode("utf-8", "replace").replace("\0", "\ufffd")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append(piece := data[start:end])
            self._value.extend(piece[: _START_BYTES - len(self._value)])
            return
        self._value.extend(data[start:end])
        if len(self._value) > _MAX_FIELD_BYTES:
            raise InvalidRequest(f"{self._name}: expected at most {_MAX_FIELD_BYTES} bytes", param=self._name)

    def _end_part(self) -> None:
        if self._is_nameless:
            self._require_json()
        if not self._is_file:
            self._form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _require_json(self) -> None:
        """Refuse what a form's text may have in a file's place: the file's name, where curl's @ is forgotten."""
        start = self._value.decode("utf-8-sig", "replace").lstrip()
        if start and not start.startswith(_JSON_STARTS):
            advice = "curl sends a file, with its name, by @: -F file=@rows.csv"
            raise InvalidRequest.at(FILE_FIELD, f"expected JSONL in a file without a name, got {start!r}; {advice}")

    def _complete_body(self) -> None:
        self._complete = True
