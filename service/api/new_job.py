"""A new fine-tuning job: a request's body, checked against models and files."""

from __future__ import annotations

import json
import secrets
from typing import Any

from models.registry.names import model_name
from models.source import parse_spec
from models.training.data.row_layout import check_columns, check_image_columns
from models.training.errors import TrainingDataError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import IMAGES, PARAM
from service.api.schemas.jobs import JobBody, Supervised
from service.api.schemas.requests import kind_of
from service.config import Settings
from service.errors import FileMissing, InvalidRequest, WrongTask
from service.jobs.backend import JobBackend
from service.jobs.records import FEEDBACK_PREFIX, IMAGE, JOB_PREFIX, NewJob
from service.serving.fine_tuned import FineTunedModel
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.image_model import ReadsImages
from service.serving.model_names import SENSORS
from service.serving.program_model import ServedProgram
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Servable

_SENSOR_TASKS = ("anomaly", "forecast")
_SENSOR_KINDS = ("records", "series")
# OpenAI's jobs always have these; "auto" is the same as leaving one out, for every task.
OPENAI_HYPERPARAMETERS = ("batch_size", "learning_rate_multiplier", "n_epochs")


def plan_job(body: JobBody, served: Servable | None, jobs: JobBackend, settings: Settings) -> NewJob:
    """The job that a body asks for, with a new id.

    `served` is the model it names, None for `sensors`. Reads the store, so it belongs in a thread.
    Raises WrongTask, InvalidRequest, HyperparameterError and FileMissing.
    """
    supervised = body.method.supervised if body.method else Supervised(hyperparameters=body.hyperparameters or {})
    supervised = supervised.model_copy(update={"hyperparameters": _drop_auto(supervised.hyperparameters)})
    if served is not None and served.metadata.image is not None:
        supervised = _with_image_kind(supervised)
    base, spec = _plan_base(body, supervised, served, settings)
    param = PARAM if body.method else "hyperparameters"
    parse(supervised.task, supervised.hyperparameters, param)
    _check_columns(supervised, of_sensors=served is None)
    return NewJob(
        id=JOB_PREFIX + secrets.token_hex(12),
        base=base,
        base_spec=spec,
        task=supervised.task,
        name=model_name(base, settings.org, body.suffix or secrets.token_hex(12)),
        seed=body.seed or 0,
        training_file=body.training_file,
        validation_file=body.validation_file,
        feedback_until=_require_rows(jobs, body, IMAGE if _is_on_images(supervised) else None),
        feedback_reader=jobs.principal.reads_feedback_of,
        hyperparameters=_require_storable(supervised.hyperparameters, param),
        columns=dict(supervised.columns),
        metadata=body.metadata,
        owner=jobs.principal.id,
    )


def _plan_base(body: JobBody, supervised: Supervised, served: Servable | None, settings: Settings) -> tuple[str, str]:
    """The name of the model to train, and its source as `--model` takes it."""
    if served is None:
        return _plan_sensor_base(body, supervised)
    if isinstance(served, ServedProgram):
        raise WrongTask(
            f"model: {body.model} is an exported program, which is not trained: take another", param="model"
        )
    plan = _plan_text_base if served.metadata.image is None else _plan_image_base
    return plan(body, supervised, served, settings)


def _plan_sensor_base(body: JobBody, supervised: Supervised) -> tuple[str, str]:
    """The base and its source of a sensor model, which begins with nothing: `sensors`."""
    kind, task = supervised.hyperparameters.get("kind"), supervised.task
    if task not in _SENSOR_TASKS:
        tasks = " and ".join(_SENSOR_TASKS)
        raise WrongTask(f"model: {SENSORS!r} is for {tasks} of readings; {task} needs a served model", param="model")
    if task == "anomaly" and kind not in _SENSOR_KINDS:
        param = f"{PARAM}.kind"
        got = repr(kind[:60]) if isinstance(kind, str) else kind_of(kind)
        raise InvalidRequest.at(param, f"expected {' or '.join(_SENSOR_KINDS)}, got {got}")
    if body.training_file.startswith(FEEDBACK_PREFIX):
        message = "feedback is on texts and images; upload a table of readings, CSV or Parquet"
        raise InvalidRequest.at("training_file", message)
    return SENSORS, SENSORS


