"""Images by URL, where `--allow-urls` names their hosts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from service.api.hot_path import ComputeCall
from service.api.schemas.images import EncodedImage, name_images
from service.config import Settings
from service.errors import DeadlineExceeded, InvalidRequest
from service.serving.image_model import ImageOutput, ReadsImages
from service.serving.servable import Caller

if TYPE_CHECKING:
    from service.api.image_fetcher import ImageFetcher

T = TypeVar("T")
_FETCHES_NONE = (
    "expected the image itself, got a URL, and Sonde fetches none (see --allow-urls): send it as base64 instead"
)


def open_fetcher(settings: Settings) -> ImageFetcher | None:
    """What fetches images; None where no host is allowed."""
    if not settings.allow_urls:
        return None
    # Imported here because it loads httpx, which other services do not need.
    from service.api.image_fetcher import ImageFetcher

    return ImageFetcher(settings.allow_urls, settings.max_image_bytes)


async def fetch_images(images: Sequence[T], call: ComputeCall) -> list[T]:
    """The same images and texts, with the bytes of those that came as URLs.

    All of them together have at most `--max-body-bytes`. Raises as `ImageFetcher.fetch`, InvalidRequest
    where no host is allowed, and DeadlineExceeded.
    """
    fetcher: ImageFetcher | None = call.request.app.state.image_fetcher
    room = call.settings.max_body_bytes
    found: list[T] = []
    for image in images:
        if isinstance(image, EncodedImage) and image.url is not None:
            if fetcher is None:
                raise InvalidRequest.at(image.param, _FETCHES_NONE)
            content = await _within(fetcher.fetch(image.url, image.param, room), call.caller)
            room -= len(content)
            found.append(cast(T, EncodedImage(content, image.param)))
        else:
            found.append(image)
    return found


async def _within(work: Awaitable[bytes], caller: Caller) -> bytes:
    """The result of `work`, within the caller's time."""
    if caller.deadline is None:
        return await work
    try:
        async with asyncio.timeout(max(caller.deadline - time.monotonic(), 0.0)):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the request's time ran out while its images were fetched") from None


async def compute_images(images: list[EncodedImage], served: ReadsImages, call: ComputeCall, task: str) -> ImageOutput:
    """The rows of images, which are fetched where they came as URLs."""
    fetched = await fetch_images(images, call)
    return await served.image_rows(fetched, call.caller, task, name_images(fetched))
