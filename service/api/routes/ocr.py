"""The text of images: the route."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.compute_route import CallDep, compute_route
from service.api.responses import list_body, usage
from service.api.routes.detect import box_object
from service.api.schemas.images import name_images
from service.api.schemas.vision import OcrAnswer, OcrBody
from service.serving.image_model import Page

router = APIRouter(tags=["Sonde"])


@compute_route(router, "/v1/ocr", OcrAnswer, "Read the text of images")
async def ocr(body: OcrBody, call: CallDep) -> Response:
    """The lines of each image with text, confidence and box, in reading order."""
    served = await call.manager.resolve_recognizer(body.model)
    call.require_inputs(len(body.images), "images")
    work = served.read_pages(body.images, call.caller, name_images(body.images), lines=body.lines)
    pages, times = await call.cancel_on_disconnect(work)
    data = [_page_object(page, index) for index, page in enumerate(pages)]
    return call.respond(list_body(served.metadata.name, data, usage=usage(times)), served, times)


def _page_object(page: Page, index: int) -> dict[str, object]:
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