def _plan_text_base(body: JobBody, supervised: Supervised, served: Servable, settings: Settings) -> tuple[str, str]:
    """The base and its source of a job on texts.

    That is a model of the settings, or a fine-tuned encoder. For a head, it is the encoder below that head.
    """
    task = supervised.task
    if isinstance(served, ServedSensor):
        raise WrongTask(f"model: sensor models are trained anew: take {SENSORS!r}, got {body.model}", param="model")
    if supervised.hyperparameters.get("kind") == IMAGES:
        raise WrongTask(f"model: images need an encoder of images, and {body.model} reads texts", param="model")
    if task == "forecast" or (task == "anomaly" and supervised.hyperparameters.get("kind") is not None):
        raise WrongTask(
            f"model: {task} of readings begins with {SENSORS!r}, got {body.model}, which reads texts", param="model"
        )
    _require_base_task(served, task)
    if not isinstance(served, FineTunedModel):
        return served.metadata.name, _source(settings, served.metadata.name)
    base = served.manifest.base
    return base, served.label if served.owns_engine else _source(settings, base)


def _with_image_kind(supervised: Supervised) -> Supervised:
    """The same with the kind of rows that a model of images takes. A kind of readings is refused below."""
    return supervised.model_copy(update={"hyperparameters": {"kind": IMAGES, **supervised.hyperparameters}})


def _plan_image_base(body: JobBody, supervised: Supervised, served: Servable, settings: Settings) -> tuple[str, str]:
    """The base and its source of a job on images: an encoder of images alone, or the one below a model on it."""
    if supervised.hyperparameters["kind"] != IMAGES:
        param = f"{PARAM}.kind"
        raise InvalidRequest.at(param, f"{body.model} reads images: leave kind out, or name {SENSORS!r} as the model")
    if isinstance(served, FineTunedImages):
        return served.manifest.base, _source(settings, served.manifest.base)
    if served.metadata.task != "embedding" or served.metadata.max_tokens:
        does = f"{body.model} does {served.does}"
        raise WrongTask(f"model: training begins with an encoder of images alone, {does}: take another", param="model")
    if supervised.task == "anomaly" and (not isinstance(served, ReadsImages) or served.patches is None):
        raise WrongTask(
            f"model: {body.model} has no inner maps, by which defects are found: take another", param="model"
        )
    return served.metadata.name, _source(settings, served.metadata.name)


def _require_base_task(served: Servable, task: str) -> None:
    """Raise WrongTask unless the task can begin with the model or the encoder below its head."""
    alone = not isinstance(served, FineTunedModel) or served.takes_pairs
    does = served.metadata.task if alone else "embedding"
    if does != "embedding" and not (task == does == "rerank"):
        wanted = "embedding or rerank" if task == "rerank" else "embedding"
        raise WrongTask(
            f"model: {task} begins with a model for {wanted}, {served.metadata.name} does {does}: take another",
            param="model",
        )


def _check_columns(supervised: Supervised, *, of_sensors: bool) -> None:
    """Raise InvalidRequest for a mapping of columns that the task cannot read rows by."""
    param = "method.supervised.columns"
    if of_sensors and supervised.columns:
        raise InvalidRequest(
            f"columns: maps columns of texts; those of readings are named in {PARAM}: leave it out", param=param
        )
    if not of_sensors:
        try:
            if _is_on_images(supervised):
                check_image_columns(supervised.columns)
            else:
                check_columns(supervised.columns, supervised.task)
        except TrainingDataError as error:
            raise InvalidRequest(error.message, param=param) from error


def _is_on_images(supervised: Supervised) -> bool:
    return supervised.hyperparameters.get("kind") == IMAGES


def _require_rows(jobs: JobBackend, body: JobBody, kind: str | None) -> int | None:
    """Raise InvalidRequest unless the training and validation rows exist; those of feedback are of a kind.

    Returns the number of the newest feedback that counts, None for files.
    """
    until = None
    if body.training_file.startswith(FEEDBACK_PREFIX):
        model = body.training_file.removeprefix(FEEDBACK_PREFIX)
        until = jobs.feedback.newest(model, kind)
        if until is None:
            message = f"training_file: there is no feedback with {kind or 'text'}s on {model[:100]!r}"
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


def _source(settings: Settings, name: str) -> str:
    """The `--model` value of a base model, else its name."""
    for spec in settings.model:
        if parse_spec(spec)[0] == name:
            return spec
    return name


def _require_storable(value: dict[str, Any], param: str) -> dict[str, Any]:
    """The same value. Raises InvalidRequest for NUL, which PostgreSQL cannot store."""
    if "\\u0000" in json.dumps(value):
        raise InvalidRequest.at(param, "a text has a NUL character; leave it out")
    return value


def _drop_auto(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value != "auto" or name not in OPENAI_HYPERPARAMETERS}
