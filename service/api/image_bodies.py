"""Bodies that are no JSON: an image itself, or a form with images. Both become the fields of a JSON body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from service.errors import InvalidRequest

_MAX_OTHER_FIELDS = 32
_RAW = {"application/octet-stream"}
_FORM = "multipart/form-data"
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
# Fields whose values are strings whatever they look like.
_STRINGS = {"model"}


def is_image_body(headers: Mapping[str, str]) -> bool:
    """Whether the content type is an image's, or a form's."""
    kind = _media_type(headers)
    return kind.startswith("image/") or kind in _RAW or kind == _FORM


def is_form(headers: Mapping[str, str]) -> bool:
    """Whether the content type is a form's."""
    return _media_type(headers) == _FORM


def begins_like_image(raw: bytes) -> bool:
    """Whether bytes of no stated type are an image; Hugging Face's client states none."""
    return raw.startswith(_BEGINNINGS)


def read_image_body(raw: bytes, headers: Mapping[str, str], query: bytes, field: str, most: int) -> dict[str, Any]:
    """The body's fields, with images as bytes under `field`; the query's parameters are fields as well.

    Raises InvalidRequest for a form that cannot be read, or has more than `most` images.
    """
    fields = {name: _value(name, value) for name, value in parse_qsl(query.decode("latin-1"))[:_MAX_OTHER_FIELDS]}
    if is_form(headers):
        return fields | _read_form(raw, headers, field, most)
    return fields | {field: raw}


def _read_form(raw: bytes, headers: Mapping[str, str], field: str, most: int) -> dict[str, Any]:
    boundary = parse_options_header(headers["content-type"].encode("latin-1"))[1].get(b"boundary")
    if not boundary:
        raise InvalidRequest("the content-type multipart/form-data has no boundary", param="body")
    files: dict[str, list[bytes]] = {}
    fields: dict[str, Any] = {}

    def add_file(file: File) -> None:
        name = (file.field_name or b"").decode("utf-8", "replace")
        files.setdefault(field if name in {"file", "image", f"{field}[]"} else name, []).append(_content(file))
        if sum(map(len, files.values())) > most:
            raise InvalidRequest(f"the form has more than {most} files: send them in several requests", param=field)

    def add_field(part: Field) -> None:
        name = (part.field_name or b"").decode("utf-8", "replace")
        fields[name] = _value(name, (part.value or b"").decode("utf-8", "replace"))
        if len(fields) > _MAX_OTHER_FIELDS:
            raise InvalidRequest(f"expected at most {_MAX_OTHER_FIELDS} fields beside the images", param="body")

    parser = FormParser(_FORM, add_field, add_file, boundary=boundary, config={"MAX_MEMORY_FILE_SIZE": len(raw) + 1})
    try:
        parser.write(raw)
        parser.finalize()
    except FormParserError:
        raise InvalidRequest("the body is not multipart/form-data as its content-type says", param="body") from None
    return fields | dict(files)


def _content(file: File) -> bytes:
    file.file_object.seek(0)
    return file.file_object.read()


def _value(name: str, text: str) -> Any:
    """A field of a form or a query: JSON where it is some, else the text."""
    if name in _STRINGS:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
