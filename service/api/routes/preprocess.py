"""What a network reads of an image: the route that shows it."""

from __future__ import annotations

import torch
from fastapi import APIRouter, Response

from models.images.data_uri import to_data_uri
from models.images.pixels import Pixels, to_picture
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.image_urls import fetch_images
from service.api.responses import list_body, usage
from service.api.schemas.images import EncodedImage, name_images
from service.api.schemas.requests import require_count
from service.api.schemas.vision import PreprocessAnswer, PreprocessBody
from service.serving.image_model import ReadsImages
from service.serving.servable import Timings

router = APIRouter(tags=["Sonde"])

# The answer has each of them as a PNG.
_MOST_IMAGES = 64


@compute_route(router, "/v1/preprocess", PreprocessAnswer, "Show what a model reads of images")
async def preprocess(body: PreprocessBody, call: CallDep) -> Response:
    """Shape, dtype, mean and std of the tensor of each image, and the tensor as a picture. Nothing is computed."""
    served = await call.manager.resolve_any_images(body.model)
    require_count(len(body.images), _MOST_IMAGES, "images")
    items, times = await call.cancel_on_disconnect(_prepare(body.images, served, call))

    def write() -> bytes:
        data = [_describe(item, index, served) for index, item in enumerate(items)]
        return list_body(served.metadata.name, data, usage=usage(times))

    return call.respond(await served.run_in_pool(write), served, times)


async def _prepare(images: list[EncodedImage], served: ReadsImages, call: ComputeCall) -> tuple[list[Pixels], Timings]:
    fetched = await fetch_images(images, call)
    return await served.prepared(fetched, call.caller, name_images(fetched))


def _describe(pixels: Pixels, index: int, served: ReadsImages) -> dict[str, object]:
    metadata, signature = served.metadata, served.images.signature
    tensor = served.images.normalize(torch.from_numpy(pixels.values))
    picture = to_picture(pixels.values)
    return {
        "object": "preprocessed_image",
        "index": index,
        "shape": [1, *pixels.values.shape],
        "dtype": metadata.dtype,
        "device": metadata.device,
        "scale": signature.scale,
        "mean": signature.mean,
        "std": signature.std,
        "minimum": float(tensor.min()),
        "maximum": float(tensor.max()),
        "image": to_data_uri(picture, max(picture.size), "PNG"),
    }
