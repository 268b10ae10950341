"""Feedback on answers: the labels that texts and images should have had."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query

from models.images.data_uri import to_kept_data_uri
from models.images.reader import ImageLimits
from service.api.dependencies import JobsDep, KeptInputsDep, PrincipalDep, SettingsDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, errors
from service.api.responses import page_object
from service.api.schemas.jobs import FeedbackBody, FeedbackList, FeedbackObject
from service.config import Settings
from service.jobs.records import IMAGE, FeedbackRow

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["Sonde"])
# Each may take 160 MB while it is decoded.
_IMAGES_AT_ONCE = CapacityLimiter(2)


@router.post(
    "/v1/feedback",
    responses={**READING, **errors(400, 413, 415, 422, 503, 507)},
    response_model=FeedbackObject,
    summary="Report what the label of a text or an image should have been",
)
async def add_feedback(
    body: FeedbackBody, jobs: JobsDep, kept: KeptInputsDep, principal: PrincipalDep, settings: SettingsDep
) -> dict[str, Any]:
    """Keep feedback until a job trains on it: `training_file` `"feedback:MODEL"`.

    Of several reports on a text or an image, the last one counts. Large images are kept as smaller copies. `model`
    may have a version, as in `x-sonde-model`; the feedback counts for the model as well.
    """
    kind, content = await _content(body, settings)
    row = await jobs.run(partial(jobs.feedback.add, body.model, content, body.label, body.correct_label, kind=kind))
    kept.forget(None if principal.sees_all else principal.id, row.text)
    return _feedback_object(row)


@router.get(
    "/v1/feedback", responses={**READING, **errors(422, 503)}, response_model=FeedbackList, summary="List feedback"
)
async def list_feedback(
    jobs: JobsDep,
    model: Annotated[str, Query(min_length=1, max_length=256, description="a model; any version, unless it names one")],
    after: Annotated[
        str | None, Query(pattern="^feedback-[0-9]{1,9}$", description="the last id of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> dict[str, Any]:
    """A model's feedback that a job of your key would train on, oldest first."""
    number = int(after.rpartition("-")[2]) if after else 0
    found, more = await jobs.run(jobs.feedback.page, model, number, limit)
    return page_object([_feedback_object(row) for row in found], has_more=more)


async def _content(body: FeedbackBody, settings: Settings) -> tuple[str | None, str]:
    """The kind and the text of a row. Raises ImageError for an image that cannot be read."""
    image = body.image
    if image is None:
        return None, body.text or ""
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    return IMAGE, await to_thread.run_sync(
        lambda: to_kept_data_uri(image(), limits, image.param), limiter=_IMAGES_AT_ONCE
    )


def _feedback_object(row: FeedbackRow) -> dict[str, Any]:
    return {
        "id": f"feedback-{row.seq}",
        "object": "feedback",
        "created_at": int(row.created_at),
        "model": row.model,
        "text": row.text if row.kind is None else None,
        "image": row.text if row.kind == IMAGE else None,
        "label": row.label,
        "correct_label": row.correct_label,
    }
