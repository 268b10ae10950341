"""Images as the service takes them in JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from service.client.errors import BadInput

# A file, the bytes of one, or a string: base64, a data URI, or a URL where the service fetches from its host.
Image = Path | bytes | str


def encode_images(images: Sequence[Image]) -> list[str]:
    """Each image as a string. Raises BadInput for a file that is empty or cannot be read."""
    if isinstance(images, str | bytes):
        raise BadInput(f"images: expected a list of images, got {type(images).__name__}")
    return [_encode(image) for image in images]


def _encode(image: Image) -> str:
    if isinstance(image, str):
        return image
    content = _read(image) if isinstance(image, Path) else image
    return b64encode(content).decode()


def _read(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
    if not content:
        raise BadInput(f"{file}: expected an image, got an empty file")
    return content
