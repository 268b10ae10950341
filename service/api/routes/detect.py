"""Objects in images: the route, and how they are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Response

from models.images.detections import DetectedObjects
from models.images.pixels import Pixels
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.image_urls import compute_images
from service.api.responses import list_body, usage
from service.api.schemas.images import EncodedImage
from service.api.schemas.vision import DetectAnswer, DetectBody
from service.serving.image_model import ImageOutput, ReadsImages

router = APIRouter(tags=["Sonde"])
Found = list[tuple[Pixels, DetectedObjects]]


@compute_route(router, "/v1/detect", DetectAnswer, "Find objects in images")
async def detect(body: DetectBody, call: CallDep) -> Response:
    """The objects of each image with label, score and box, best first."""
    served = await call.manager.resolve_images("detection", body.model)
    call.require_inputs(len(body.images), "images")
    found, rows = await find_objects(body.images, served, call, threshold=body.threshold, most=body.top_k)

    def write() -> bytes:
        data = [
            {
                "object": "detection",
                "index": index,
                "width": pixels.size[0],
                "height": pixels.size[1],
                "objects": describe_objects(objects, served),
            }
            for index, (pixels, objects) in enumerate(found)
        ]
        return list_body(served.metadata.name, data, usage=usage(rows))

    return call.respond(await served.run_in_pool(write), served, rows)


async def find_objects(
    images: list[EncodedImage], served: ReadsImages, call: ComputeCall, *, threshold: float, most: int | None = None
) -> tuple[Found, ImageOutput]:
    """The objects of each image with a score above `threshold`, and what was computed for them."""
    rows = await call.cancel_on_disconnect(compute_images(images, served, call, "detection"))
    found = [
        (item, DetectedObjects.of_row(row, item.size, threshold=threshold, most=most))
        for item, row in zip(rows.tokens, rows.values, strict=True)
        if isinstance(item, Pixels)
    ]
    return found, rows


def describe_objects(objects: DetectedObjects, served: ReadsImages, *, whole: bool = False) -> list[dict[str, object]]:
    """Objects with label, score and box, as Hugging Face names them; `whole` cuts pixels to integers, as it does."""
    names = served.metadata.labels
    boxes = objects.boxes.astype(np.int64) if whole else objects.boxes
    return [
        {"label": names[label], "score": score, "box": box_object(box)}
        for score, label, box in zip(objects.scores.tolist(), objects.labels, boxes.tolist(), strict=True)
    ]


def box_object(corners: Sequence[float]) -> dict[str, float]:
    """Left, top, right and bottom, as Hugging Face names them."""
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
