"""OpenAI's fine-tuning jobs: start, watch and control them, and read their reports."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import WithJsonSchema

from service.api.dependencies import ContextDep, JobsDep, ManagerDep, SettingsDep, requires
from service.api.job_reports import MEDIA, ReportFormat, read_plot, read_report
from service.api.json_body import JsonRequest, JsonRoute
from service.api.new_job import OPENAI_HYPERPARAMETERS, plan_job
from service.api.openapi import READING, errors
from service.api.responses import page_object
from service.api.schemas.jobs import MAX_METADATA, METADATA_KEY, CheckpointList, EventList, JobBody, JobList, JobObject
from service.config import Settings
from service.errors import InvalidRequest, JobNotFound
from service.jobs.backend import JobBackend
from service.jobs.records import Checkpoint, IdempotencyKey, Job, JobEvent
from service.serving.model_names import SENSORS
from service.serving.servable import Servable

_PATH = "/v1/fine_tuning/jobs"
_ACCEPTED: dict[ReportFormat, str] = {"md": "text/markdown", "html": "text/html"}
_REPORTS = ("application/json", *_ACCEPTED.values())
_PICTURES = {"svg": "image/svg+xml", "png": "image/png"}
router = APIRouter(prefix=_PATH, route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["OpenAI"])
# OpenAI's clients send no JSON to these routes, so JsonRoute would refuse them.
bare_router = APIRouter(prefix=_PATH, dependencies=[Depends(requires("train"))], tags=["OpenAI"])

_NO_WORKER = "no worker is running; start one with 'sonde worker'"
_ONE = {**READING, **errors(404, 422, 503)}
_CHANGE = {**_ONE, **errors(400)}
_KEY_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 255}
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(description="the last id of the page before")]
AfterEvent = Annotated[str | None, Query(pattern="^ftevent-[0-9]{1,9}$", description="the last id of the page before")]
AfterCheckpoint = Annotated[
    str | None, Query(pattern="^ftckpt-[0-9]{1,9}$", description="the last id of the page before")
]


@router.post(
    "",
    responses={**_ONE, **errors(400, 413, 415, 429, 507)},
    response_model=JobObject,
    summary="Start a fine-tuning job",
)
async def create(
    body: JobBody,
    request: Request,
    jobs: JobsDep,
    manager: ManagerDep,
    settings: SettingsDep,
    context: ContextDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255), WithJsonSchema(_KEY_SCHEMA)] = None,
) -> dict[str, Any]:
    """Start a job; a worker takes it.

    A second request with the same Idempotency-Key gets the same answer and starts nothing. Send one, so that you can
    repeat a request after 503: a database that stops answering may have stored the job.
    """
    raw = request.raw if isinstance(request, JsonRequest) else b""
    key = IdempotencyKey(context.key.id, idempotency_key, hashlib.sha256(raw).hexdigest()) if idempotency_key else None
    if key is not None and (before := await jobs.run(jobs.store.find_answer, key)) is not None:
        return before
    served = None if body.model == SENSORS else await manager.resolve(body.model)
    return await jobs.run(_create_job, body, served, jobs, settings, key)


@router.get("", responses={**READING, **errors(404, 422, 503)}, response_model=JobList, summary="List fine-tuning jobs")
async def list_jobs(
    jobs: JobsDep, request: Request, settings: SettingsDep, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """Newest first; `metadata[key]=value` keeps those that have it."""
    metadata = {
        key[9:-1]: value
        for key, value in request.query_params.items()
        if key.startswith("metadata[") and key.endswith("]")
    }
    if len(metadata) > MAX_METADATA:
        raise InvalidRequest.at("metadata", f"expected at most {MAX_METADATA} keys, got {len(metadata)}")
    for key in metadata:
        if not re.fullmatch(METADATA_KEY, key):
            raise InvalidRequest.at("metadata", f"no job has a key like {key[:80]!r}")
    found, more = await jobs.run(jobs.store.page, after, limit, metadata)
    waiting = await jobs.run(_why_waiting, jobs) if any(job.status == "queued" for job in found) else None
    return {"object": "list", "data": [job_object(job, settings.org, waiting) for job in found], "has_more": more}


@router.get("/{fine_tuning_job_id}", responses=_ONE, response_model=JobObject, summary="One fine-tuning job")
async def retrieve(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """A job's state and result."""
    job = await jobs.run(jobs.store.get, fine_tuning_job_id)
    waiting = await jobs.run(_why_waiting, jobs) if job.status == "queued" else None
    return job_object(job, settings.org, waiting)


