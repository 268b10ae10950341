"""Feedback on answers: the labels that texts should have had."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from service.api.dependencies import JobsDep, KeptInputsDep, PrincipalDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, errors
from service.api.responses import page_object
from service.api.schemas.jobs import FeedbackBody, FeedbackList, FeedbackObject
from service.jobs.feedback import FeedbackRow

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["Sonde"])


@router.post(
    "/v1/feedback",
    responses={**READING, **errors(400, 413, 415, 422, 503, 507)},
    response_model=FeedbackObject,
    summary="Report what a text's label should have been",
)
async def add_feedback(
    body: FeedbackBody, jobs: JobsDep, kept: KeptInputsDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Keep feedback until a job trains on it: `training_file` `"feedback:MODEL"`.

    Of several reports on a text, the last one counts. `model` may have a version, as in `x-sonde-model`; the feedback
    counts for the model as well.
    """
    number, when = await jobs.run(jobs.feedback.add, body.model, body.text, body.label, body.correct_label)
    kept.forget(None if principal.sees_all else principal.id, body.text)
    return _feedback_object(FeedbackRow(number, when, body.model, body.text, body.label, body.correct_label))


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


def _feedback_object(row: FeedbackRow) -> dict[str, Any]:
    return {
        "id": f"feedback-{row.seq}",
        "object": "feedback",
        "created_at": int(row.created_at),
        "model": row.model,
        "text": row.text,
        "label": row.label,
        "correct_label": row.correct_label,
    }
