"""The contract between worker and trainer: the job and its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from models.filesystem import replace_file
from models.runtime.device_names import DeviceName, DtypeName
from models.sensors.model import Readings
from models.training.errors import TrainingError

JOB, RESULT, RESULT_FILES, ERROR = "job.json", "result.json", "result", "error.json"


@dataclass(frozen=True, slots=True)
class BoundFile:
    """The file of the rows bound to the job's name, which judge every version.

    `task`, `columns` and `hyperparameters` say how to read it. They are those of the binding, never those of the job.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    path: Path
    sha256: str
    task: str
    columns: dict[str, str] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """job.json; its paths are the worker's own, without any part from a client."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    job: str
    base_spec: str  # as `--model` takes it
    base: str
    task: str
    training_file: Path
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    validation_file: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"
    threads: int = 0
    checkpoint: Path | None = None
    cache: Path | None = None
    autotune_file: Path | None = None
    incumbent: Path | None = None
    # The incumbent's base encoder and its version; None where the incumbent has an encoder of its own.
    incumbent_base: str | None = None
    incumbent_base_version: str | None = None
    # The base is a tuned encoder, which can be deleted: the result of a head on it includes a copy.
    keep_encoder: bool = False
    bound: BoundFile | None = None


_JOB = TypeAdapter(TrainingJob)


def read_job(directory: Path) -> TrainingJob:
    """Read `directory/job.json`. Raises TrainingError where it is not a job of this version."""
    try:
        job: TrainingJob = _JOB.validate_json((directory / JOB).read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError("invalid_job", f"{JOB} cannot be read: {error}") from error
    return job


@dataclass(frozen=True, slots=True)
class BoundMetrics:
    """The metrics of the new model and of the version in service on the rows bound to the name.

    `left_out` counts rows of the training file that are among them, and were not trained on. `objection` says why one
    of the two models could not be measured.
    """

    sha256: str
    rows: int
    left_out: int
    metrics: Mapping[str, float] | None = None
    incumbent_metrics: Mapping[str, float] | None = None
    objection: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a recipe returns after it has written `result/`.

    `golden` is `{"texts", "rows", "tolerance"}` (of sensors also `readings`): inputs, and the trained model's outputs
    for them. `sensor` describes a sensor model, which has no encoder.
    """

    encoder: Literal["base", "own", "none"]
    mode: str
    labels: tuple[str, ...]
    metrics: Mapping[str, float]
    incumbent_metrics: Mapping[str, float] | None
    golden: Mapping[str, object]
    trained_tokens: int
    sensor: Mapping[str, object] | None = None
    bound: BoundMetrics | None = None


def golden_readings(readings: Readings, rows: NDArray[np.floating], tolerance: float) -> dict[str, object]:
    """`Outcome.golden` of readings [n, d] with their rows."""
    return {"texts": [], "readings": readings.tolist(), "rows": rows.tolist(), "tolerance": tolerance}


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON atomically."""
    replace_file(path, (json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode())