@bare_router.post("/{fine_tuning_job_id}/cancel", responses=_CHANGE, response_model=JobObject, summary="Cancel a job")
async def cancel(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """A queued job ends at once, a running one within seconds. A finished one stays (400)."""
    return job_object(await jobs.run(jobs.store.request_control, fine_tuning_job_id, "cancel"), settings.org)


@bare_router.post("/{fine_tuning_job_id}/pause", responses=_CHANGE, response_model=JobObject, summary="Pause a job")
async def pause(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """A running job waits without holding a device.

    It writes a checkpoint first, where its recipe trains in steps.
    """
    return job_object(await jobs.run(jobs.store.request_control, fine_tuning_job_id, "pause"), settings.org)


@bare_router.post(
    "/{fine_tuning_job_id}/resume", responses=_CHANGE, response_model=JobObject, summary="Resume a paused job"
)
async def resume(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """The job continues from its newest checkpoint."""
    return job_object(await jobs.run(jobs.store.resume, fine_tuning_job_id), settings.org)


@router.get("/{fine_tuning_job_id}/events", responses=_ONE, response_model=EventList, summary="What happened in a job")
async def list_events(
    fine_tuning_job_id: str, jobs: JobsDep, after: AfterEvent = None, limit: Limit = 20
) -> dict[str, Any]:
    """A job's events, newest first.

    `metrics` events carry step, total_steps, loss, learning_rate, examples_per_s, eta_s.
    """
    found, more = await jobs.run(jobs.store.events, fine_tuning_job_id, _sequence_number(after), limit)
    return {"object": "list", "data": [_event_object(event) for event in found], "has_more": more}


@router.get(
    "/{fine_tuning_job_id}/checkpoints", responses=_ONE, response_model=CheckpointList, summary="A job's checkpoints"
)
async def list_checkpoints(
    fine_tuning_job_id: str, jobs: JobsDep, after: AfterCheckpoint = None, limit: Limit = 10
) -> dict[str, Any]:
    """A job's checkpoints, newest first. An interrupted job continues from the newest."""
    found, more = await jobs.run(jobs.store.checkpoints, fine_tuning_job_id, _sequence_number(after), limit)
    return page_object([_checkpoint_object(fine_tuning_job_id, checkpoint) for checkpoint in found], has_more=more)


@router.get(
    "/{fine_tuning_job_id}/report",
    responses={**_ONE, 200: {"content": {kind: {} for kind in _REPORTS}, "description": "the newest report"}},
    response_class=Response,
    summary="A job's report: the five checks",
)
async def report(
    fine_tuning_job_id: str,
    jobs: JobsDep,
    accept: Annotated[str, Header(), WithJsonSchema({"type": "string"})] = "",
    format: Annotated[ReportFormat | None, Query(description="instead of an Accept header")] = None,  # noqa: A002
) -> Response:
    """A job's report: data, forward, loss, gradient, outcome.

    `Accept: text/markdown` and `text/html`, or `?format=`, answer with Markdown or a page with plots.
    """
    accepted: ReportFormat = next((form for form, kind in _ACCEPTED.items() if kind in accept), "json")
    form = format or accepted
    job = await jobs.run(jobs.store.get, fine_tuning_job_id)
    content = await asyncio.to_thread(read_report, jobs.home, job, form, f"{_PATH}/{job.id}/report")
    return Response(content, media_type=MEDIA[form])


@router.get(
    "/{fine_tuning_job_id}/report/plots/{plot}",
    responses={**_ONE, 200: {"content": {kind: {} for kind in _PICTURES.values()}, "description": "the picture"}},
    response_class=Response,
    summary="A plot of a job's report",
)
async def plot(fine_tuning_job_id: str, plot: str, jobs: JobsDep) -> Response:
    """`series`, `contributions` or `training`, with `.svg` or `.png`.

    Only jobs of sensor models have plots, if their report has the data.
    """
    name, _, suffix = plot.rpartition(".")
    if suffix not in _PICTURES:
        raise JobNotFound(f"expected a plot's name with .svg or .png, got {plot[:80]!r}", param="plot")
    form: Literal["svg", "png"] = "svg" if suffix == "svg" else "png"
    job = (await jobs.run(jobs.store.get, fine_tuning_job_id)).id
    return Response(await asyncio.to_thread(read_plot, jobs.home, job, name, form), media_type=_PICTURES[suffix])


def job_object(job: Job, org: str, waiting: str | None = None) -> dict[str, Any]:
    """A job as OpenAI shows it, with fields of ours; `waiting` is why no queued job begins."""
    error = {"code": job.error_code, "message": job.error_message, "param": job.error_param} if job.error_code else None
    supervised = {"task": job.task, "hyperparameters": job.hyperparameters, "columns": job.columns}
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "finished_at": _to_seconds(job.finished_at),
        "status": "queued" if job.status == "paused" else job.status,
        "paused": job.status == "paused",
        "model": job.base,
        "fine_tuned_model": job.fine_tuned_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": [],
        "seed": job.seed,
        "hyperparameters": {**dict.fromkeys(OPENAI_HYPERPARAMETERS, "auto"), **job.hyperparameters},
        "method": {"type": "supervised", "supervised": supervised},
        "organization_id": org,
        "error": error,
        "estimated_finish": _to_seconds(job.estimated_finish),
        "trained_tokens": job.trained_tokens,
        "metadata": job.metadata,
        "integrations": [],
        "waiting": waiting if job.status == "queued" else None,
        "attempt": job.attempt,
        "result": job.result,
        "owner": job.owner,
    }


def _create_job(
    body: JobBody, served: Servable | None, jobs: JobBackend, settings: Settings, idempotency_key: IdempotencyKey | None
) -> dict[str, Any]:
    new = plan_job(body, served, jobs, settings)
    waiting = _why_waiting(jobs)
    return jobs.store.create(new, lambda made: job_object(made, settings.org, waiting), idempotency_key)


def _why_waiting(jobs: JobBackend) -> str | None:
    """Why no queued job begins; None while workers run."""
    return None if jobs.store.has_worker() else _NO_WORKER


def _sequence_number(after: str | None) -> int | None:
    """The number in an event's or checkpoint's id."""
    return None if after is None else int(after.rpartition("-")[2])


def _event_object(event: JobEvent) -> dict[str, Any]:
    return {
        "id": f"ftevent-{event.seq}",
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def _checkpoint_object(job: str, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "id": f"ftckpt-{checkpoint.seq}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(checkpoint.created_at),
        "fine_tuning_job_id": job,
        "fine_tuned_model_checkpoint": f"{job}:step-{checkpoint.step}",
        "step_number": checkpoint.step,
        "metrics": {"step": checkpoint.step, **checkpoint.metrics},
    }


def _to_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
