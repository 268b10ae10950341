"""Bodies of routes that read images alone."""

from __future__ import annotations

from pydantic import Field

from service.api.schemas.base import OPTIONAL_MODEL, RequestBody, ResponseBody, Usage
from service.api.schemas.images import image_or_images

IMAGES = Field(description="images as base64 or data URIs; a form may have them as files, and a body be one image")


class PreprocessBody(RequestBody):
    model: str | None = OPTIONAL_MODEL
    images: image_or_images("images") = IMAGES  # type: ignore[valid-type]


class PreprocessedImage(ResponseBody):
    object: str
    index: int
    shape: list[int] = Field(description="of the tensor that the network reads, with its batch of one")
    dtype: str
    device: str
    scale: float = Field(description="8 bits are multiplied by it, before mean and std")
    mean: list[float]
    std: list[float]
    minimum: float = Field(description="the tensor's least value")
    maximum: float = Field(description="the tensor's largest value")
    image: str = Field(description="the tensor before scale, mean and std, as a data URI of a PNG")


class PreprocessAnswer(ResponseBody):
    object: str
    model: str
    data: list[PreprocessedImage]
    usage: Usage
