"""Which contract of tensors a model in service has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from models.programs.description import ProgramTask
from service.api.tensors.images import (
    ImageClassifierTensors,
    ImageDetectorTensors,
    ImageEmbeddingTensors,
    TextRecognizerTensors,
)
from service.api.tensors.model import TensorModel
from service.api.tensors.programs import ProgramTensors
from service.api.tensors.readings import ForecastTensors, RecordTensors, SeriesTensors
from service.api.tensors.text_images import TextImageTensors
from service.api.tensors.texts import ClassifierTensors, EmbeddingTensors, RerankTensors, TextAnomalyTensors
from service.config import Settings
from service.errors import WrongTask
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Servable

_KINDS: dict[tuple[str, str], Callable[[Any, Settings], TensorModel[Any]]] = {
    **{(reads, task): ProgramTensors for reads in ("tensors", "tensors and images") for task in get_args(ProgramTask)},
    ("texts", "embedding"): EmbeddingTensors,
    ("texts", "classification"): ClassifierTensors,
    ("texts", "anomaly"): TextAnomalyTensors,
    ("texts", "rerank"): RerankTensors,
    ("texts and images", "embedding"): TextImageTensors,
    ("images", "embedding"): ImageEmbeddingTensors,
    ("images", "classification"): ImageClassifierTensors,
    ("images", "detection"): ImageDetectorTensors,
    ("images", "ocr"): TextRecognizerTensors,
    ("readings", "records"): RecordTensors,
    ("readings", "series"): SeriesTensors,
    ("readings", "forecast"): ForecastTensors,
}


def tensor_model(served: Servable, settings: Settings) -> TensorModel[Any]:
    """A model in service with its contract. Raises WrongTask for a kind without one."""
    kind = served.signature.kind if isinstance(served, ServedSensor) else served.metadata.task
    made = _KINDS.get((served.reads, kind))
    if made is None:
        about = f"{served.metadata.name} does {kind} with {served.reads}, which has no tensors in the protocol"
        raise WrongTask(f"{about}; use its route below /v1", param="model")
    return made(served, settings)
