"""Fields with images: base64, data URIs, and the bytes of a form or a raw body."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pybase64 import b64decode
from pydantic import PlainValidator, WithJsonSchema

from service.api.schemas.requests import MAX_INPUTS, SingleInput, check_text, kind_of
from service.errors import InvalidRequest

# What may be the name of a file, which curl sends as it is where its @ is forgotten.
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_AS_FILE = ", which names a file; curl sends the file itself with @ before its name"
_LONGEST_SHOWN, _LONGEST_NAME = 40, 255
IMAGE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "pattern": r"^(data:image/[a-z0-9.+-]+;base64,)?[A-Za-z0-9+/=]+$",
}
IMAGE_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"image": IMAGE_SCHEMA},
    "required": ["image"],
    "additionalProperties": False,
}


@dataclass(slots=True)
class EncodedImage:
    """An image as it came; a call gives its bytes, which then take the place of their base64."""

    source: str | bytes
    param: str

    @property
    def url(self) -> str | None:
        """Where the image is to be fetched; None where it came itself."""
        is_url = isinstance(self.source, str) and self.source[:8].lower().startswith(("http://", "https://"))
        return str(self.source) if is_url else None

    def __call__(self) -> bytes:
        """The image's bytes. Raises InvalidRequest for a string that is neither base64 nor a data URI of it."""
        if isinstance(self.source, str):
            self.source = self._decode(self.source)
        return self.source

    def _decode(self, source: str) -> bytes:
        head, comma, content = source.partition(",")
        if comma and not head.endswith(";base64"):
            raise self._refusal("base64 after the comma of a data URI, data:image/png;base64,…", source)
        text = content if comma else head
        with suppress(ValueError):  # few break lines
            return b64decode(text, validate=True)
        try:
            return b64decode("".join(text.split()), validate=True)
        except ValueError:
            raise self._refusal("an image as base64 or as a data URI", source) from None

    def _refusal(self, expected: str, source: str) -> InvalidRequest:
        hint = _AS_FILE if source.lower().endswith(_ENDINGS) else ""
        return InvalidRequest.at(self.param, f"expected {expected}; got {source[:_LONGEST_SHOWN]!r}{hint}")


def check_image(value: object, param: str) -> EncodedImage:
    """The value, if it may be an image or the URL of one. Raises InvalidRequest."""
    if isinstance(value, bytes):
        if len(value) <= _LONGEST_NAME and (name := value.decode("latin-1")).lower().endswith(_ENDINGS):
            raise InvalidRequest.at(param, f"expected the bytes of an image; got {name[:_LONGEST_SHOWN]!r}{_AS_FILE}")
        return EncodedImage(value, param)
    text = check_text(value, param)
    if text[:5].lower() == "data:" and not text[:11].lower() == "data:image/":
        raise InvalidRequest.at(param, "expected a data URI of an image: data:image/png;base64,…")
    return EncodedImage(text, param)


def check_images(value: object, param: str, least: int = 1) -> list[EncodedImage]:
    """One image or a list of at least `least` images. Raises InvalidRequest."""
    if isinstance(value, str | bytes) and least == 1:
        return SingleInput([check_image(value, param)])
    if not isinstance(value, list) or len(value) < least:
        raise InvalidRequest.at(param, f"expected a list of at least {least} images, got {kind_of(value)}")
    return [
        item if isinstance(item, EncodedImage) else check_image(item, f"{param}[{index}]")
        for index, item in enumerate(value)
    ]


def image_or_images(param: str, least: int = 1) -> Any:
    """A field type: one image or a list of images. The value is a list of `EncodedImage`."""

    def check(value: object) -> list[EncodedImage]:
        return check_images(value, param, least)

    many = {"type": "array", "items": IMAGE_SCHEMA, "minItems": least, **MAX_INPUTS}
    schema = {"anyOf": [IMAGE_SCHEMA, many]} if least == 1 else many
    return Annotated[list[EncodedImage], PlainValidator(check), WithJsonSchema(schema)]


def is_image_object(value: object) -> bool:
    """Whether a value is `{"image": …}`, as Jina's clients send it."""
    return isinstance(value, dict) and value.keys() == {"image"}


def name_images(images: list[EncodedImage]) -> Callable[[int], str]:
    """The caller's name of the image at an index."""
    return lambda index: images[index].param


def check_messages(value: object) -> list[str | EncodedImage]:
    """vLLM's `messages`: one text or image in the content of one user message. The value has that one.

    Raises InvalidRequest.
    """
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise InvalidRequest.at("messages", f"expected a list of one message with a content, got {kind_of(value)}")
    content = value[0].get("content")
    if isinstance(content, str):
        return [check_text(content, "messages[0].content")]
    if not isinstance(content, list) or len(content) != 1:
        raise InvalidRequest.at("messages[0].content", f"expected one part, a text or an image, got {kind_of(content)}")
    return [check_part(content[0], "messages[0].content[0]")]


def check_part(part: object, param: str) -> str | EncodedImage:
    """A part of a content: `{"type": "text", "text": …}` or `{"type": "image_url", "image_url": {"url": …}}`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind == "text":
        return check_text(part.get("text"), f"{param}.text")
    if isinstance(part, dict) and kind == "image_url":
        found = part.get("image_url")
        url = found.get("url") if isinstance(found, dict) else found
        return check_image(url, f"{param}.image_url.url")
    raise InvalidRequest.at(
        param, 'expected {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": …}}'
    )


TEXT_PART: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string", "minLength": 1, "pattern": r"^[^\x00]*$"}},
    "required": ["type", "text"],
}
IMAGE_PART: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {"type": "object", "properties": {"url": IMAGE_SCHEMA}, "required": ["url"]},
    },
    "required": ["type", "image_url"],
}
_PART = {"anyOf": [TEXT_PART, IMAGE_PART]}
Messages = Annotated[
    list[Any],
    PlainValidator(check_messages),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string"},
                    "content": {"type": "array", "items": _PART, "minItems": 1, "maxItems": 1},
                },
                "required": ["content"],
            },
        }
    ),
]
