"""Anomaly scores of texts, and the route of all anomaly scores.

A detector trained on texts scores texts by itself; an encoder compares them with the request's reference texts.
`image_anomaly` scores images, `sensor_anomaly` records and series, `program_anomaly` tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from fastapi import APIRouter, Response

from models.text.detectors.detector import ScoredTexts
from models.text.detectors.knn import ReferenceDetector
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.responses import alpha_warnings, anomaly_body, anomaly_object
from service.api.routes.image_anomaly import score_images
from service.api.routes.program_anomaly import score_program
from service.api.routes.sensor_anomaly import score_readings
from service.api.schemas.anomaly import AnomalyAnswer, AnomalyBody
from service.api.schemas.requests import name_inputs
from service.errors import BackendError, InvalidRequest, WrongTask
from service.serving.fine_tuned import FineTunedModel
from service.serving.program_model import ServedProgram
from service.serving.sensor_model import ServedSensor
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(tags=["Sonde"])


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """A detector of a request's reference texts, and how many of those were cut."""

    detector: ReferenceDetector
    truncated: int

    @property
    def count(self) -> int:
        return len(self.detector.calibration)

    @property
    def size_bytes(self) -> int:
        return int(self.detector.reference.nbytes + self.detector.calibration.nbytes)


@dataclass(frozen=True, slots=True)
class TextScores:
    """The scores of a request's texts; those from `threshold` on are anomalies.

    `parts` were computed for them.
    """

    scored: ScoredTexts
    threshold: float | None
    reference: dict[str, object]
    warnings: list[str]
    parts: tuple[ModelOutput, ...]


@compute_route(router, "/v1/anomaly/score", AnomalyAnswer, "Score how strange texts, images or readings are")
async def score(body: AnomalyBody, call: CallDep) -> Response:
    """A score, a p-value and a verdict at `alpha` for each text, image, record or reading.

    A model that was trained for it knows what is normal; an encoder takes `reference`.
    """
    served = await call.manager.resolve(body.model)
    if body.inputs is not None or body.rows is not None or isinstance(served, ServedProgram):
        return await score_program(body, call, call.manager.require_program(served, "anomaly"))
    if body.images is not None:
        return await score_images(body.images, body, call, served)
    if isinstance(served, ServedSensor) and served.metadata.task == "anomaly":
        return await score_readings(body, call, served)
    return await _score_texts(body, call, call.manager.require_texts(served))


async def _score_texts(body: AnomalyBody, call: ComputeCall, served: ServedText) -> Response:
    texts = _require_texts(body, served)
    call.require_inputs(len(texts), "input")
    call.require_inputs(len(body.reference or []), "reference")
    if isinstance(served, FineTunedModel) and served.metadata.task == "anomaly":
        work = _score_by_training(body, texts, served, call)
    else:
        work = _score_by_reference(body, texts, call.manager.require_task(served, "embedding"), call)
    outcome = await call.cancel_on_disconnect(work)
    rows = outcome.parts[0]
    data = [_score_object(outcome.scored, index, rows, body.alpha) for index in range(len(texts))]
    content = anomaly_body(body, data, outcome.threshold, outcome.reference, outcome.warnings, outcome.parts)
    return call.respond(content, served, *outcome.parts)


def _require_texts(body: AnomalyBody, served: ServedText) -> list[str]:
    """The request's texts.

    Raises WrongTask for readings, and InvalidRequest for options that only readings have.
    """
    if body.input is None:
        name = "records" if body.records is not None else "series"
        raise WrongTask(
            f"{served.metadata.name} reads texts, not readings: send input, or name a model trained on {name}",
            param="model",
        )
    if body.contributions:
        raise InvalidRequest.at("contributions", f"are of columns of readings; {served.metadata.name} reads texts")
    texts: list[str] = body.input
    return texts


async def _score_by_training(
    body: AnomalyBody, texts: list[str], served: FineTunedModel, call: ComputeCall
) -> TextScores:
    if body.reference is not None:
        raise InvalidRequest(
            f"{served.metadata.name} was trained on what is normal; leave reference out", param="reference"
        )
    rows = await served.rows(texts, call.caller, "anomaly", _tokenize_options(body, served))

    def compute() -> TextScores:
        scored = served.score(rows.values)
        if scored is None:
            raise BackendError(f"{served.metadata.name} has no detector")
        about: dict[str, object] = {"count": served.calibrated_on, "cached": True, "truncated": 0}
        warnings = alpha_warnings(served.calibrated_on, body.alpha, "reference texts", "train on at least {} texts")
        return TextScores(scored, served.threshold(body.alpha), about, warnings, (rows,))

    return await served.run_in_pool(compute)


async def _score_by_reference(body: AnomalyBody, texts: list[str], served: ServedText, call: ComputeCall) -> TextScores:
    if body.reference is None:
        raise InvalidRequest(
            f"{served.metadata.name} is an encoder: give it a reference, texts that show what normal is",
            param="reference",
        )
    options = TokenizeOptions(prompt=served.prompt(None), truncate=body.truncate, param="reference")
    reference, more = await served.fitted(
        ReferenceSet, body.reference, body.reference, call.caller, "anomaly", options, _fit_reference
    )
    rows = await served.rows(texts, call.caller, "anomaly", _tokenize_options(body, served))

    def compute() -> TextScores:
        with torch.inference_mode():
            scored = reference.detector.score(torch.from_numpy(rows.values))
            about: dict[str, object] = {"count": reference.count, "cached": not more, "truncated": reference.truncated}
            warnings = alpha_warnings(reference.count, body.alpha, "reference texts", "send at least {} texts")
            threshold = reference.detector.threshold(body.alpha)
            return TextScores(scored, threshold, about, warnings, (rows, *more))

    return await served.run_in_pool(compute)


def _tokenize_options(body: AnomalyBody, served: ServedText) -> TokenizeOptions:
    return TokenizeOptions(served.prompt(None), body.truncate, name=name_inputs("input", body.input))


def _fit_reference(rows: ModelOutput) -> ReferenceSet:
    with torch.inference_mode():
        return ReferenceSet(ReferenceDetector().fit(torch.from_numpy(rows.values)), rows.truncated)


def _score_object(scored: ScoredTexts, index: int, rows: ModelOutput, alpha: float) -> dict[str, object]:
    score, p_value = float(scored.scores[index]), float(scored.p_values[index])
    pairs = zip(scored.nearest[index].tolist(), scored.similarities[index].tolist(), strict=True)
    nearest = [{"index": at, "similarity": similarity} for at, similarity in pairs]
    return anomaly_object(index, score, p_value, alpha, nearest=nearest, truncated=rows.tokens[index].truncated)
