"""Feedback on answers: the labels that texts should have had."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from service.api.deps import JobsDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, errors
from service.api.schemas.jobs import FeedbackBody, FeedbackObject

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["Sonde"])


@router.post(
    "/v1/feedback",
    responses={**READING, **errors(400, 413, 415, 422, 503, 507)},
    response_model=FeedbackObject,
    summary="Report what a text's label should have been",
)
async def add_feedback(body: FeedbackBody, jobs: JobsDep) -> dict[str, Any]:
    """Keep feedback until a job trains on it: `training_file` `"feedback:MODEL"`.

    Of several reports on a text, the last one counts. `model` may have a version, as in `x-sonde-model`; the feedback
    counts for the model as well.
    """
    number, when = await jobs.run(jobs.feedback.add, body.model, body.text, body.label, body.correct_label)
    about = {"model": body.model, "text": body.text, "label": body.label, "correct_label": body.correct_label}
    return {"id": f"feedback-{number}", "object": "feedback", "created_at": int(when), **about}
