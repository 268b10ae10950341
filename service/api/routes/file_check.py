"""The data checks of an uploaded file, before any job uses it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends

from models.training.errors import TrainingDataError
from models.training.hyperparameters import IMAGES
from service.api.dependencies import JobsDep, requires
from service.api.json_body import JsonRoute
from service.api.openapi import READING, errors
from service.api.schemas.jobs import FileCheckBody, FileReport
from service.errors import InvalidRequest

router = APIRouter(route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["Sonde"])
# A check computes for seconds beside the models that serve, so there is one at a time, and none of a large file.
MAX_BYTES = 8 * 2**20
# Of a workbook, whose XML has about four bytes for each of a CSV. A small file may unpack to a thousand times its size.
MAX_UNPACKED_BYTES = 4 * MAX_BYTES
# Of all images together: a small file can state billions, and a core decodes some 100 million a second.
MAX_PIXELS = 500_000_000
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
    from models.training.data.image_reader import stated_pixels
    from models.training.data.xlsx import unpacked_bytes
    from models.training.file_check import check_file, with_kind  # loads what training needs

    _require_small((await jobs.run(jobs.files.get, file_id)).bytes, MAX_BYTES, "bytes")
    path = await jobs.run(jobs.files.path, file_id)
    if path.suffix == ".xlsx":
        with suppress(TrainingDataError):  # the check reports a file that is no workbook
            _require_small(
                await to_thread.run_sync(unpacked_bytes, path, "file_id"), MAX_UNPACKED_BYTES, "bytes unpacked"
            )
    if with_kind(path, body.hyperparameters).get("kind") == IMAGES:
        with suppress(TrainingDataError):  # as above
            pixels = await to_thread.run_sync(stated_pixels, path, body.columns, "file_id", limiter=_ONE_AT_A_TIME)
            _require_small(pixels, MAX_PIXELS, "pixels")
    report = await to_thread.run_sync(
        check_file, path, body.task, body.hyperparameters, body.columns, limiter=_ONE_AT_A_TIME
    )
    return report.to_json()


def _require_small(size: int, most: int, unit: str) -> None:
    if size > most:
        raise InvalidRequest(
            f"file_id: expected at most {most} {unit} to check, got {size}: start the job, which checks the file,"
            " or run 'sonde check' on it",
            param="file_id",
        )
