"""The data checks of an uploaded file, before any job uses it."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends

from service.api.deps import JobsDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, errors
from service.api.schemas.jobs import FileCheckBody, FileReport
from service.errors import InvalidRequest

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["Sonde"])
# A check computes for seconds beside the models that serve, so there is one at a time, and none of a large file.
MAX_BYTES = 8 * 2**20
_ONE_AT_A_TIME = CapacityLimiter(1)


@router.post(
    "/v1/files/{file_id}/check",
    responses={**READING, **errors(400, 404, 413, 415, 422, 503)},
    response_model=FileReport,
    summary="Check a file before a job uses it",
)
async def check(file_id: str, body: FileCheckBody, jobs: JobsDep) -> dict[str, Any]:
    """All rows that a job could not use, and what its data checks find; as `sonde check`, without a model.

    A job runs the same checks by itself. Files of more than 8 MiB are left to it.
    """
    from models.training.file_check import check_file  # loads what training needs

    size = (await jobs.run(jobs.files.get, file_id)).bytes
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"file_id: expected at most {MAX_BYTES} bytes to check, got {size}: start the job, which checks the file,"
            " or run 'sonde check' on it",
            param="file_id",
        )
    path = await jobs.run(jobs.files.path, file_id)
    report = await to_thread.run_sync(
        check_file, path, body.task, body.hyperparameters, body.columns, limiter=_ONE_AT_A_TIME
    )
    return report.to_json()
