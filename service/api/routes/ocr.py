"""The text of images: the route."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.image_urls import fetch_images
from service.api.responses import list_body, usage
from service.api.routes.detect import box_object
from service.api.schemas.images import EncodedImage, name_images
from service.api.schemas.vision import OcrAnswer, OcrBody
from service.serving.servable import Timings
from service.serving.text_recognition import RecognizedPage, ServedRecognizer

router = APIRouter(tags=["Sonde"])


@compute_route(router, "/v1/ocr", OcrAnswer, "Read the text of images")
async def ocr(body: OcrBody, call: CallDep) -> Response:
    """The lines of each image with text, confidence and box, in reading order."""
    served = await call.manager.resolve_recognizer(body.model)
    call.require_inputs(len(body.images), "images")
    pages, times = await call.cancel_on_disconnect(read_pages(body.images, served, call, lines=body.lines))
    data = [_page_object(page, index) for index, page in enumerate(pages)]
    return call.respond(list_body(served.metadata.name, data, usage=usage(times)), served, times)


async def read_pages(
    images: list[EncodedImage], served: ServedRecognizer, call: ComputeCall, *, lines: bool
) -> tuple[list[RecognizedPage], Timings]:
    """The texts of images, which are fetched where they came as URLs."""
    fetched = await fetch_images(images, call)
    return await served.read_pages(fetched, call.caller, name_images(fetched), lines=lines)


def _page_object(page: RecognizedPage, index: int) -> dict[str, object]:
    return {
        "object": "ocr",
        "index": index,
        "width": page.size[0],
        "height": page.size[1],
        "text": "\n".join(line.text for line in page.lines),
        "confidence": min((line.confidence for line in page.lines), default=None),
        "lines": [
            {
                "text": line.text,
                "confidence": line.confidence,
                "box": box_object(box.corners),
                "truncated": line.truncated,
            }
            for box, line in zip(page.boxes, page.lines, strict=True)
        ],
    }
