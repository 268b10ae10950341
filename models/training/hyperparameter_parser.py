"""The parser of a job's hyperparameters, with errors that say what is allowed.

The API reads a job's hyperparameters with `parse` before it queues the job, without torch; the trainer does so again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from models.training.errors import HyperparameterError
from models.training.hyperparameters import (
    IMAGES,
    PARAM,
    ClassificationHyperparameters,
    EmbeddingHyperparameters,
    ForecastHyperparameters,
    Hyperparameters,
    ImageAnomalyHyperparameters,
    ImageClassificationHyperparameters,
    RerankHyperparameters,
    SensorAnomalyHyperparameters,
    Task,
    TextAnomalyHyperparameters,
)
from models.validation_messages import describe_fault

# OpenAI's clients send these three with every job; recipes without epochs accept "auto" for them.
_FROM_OPENAI = ("n_epochs", "batch_size", "learning_rate_multiplier")
_TASKS: dict[str, type[Hyperparameters]] = {
    "classification": ClassificationHyperparameters,
    "anomaly": TextAnomalyHyperparameters,
    "embedding": EmbeddingHyperparameters,
    "rerank": RerankHyperparameters,
    "forecast": ForecastHyperparameters,
}
_OF_IMAGES: dict[str, type[Hyperparameters]] = {
    "classification": ImageClassificationHyperparameters,
    "anomaly": ImageAnomalyHyperparameters,
}


def parse(task: str, given: Mapping[str, Any], place: str = PARAM) -> Hyperparameters:
    """Check what a job sets for its task.

    Raises HyperparameterError for the first fault, with what is allowed; its `param` is the full path below `place`.
    """
    chosen = _choose(task, given.get("kind"))
    unset = {name for name in given if given[name] is None or (name in _FROM_OPENAI and given[name] == "auto")}
    try:
        return chosen.model_validate({name: value for name, value in given.items() if name not in unset})
    except ValidationError as error:
        raise _to_error(task, chosen, error, place) from error


def _choose(task: str, kind: object) -> type[Hyperparameters]:
    """The settings of a task. Texts have no kind; readings say whether they are records or series."""
    param = "method.supervised.task"
    if kind == IMAGES and task in get_args(Task):
        if task not in _OF_IMAGES:
            message = f"task: expected {' or '.join(_OF_IMAGES)} for images, got {task!r}"
            raise HyperparameterError("unknown_task", message, param)
        return _OF_IMAGES[task]
    chosen = SensorAnomalyHyperparameters if task == "anomaly" and kind is not None else _TASKS.get(task)
    if chosen is None:
        message = f"task: expected one of {', '.join(get_args(Task))}, got {task!r}"
        raise HyperparameterError("unknown_task", message, param)
    return chosen


def _to_error(task: str, chosen: type[Hyperparameters], error: ValidationError, place: str) -> HyperparameterError:
    """The first of pydantic's errors, with what its field allows."""
    errors = error.errors(include_url=False)
    first = errors[0]
    unknown = first["type"] == "extra_forbidden"
    path = [str(part)[:60] for part in first["loc"] if unknown or not _is_branch(part)]
    param = ".".join([place, *path])
    if unknown:
        nested = chosen.model_fields[path[0]].annotation if path[1:] else chosen
        fields = nested.model_fields if isinstance(nested, type) and issubclass(nested, BaseModel) else {}
        message = f"{'.'.join(path)}: unknown for task {task}; known are {', '.join(sorted(fields))}"
        return HyperparameterError("unknown_hyperparameter", message, param)
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        name = message.split(":", 1)[0].split(" ", 1)[0]
        param = f"{place}.{name}" if name in chosen.model_fields else param
    else:
        allowed = "; ".join(
            dict.fromkeys(describe_fault(item) for item in errors if item["loc"][:1] == first["loc"][:1])
        )
        message = f"{path[0] if path else ''}: {allowed}, got {_shorten(first['input'])!r}"
    return HyperparameterError("invalid_hyperparameter", message, param)


def _shorten(value: object) -> str:
    try:
        return str(value)[:60]
    except RecursionError:  # JSON may be as deep as Python's stack
        return f"a {type(value).__name__}"


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names a branch of a union here rather than a field."""
    return isinstance(part, str) and (
        part.startswith(("constrained-", "literal[", "function-")) or part in ("int", "float", "bool", "str")
    )
