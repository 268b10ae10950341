"""OpenAI's files: examples to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse

from service.api.dependencies import JobsDep, requires
from service.api.multipart import read_upload
from service.api.openapi import READING, errors
from service.api.responses import page_object
from service.api.schemas.jobs import FileDeleted, FileList, FileObject
from service.errors import InvalidRequest

if TYPE_CHECKING:
    from service.jobs.files import StoredFile

router = APIRouter(prefix="/v1/files", dependencies=[Depends(requires("train"))], tags=["OpenAI"])

PURPOSES = ("fine-tune", "batch", "user_data", "evals")
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
# OpenAI's limits: an hour and thirty days.
_LEAST_EXPIRY_S, _MOST_EXPIRY_S = 3600, 30 * 24 * 3600
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "dependentRequired": {_ANCHOR: [_SECONDS], _SECONDS: [_ANCHOR]},
                    "properties": {
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSONL, CSV, Parquet or XLSX, by the filename's ending; JSONL without one",
                        },
                        _ANCHOR: {"type": "string", "enum": ["created_at"]},
                        _SECONDS: {"type": "integer", "minimum": _LEAST_EXPIRY_S, "maximum": _MOST_EXPIRY_S},
                    },
                }
            }
        },
    }
}
_WRITING = {**READING, **errors(413, 415, 422, 503, 507)}
_ONE = {**READING, **errors(404, 422, 503)}


@router.post(
    "", responses=_WRITING, response_model=FileObject, openapi_extra=_UPLOAD, summary="Upload a file of examples"
)
async def upload(request: Request, jobs: JobsDep) -> dict[str, Any]:
    """Stored as it comes, hashed, and looked into only by the job that uses it."""
    incoming = await jobs.run_on_disk(jobs.files.receive, await jobs.run(jobs.files.require_room))
    try:
        form = await read_upload(request, incoming, jobs)
        purpose, expiry = _require_purpose(form.fields), _read_expiry(form.fields)
        return _file_object(await jobs.run(jobs.files.keep, incoming, form.filename or "", purpose, expiry))
    finally:
        await jobs.disk.clean_up(incoming.discard)


def _require_purpose(fields: dict[str, str]) -> str:
    """The purpose among an upload's fields.

    Raises InvalidRequest for another purpose, and for other fields.
    """
    unknown = sorted(set(fields) - {"purpose", _ANCHOR, _SECONDS})
    if unknown:
        raise InvalidRequest(f"{unknown[0]}: no such field", param=unknown[0])
    purpose = fields.get("purpose")
    if purpose not in PURPOSES:
        raise InvalidRequest.at("purpose", f"expected {' or '.join(PURPOSES)}, got {purpose!r:.80}")
    return purpose


def _read_expiry(fields: dict[str, str]) -> int | None:
    """The seconds that a file is kept; None where the upload does not say. Raises InvalidRequest."""
    if _ANCHOR not in fields and _SECONDS not in fields:
        return None
    if (anchor := fields.get(_ANCHOR)) != "created_at":
        raise InvalidRequest.at(_ANCHOR, f"expected created_at, got {anchor!r:.80}")
    given = fields.get(_SECONDS, "")
    if not (given.isascii() and given.isdigit() and _LEAST_EXPIRY_S <= int(given[:20]) <= _MOST_EXPIRY_S):
        raise InvalidRequest.at(_SECONDS, f"expected {_LEAST_EXPIRY_S} to {_MOST_EXPIRY_S} seconds, got {given!r:.80}")
    return int(given)


@router.get("", responses={**READING, **errors(404, 422, 503)}, response_model=FileList, summary="List files")
async def list_files(
    jobs: JobsDep,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    """Newest first, unless `order` is `asc`."""
    found, more = await jobs.run(jobs.files.page, after, limit, purpose, newest_first=order == "desc")
    return page_object([_file_object(file) for file in found], has_more=more)


@router.get("/{file_id}", responses=_ONE, response_model=FileObject, summary="One file")
async def get_file(file_id: str, jobs: JobsDep) -> dict[str, Any]:
    """What is known of a file."""
    return _file_object(await jobs.run(jobs.files.get, file_id))


@router.get(
    "/{file_id}/content",
    responses={
        **_ONE,
        200: {"content": {"application/octet-stream": {}}, "description": "the bytes that were uploaded"},
    },
    response_class=FileResponse,
    summary="A file's bytes",
)
async def get_content(file_id: str, jobs: JobsDep) -> FileResponse:
    """The bytes as they came."""
    path = await jobs.run(jobs.files.path, file_id)
    # Browsers must not render it, because any uploader chose its content.
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", responses={**_ONE, **errors(400)}, response_model=FileDeleted, summary="Delete a file")
async def delete_file(file_id: str, jobs: JobsDep) -> dict[str, Any]:
    """Not while a job that is not finished needs it."""
    await jobs.run(jobs.files.delete, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def _file_object(file: StoredFile) -> dict[str, Any]:
    """OpenAI's file object, with the file's SHA-256."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "sha256": file.sha256,
        "owner": file.owner,
    }
