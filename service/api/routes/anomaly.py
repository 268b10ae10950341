"""Anomaly scores: of texts by a detector that was trained, or against reference texts that show what normal is; of
numbers by `sensing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from fastapi import APIRouter, Request, Response

from models.text.detectors.base import Verdict
from models.text.detectors.knn import ReferenceDetector
from service.api.deps import INFER, CallerDep, ManagerDep, SettingsDep, cancel_on_disconnect
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import build_response, list_body, unreachable, usage
from service.api.routes.sensor_anomaly import score_readings
from service.api.schemas.anomaly import AnomalyAnswer, AnomalyBody
from service.api.schemas.fields import naming_of, require_count
from service.config import Settings
from service.errors import BackendError, InvalidRequest, WrongTask
from service.serving.fine_tuned import FineTunedModel
from service.serving.model_manager import ModelManager
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Caller
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["Sonde"])


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """A caller's reference set on one model: its detector, and how many of its texts were cut."""

    detector: ReferenceDetector
    truncated: int

    @property
    def count(self) -> int:
        return len(self.detector.calibration)

    @property
    def size_bytes(self) -> int:
        return int(self.detector.reference.nbytes + self.detector.calibration.nbytes)


@dataclass(frozen=True, slots=True)
class TextVerdicts:
    """Verdicts on a request's texts, the score from which one is an anomaly, and what they rest on."""

    verdict: Verdict
    threshold: float | None
    reference: dict[str, object]
    warnings: list[str]


@router.post("/v1/anomaly/score", responses=answers(AnomalyAnswer), summary="Score how strange texts or readings are")
async def score(
    body: AnomalyBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """How far each text, record or reading of a series is from what is normal, as a score, a p-value and a verdict
    at `alpha`.

    A model that was trained for it knows what is normal; an encoder is told by `reference`.
    """
    served = await manager.resolve(body.model)
    if isinstance(served, ServedSensor) and served.card.task == "anomaly":
        return await score_readings(body, request, settings, caller, served)
    return await _score_texts(body, request, manager, settings, caller, await manager.resolve_texts(body.model))


async def _score_texts(
    body: AnomalyBody, request: Request, manager: ModelManager, settings: Settings, caller: Caller, served: ServedText
) -> Response:
    texts = _texts(body, served)
    require_count(len(texts), settings.max_inputs, "input")
    require_count(len(body.reference or []), settings.max_inputs, "reference")
    if isinstance(served, FineTunedModel) and served.card.task == "anomaly":
        work = _by_training(body, texts, served, caller)
    else:
        work = _by_reference(body, texts, manager.require_task(served, "embedding"), caller)
    judged, rows, *more = await cancel_on_disconnect(request, work)
    content = list_body(
        body.model,
        [_one(judged.verdict, index, rows, body.alpha) for index in range(len(texts))],
        alpha=body.alpha,
        threshold=judged.threshold,
        drift=None,
        state=None,
        reference=judged.reference,
        warnings=judged.warnings,
        usage=usage(rows, *more),
    )
    return build_response(request, content, served, rows, *more)


def _texts(body: AnomalyBody, served: ServedText) -> list[str]:
    if body.input is None:
        name = "records" if body.records is not None else "series"
        raise WrongTask(
            f"{served.card.name} reads texts, not numbers: send input, or name a model trained on {name}", param="model"
        )
    if body.contributions:
        raise InvalidRequest(
            f"contributions: are of columns of numbers; {served.card.name} reads texts", param="contributions"
        )
    texts: list[str] = body.input
    return texts


async def _by_training(
    body: AnomalyBody, texts: list[str], served: FineTunedModel, caller: Caller
) -> tuple[TextVerdicts, ModelOutput, *tuple[ModelOutput, ...]]:
    if body.reference is not None:
        raise InvalidRequest(
            f"{served.card.name} was trained on what is normal; leave reference out", param="reference"
        )
    rows = await served.rows(texts, caller, "anomaly", _reading(body, served))

    def judge() -> TextVerdicts:
        verdict = served.judge(rows.values)
        if verdict is None:
            raise BackendError(f"{served.card.name} has no detector")
        about: dict[str, object] = {"count": served.calibrated_on, "cached": True, "truncated": 0}
        warnings = unreachable(served.calibrated_on, body.alpha, "reference texts", "train on at least {} texts")
        return TextVerdicts(verdict, served.threshold(body.alpha), about, warnings)

    return await served.run_in_pool(judge), rows


async def _by_reference(
    body: AnomalyBody, texts: list[str], served: ServedText, caller: Caller
) -> tuple[TextVerdicts, ModelOutput, *tuple[ModelOutput, ...]]:
    if body.reference is None:
        raise InvalidRequest(
            f"{served.card.name} is an encoder: give it a reference, texts that show what normal is", param="reference"
        )
    reading = TokenizeOptions(prompt=served.prompt(None), truncate=body.truncate, param="reference")
    reference, more = await served.fitted(
        ReferenceSet, body.reference, body.reference, caller, "anomaly", reading, _fit
    )
    rows = await served.rows(texts, caller, "anomaly", _reading(body, served))

    def judge() -> TextVerdicts:
        with torch.inference_mode():
            verdict = reference.detector.judge(torch.from_numpy(rows.values))
            about: dict[str, object] = {"count": reference.count, "cached": not more, "truncated": reference.truncated}
            warnings = unreachable(reference.count, body.alpha, "reference texts", "send at least {} texts")
            return TextVerdicts(verdict, reference.detector.threshold(body.alpha), about, warnings)

    return await served.run_in_pool(judge), rows, *more


def _reading(body: AnomalyBody, served: ServedText) -> TokenizeOptions:
    name = naming_of("input", body.input)
    return TokenizeOptions(prompt=served.prompt(None), truncate=body.truncate, name=name)


def _fit(rows: ModelOutput) -> ReferenceSet:
    with torch.inference_mode():
        return ReferenceSet(ReferenceDetector().fit(torch.from_numpy(rows.values)), rows.truncated)


def _one(verdict: Verdict, index: int, rows: ModelOutput, alpha: float) -> dict[str, object]:
    p_value = float(verdict.p_values[index])
    nearest = zip(verdict.nearest[index].tolist(), verdict.similarities[index].tolist(), strict=True)
    return {
        "object": "anomaly",
        "index": index,
        "score": float(verdict.scores[index]),
        "p_value": p_value,
        "is_anomaly": p_value <= alpha,
        "contributions": None,
        "nearest": [{"index": at, "similarity": similarity} for at, similarity in nearest],
        "truncated": rows.tokens[index].truncated,
    }
