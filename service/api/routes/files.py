"""Files of examples, as OpenAI's clients send them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse

from service.api.deps import JobsDep, requires
from service.api.multipart import read_upload
from service.api.openapi import READING, errors
from service.api.schemas.jobs import FileDeleted, FileList, FileObject
from service.errors import InvalidRequest
from service.jobs.files import StoredFile

router = APIRouter(prefix="/v1/files", dependencies=[Depends(requires("train"))], tags=["OpenAI"])

PURPOSES = ("fine-tune",)
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSONL, CSV or Parquet, by the filename's ending",
                        },
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
    incoming = await asyncio.to_thread(jobs.files.receive)
    try:
        form = await read_upload(request, incoming, jobs.files.max_bytes)
        unknown = sorted(set(form.fields) - {"purpose", "file"})
        if unknown:
            raise InvalidRequest(f"{unknown[0]}: no such field", param=unknown[0])
        purpose = form.fields.get("purpose")
        if purpose not in PURPOSES:
            raise InvalidRequest(f"purpose: expected {' or '.join(PURPOSES)}, got {purpose!r:.80}", param="purpose")
        return render(await asyncio.to_thread(jobs.files.keep, incoming, form.filename or "", purpose))
    finally:
        await asyncio.to_thread(incoming.discard)


@router.get("", responses={**READING, **errors(404, 422, 503)}, response_model=FileList, summary="List files")
async def list_files(
    jobs: JobsDep,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    """Newest first, unless `order` is `asc`."""
    found, more = await asyncio.to_thread(jobs.files.page, after, limit, purpose, newest_first=order == "desc")
    data = [render(file) for file in found]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": more, **ends}


@router.get("/{file_id}", responses=_ONE, response_model=FileObject, summary="One file")
async def get_file(file_id: str, jobs: JobsDep) -> dict[str, Any]:
    """What is known of a file."""
    return render(await asyncio.to_thread(jobs.files.get, file_id))


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
    path = await asyncio.to_thread(jobs.files.path, file_id)
    # Never shown by a browser: what it holds is the uploader's.
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", responses={**_ONE, **errors(400)}, response_model=FileDeleted, summary="Delete a file")
async def delete_file(file_id: str, jobs: JobsDep) -> dict[str, Any]:
    """Not while a job that is not finished needs it."""
    await asyncio.to_thread(jobs.files.delete, file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def render(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI shows it, and its SHA-256."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "sha256": file.sha256,
    }
