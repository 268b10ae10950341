"""Fine-tuning jobs, as OpenAI's clients start and watch them, and the report of each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import WithJsonSchema

from models.registry.names import model_name
from models.source import parse_spec
from models.training.data.row_layout import check_columns
from models.training.errors import TrainingDataError
from models.training.hyperparameters import PARAM, parse
from service.api.deps import JobsDep, ManagerDep, SettingsDep, get_context, requires
from service.api.job_reports import MEDIA, ReportFormat, read_plot, read_report
from service.api.json_body import JsonRequest, JsonRoute
from service.api.middleware import RequestContext
from service.api.openapi import READING, errors
from service.api.schemas.fields import kind_of
from service.api.schemas.jobs import METADATA_KEY, CheckpointList, EventList, JobBody, JobList, JobObject, Supervised
from service.config import Settings
from service.errors import FileMissing, InvalidRequest, JobNotFound, WrongTask
from service.jobs.backend import JobBackend
from service.jobs.feedback import PREFIX
from service.jobs.records import Checkpoint, Event, IdempotencyKey, Job, NewJob
from service.serving.fine_tuned import FineTunedModel
from service.serving.model_manager import SENSORS
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Servable

_PATH = "/v1/fine_tuning/jobs"
_ACCEPTED: dict[ReportFormat, str] = {"md": "text/markdown", "html": "text/html"}
_REPORTS = ("application/json", *_ACCEPTED.values())
_PICTURES = {"svg": "image/svg+xml", "png": "image/png"}
_OF_NUMBERS = ("anomaly", "forecast")
_KINDS = ("records", "series")
router = APIRouter(prefix=_PATH, route_class=JsonRoute, dependencies=[Depends(requires("train"))], tags=["OpenAI"])
# OpenAI's clients send no JSON with these, so JsonRoute would refuse them.
bare_router = APIRouter(prefix=_PATH, dependencies=[Depends(requires("train"))], tags=["OpenAI"])

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
    "", responses={**_ONE, **errors(400, 413, 415, 507)}, response_model=JobObject, summary="Start a fine-tuning job"
)
async def create(
    body: JobBody,
    request: Request,
    jobs: JobsDep,
    manager: ManagerDep,
    settings: SettingsDep,
    context: Annotated[RequestContext, Depends(get_context)],
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255), WithJsonSchema(_KEY_SCHEMA)] = None,
) -> dict[str, Any]:
    """Queued at once; a worker takes it. With an Idempotency-Key the same request is answered the same and starts
    nothing.
    """
    raw = request.raw if isinstance(request, JsonRequest) else b""
    once = IdempotencyKey(context.key.id, idempotency_key, hashlib.sha256(raw).hexdigest()) if idempotency_key else None
    if once is not None and (before := await asyncio.to_thread(jobs.store.find_answer, once)) is not None:
        return before
    served = None if body.model == SENSORS else await manager.resolve(body.model)
    return await asyncio.to_thread(_create, body, served, jobs, settings, once)


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
    for key in metadata:
        if not re.fullmatch(METADATA_KEY, key):
            raise InvalidRequest(f"metadata: no job has a key like {key[:80]!r}", param="metadata")
    found, more = await asyncio.to_thread(jobs.store.page, after, limit, metadata)
    return {"object": "list", "data": [render(job, settings.org) for job in found], "has_more": more}


@router.get("/{fine_tuning_job_id}", responses=_ONE, response_model=JobObject, summary="One fine-tuning job")
async def retrieve(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """Its state, and what came of it."""
    return render(await asyncio.to_thread(jobs.store.get, fine_tuning_job_id), settings.org)


@bare_router.post("/{fine_tuning_job_id}/cancel", responses=_CHANGE, response_model=JobObject, summary="Cancel a job")
async def cancel(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """A queued job ends at once, a running one within seconds; a finished one is left as it is (400)."""
    return render(await asyncio.to_thread(jobs.store.request_control, fine_tuning_job_id, "cancel"), settings.org)


@bare_router.post("/{fine_tuning_job_id}/pause", responses=_CHANGE, response_model=JobObject, summary="Pause a job")
async def pause(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """A running job writes a checkpoint, where its recipe trains in steps, and waits without holding a device."""
    return render(await asyncio.to_thread(jobs.store.request_control, fine_tuning_job_id, "pause"), settings.org)


@bare_router.post(
    "/{fine_tuning_job_id}/resume", responses=_CHANGE, response_model=JobObject, summary="Resume a paused job"
)
async def resume(fine_tuning_job_id: str, jobs: JobsDep, settings: SettingsDep) -> dict[str, Any]:
    """It goes on from its newest checkpoint."""
    return render(await asyncio.to_thread(jobs.store.resume, fine_tuning_job_id), settings.org)


@router.get("/{fine_tuning_job_id}/events", responses=_ONE, response_model=EventList, summary="What happened in a job")
async def list_events(
    fine_tuning_job_id: str, jobs: JobsDep, after: AfterEvent = None, limit: Limit = 20
) -> dict[str, Any]:
    """Newest first. `metrics` events carry step, total_steps, loss, learning_rate, examples_per_s, eta_s."""
    found, more = await asyncio.to_thread(jobs.store.events, fine_tuning_job_id, _number(after), limit)
    return {"object": "list", "data": [_event(event) for event in found], "has_more": more}


@router.get(
    "/{fine_tuning_job_id}/checkpoints", responses=_ONE, response_model=CheckpointList, summary="A job's checkpoints"
)
async def list_checkpoints(
    fine_tuning_job_id: str, jobs: JobsDep, after: AfterCheckpoint = None, limit: Limit = 10
) -> dict[str, Any]:
    """Newest first: where the job goes on when it is interrupted."""
    found, more = await asyncio.to_thread(jobs.store.checkpoints, fine_tuning_job_id, _number(after), limit)
    data = [_checkpoint(fine_tuning_job_id, one) for one in found]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": more, **ends}


@router.get(
    "/{fine_tuning_job_id}/report",
    responses={**_ONE, 200: {"content": {kind: {} for kind in _REPORTS}, "description": "the newest report"}},
    response_class=Response,
    summary="A job's report: the debug ladder",
)
async def report(
    fine_tuning_job_id: str,
    jobs: JobsDep,
    accept: Annotated[str, Header(), WithJsonSchema({"type": "string"})] = "",
    format: Annotated[ReportFormat | None, Query(description="instead of an Accept header")] = None,  # noqa: A002
) -> Response:
    """Data, forward, loss, gradient, outcome; Markdown or a page with plots for `Accept: text/markdown` and
    `text/html`, or `?format=`.
    """
    accepted: ReportFormat = next((form for form, kind in _ACCEPTED.items() if kind in accept), "json")
    form = format or accepted
    content = await asyncio.to_thread(
        read_report, jobs, fine_tuning_job_id, form, f"{_PATH}/{fine_tuning_job_id}/report"
    )
    return Response(content, media_type=MEDIA[form])


@router.get(
    "/{fine_tuning_job_id}/report/plots/{plot}",
    responses={**_ONE, 200: {"content": {kind: {} for kind in _PICTURES.values()}, "description": "the picture"}},
    response_class=Response,
    summary="A plot of a job's report",
)
async def plot(fine_tuning_job_id: str, plot: str, jobs: JobsDep) -> Response:
    """`series`, `contributions` or `training`, with `.svg` or `.png`: of jobs on numbers, where the report has the
    data.
    """
    name, _, suffix = plot.rpartition(".")
    if suffix not in _PICTURES:
        raise JobNotFound(f"expected a plot's name with .svg or .png, got {plot[:80]!r}", param="plot")
    form: Literal["svg", "png"] = "svg" if suffix == "svg" else "png"
    return Response(
        await asyncio.to_thread(read_plot, jobs, fine_tuning_job_id, name, form), media_type=_PICTURES[suffix]
    )


def render(job: Job, org: str) -> dict[str, Any]:
    """A job as OpenAI shows it, with fields of ours."""
    error = {"code": job.error_code, "message": job.error_message, "param": job.error_param} if job.error_code else None
    supervised = {"task": job.task, "hyperparameters": job.hyperparameters, "columns": job.columns}
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "finished_at": _whole(job.finished_at),
        "status": "queued" if job.status == "paused" else job.status,
        "paused": job.status == "paused",
        "model": job.base,
        "fine_tuned_model": job.fine_tuned_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": [],
        "seed": job.seed,
        "hyperparameters": job.hyperparameters,
        "method": {"type": "supervised", "supervised": supervised},
        "organization_id": org,
        "error": error,
        "estimated_finish": _whole(job.estimated_finish),
        "trained_tokens": job.trained_tokens,
        "metadata": job.metadata,
        "integrations": [],
        "attempt": job.attempt,
        "result": job.result,
    }


def _create(
    body: JobBody, served: Servable | None, jobs: JobBackend, settings: Settings, idempotency_key: IdempotencyKey | None
) -> dict[str, Any]:
    supervised = body.method.supervised if body.method else Supervised(hyperparameters=body.hyperparameters or {})
    place = PARAM if body.method else "hyperparameters"
    base, spec = _beginning(settings, body, supervised, served)
    parse(supervised.task, supervised.hyperparameters, place)
    _check_columns(supervised, of_numbers=base == SENSORS)
    job = "ftjob-" + secrets.token_hex(12)
    until = _check_rows(jobs, body)
    new = NewJob(
        id=job,
        base=base,
        base_spec=spec,
        task=supervised.task,
        name=model_name(base, settings.org, body.suffix or job.removeprefix("ftjob-")),
        seed=body.seed or 0,
        training_file=body.training_file,
        validation_file=body.validation_file,
        feedback_until=until,
        hyperparameters=_storable(supervised.hyperparameters, place),
        columns=dict(supervised.columns),
        metadata=body.metadata,
    )
    return jobs.store.create(new, lambda made: render(made, settings.org), idempotency_key)[0]


def _beginning(settings: Settings, body: JobBody, supervised: Supervised, served: Servable | None) -> tuple[str, str]:
    """What a job begins with, by name and place: a model of texts, or `sensors` for models of numbers, which begin
    with nothing.
    """
    kind, task = supervised.hyperparameters.get("kind"), supervised.task
    if served is not None:
        if isinstance(served, ServedSensor):
            raise WrongTask(
                f"model: models of numbers are trained anew: take {SENSORS!r}, got {body.model}", param="model"
            )
        if task == "forecast" or (task == "anomaly" and kind is not None):
            raise WrongTask(
                f"model: {task} of numbers begins with {SENSORS!r}, got {body.model}, which reads texts", param="model"
            )
        _refuse_base(served, task)
        return _base(settings, served)
    if task not in _OF_NUMBERS:
        raise WrongTask(
            f"model: {SENSORS!r} is for {' and '.join(_OF_NUMBERS)} of numbers; {task} needs a served model",
            param="model",
        )
    if task == "anomaly" and kind not in _KINDS:
        param = f"{PARAM}.kind"
        came = repr(kind[:60]) if isinstance(kind, str) else kind_of(kind)
        raise InvalidRequest(f"{param}: expected {' or '.join(_KINDS)}, got {came}", param=param)
    if body.training_file.startswith(PREFIX):
        raise InvalidRequest(
            "training_file: feedback is on texts; upload a table of numbers, CSV or Parquet", param="training_file"
        )
    return SENSORS, SENSORS


def _refuse_base(served: Servable, task: str) -> None:
    """Raise WrongTask unless the model, or the encoder below its head, is one that the task can begin with."""
    alone = not isinstance(served, FineTunedModel) or served.takes_pairs
    does = served.card.task if alone else "embedding"
    if does != "embedding" and not (task == does == "rerank"):
        wanted = "embedding or rerank" if task == "rerank" else "embedding"
        raise WrongTask(
            f"model: {task} begins with a model for {wanted}, {served.card.name} does {does}: take another",
            param="model",
        )


def _base(settings: Settings, served: Servable) -> tuple[str, str]:
    """A model of the settings, also where a head on it was asked for, or a tuned encoder."""
    if not isinstance(served, FineTunedModel):
        return served.card.name, _spec(settings, served.card.name)
    base = served.manifest.base
    return base, served.label if served.owns_engine else _spec(settings, base)


def _check_columns(supervised: Supervised, *, of_numbers: bool) -> None:
    """Raise InvalidRequest for a mapping of columns by which no row of the task can be read."""
    param = "method.supervised.columns"
    if of_numbers and supervised.columns:
        raise InvalidRequest(
            f"columns: maps columns of texts; those of numbers are named in {PARAM}: leave it out", param=param
        )
    if not of_numbers:
        try:
            check_columns(supervised.columns, supervised.task)
        except TrainingDataError as error:
            raise InvalidRequest(error.message, param=param) from error


def _check_rows(jobs: JobBackend, body: JobBody) -> int | None:
    """That the rows are there; of feedback, the number of the newest row that counts."""
    until = None
    if body.training_file.startswith(PREFIX):
        until = jobs.feedback.newest(body.training_file.removeprefix(PREFIX))
        if until is None:
            message = f"training_file: there is no feedback on {body.training_file.removeprefix(PREFIX)[:100]!r}"
            raise InvalidRequest(message, param="training_file")
    else:
        _require_file(jobs, body.training_file, "training_file")
    if body.validation_file is not None:
        _require_file(jobs, body.validation_file, "validation_file")
    return until


def _require_file(jobs: JobBackend, file: str, param: str) -> None:
    try:
        jobs.files.get(file)
    except FileMissing as error:
        error.param = param
        raise


def _spec(settings: Settings, name: str) -> str:
    """Where a base model is, as `--model` said it."""
    for spec in settings.model:
        if parse_spec(spec)[0] == name:
            return spec
    return name


def _storable(value: dict[str, Any], param: str) -> dict[str, Any]:
    if "\\u0000" in json.dumps(value):
        raise InvalidRequest(f"{param}: a text has a NUL character; leave it out", param=param)
    return value


def _number(after: str | None) -> int | None:
    """An event's or checkpoint's number from its id."""
    return None if after is None else int(after.rpartition("-")[2])


def _event(event: Event) -> dict[str, Any]:
    about = {"level": event.level, "message": event.message, "type": event.type, "data": event.data}
    return {
        "id": f"ftevent-{event.seq}",
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at),
        **about,
    }


def _checkpoint(job: str, one: Checkpoint) -> dict[str, Any]:
    return {
        "id": f"ftckpt-{one.seq}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(one.created_at),
        "fine_tuning_job_id": job,
        "fine_tuned_model_checkpoint": f"{job}:step-{one.step}",
        "step_number": one.step,
        "metrics": {"step": one.step, **one.metrics},
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
