"""Hugging Face's inference API for images: classification, by labels of the request too, detection, and text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import orjson
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import ValidationError

from service.api.hot_path import ComputeCall
from service.api.image_urls import compute_images
from service.api.routes.classify_images import score_images
from service.api.routes.detect import describe_objects, find_objects
from service.api.routes.ocr import read_pages
from service.api.schemas.images import EncodedImage
from service.api.schemas.requests import SingleInput, require_few_scores
from service.api.schemas.tei import PredictParameters
from service.api.schemas.vision import (
    DetectionParameters,
    HubClassificationBody,
    HubDetectionBody,
    HubImageBody,
    HubZeroShotBody,
)
from service.serving.image_model import ReadsImages, ServedTextImages
from service.serving.text_recognition import ServedRecognizer

BodyT = TypeVar("BodyT", bound=HubImageBody)
# As in transformers' pipeline.
_TEMPLATE = "This is a photo of {}."


async def find_model(sent: Any, call: ComputeCall, model: str | None) -> ReadsImages | None:
    """The model of images that a body is for; None for a body of texts.

    Raises WrongTask for an image to a model that does none of these tasks.
    """
    if not isinstance(sent, dict):
        return None
    named = model or sent.get("model")
    name = named if isinstance(named, str) else None
    if isinstance(sent.get("inputs"), bytes):
        served = await call.manager.resolve_any_images(name)
        return served if served.metadata.task in _TASKS else await call.manager.resolve_images("classification", name)
    found = await call.manager.resolve(name)
    if isinstance(found, ServedTextImages):
        return found if _has_labels(sent) else None
    return found if isinstance(found, ReadsImages) and found.metadata.task in _TASKS else None


async def answer(sent: dict[str, Any], served: ReadsImages, call: ComputeCall) -> Response:
    """What the model does with the images of a body: a list of its findings, or a list of those for a list."""
    return await (_classify_zero_shot if isinstance(served, ServedTextImages) else _TASKS[served.metadata.task])(
        sent, served, call
    )


def _has_labels(sent: dict[str, Any]) -> bool:
    parameters = sent.get("parameters")
    return isinstance(parameters, dict) and parameters.get("candidate_labels") is not None


async def _classify(sent: dict[str, Any], served: ReadsImages, call: ComputeCall) -> Response:
    """Labels with scores, best first."""
    body = _read(HubClassificationBody, sent, call)
    parameters = body.parameters or PredictParameters()
    require_few_scores(len(body.inputs), served.metadata.labels, parameters.top_k, "inputs")
    multi_label = served.metadata.multi_label
    if parameters.function_to_apply is not None:
        multi_label = parameters.function_to_apply == "sigmoid"
    rows = await call.cancel_on_disconnect(compute_images(body.inputs, served, call, "classification"))
    if parameters.function_to_apply == "none":
        scores = served.logits(rows.values)
    else:
        scores = served.probabilities(rows.values, multi_label=multi_label)
    ranked = [_rank(served.metadata.labels, row, parameters.top_k) for row in scores]
    return call.respond(_write(ranked, body.inputs), served, rows)


async def _classify_zero_shot(sent: dict[str, Any], served: ReadsImages, call: ComputeCall) -> Response:
    """The candidate labels with scores, best first. SigLIP is trained to judge each label by itself."""
    body = _read(HubZeroShotBody, sent, call)
    names = body.parameters.labels(call.settings.max_inputs)
    require_few_scores(len(body.inputs), names, None, "inputs")
    labels = {name: about or _TEMPLATE.replace("{}", name) for name, about in names.items()}
    by_itself = body.parameters.multi_label or served.metadata.architecture.startswith("siglip")
    work = score_images(body.inputs, labels, served, call, multi_label=by_itself)
    scored = await call.cancel_on_disconnect(work)
    ranked = [_rank(scored.names, row) for row in scored.scores]
    return call.respond(_write(ranked, body.inputs), served, *scored.parts)


async def _detect(sent: dict[str, Any], served: ReadsImages, call: ComputeCall) -> Response:
    """Objects with label, score and box in whole pixels, best first."""
    body = _read(HubDetectionBody, sent, call)
    threshold = (body.parameters or DetectionParameters()).threshold
    found, rows = await find_objects(body.inputs, served, call, threshold=threshold)
    described = [describe_objects(objects, served, whole=True) for _, objects in found]
    return call.respond(_write(described, body.inputs), served, rows)


async def _recognize(sent: dict[str, Any], served: ReadsImages, call: ComputeCall) -> Response:
    """The text of the whole image, as image-to-text answers."""
    body = _read(HubImageBody, sent, call)
    recognizer = cast(ServedRecognizer, served)  # as every model of this task is
    pages, times = await call.cancel_on_disconnect(read_pages(body.inputs, recognizer, call, lines=False))
    texts: list[list[dict[str, object]]] = [[{"generated_text": page.lines[0].text}] for page in pages]
    return call.respond(_write(texts, body.inputs), served, times)


def _read(kind: type[BodyT], sent: dict[str, Any], call: ComputeCall) -> BodyT:
    """The body. The path may name its model."""
    try:
        body = kind.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    call.require_inputs(len(body.inputs), "inputs")
    return body


def _rank(names: Sequence[str], scores: NDArray[np.float32], most: int | None = None) -> list[dict[str, object]]:
    return [
        {"label": names[at], "score": float(scores[at])} for at in np.argsort(-scores, kind="stable")[:most].tolist()
    ]


def _write(answers: list[list[dict[str, object]]], inputs: list[EncodedImage]) -> bytes:
    return orjson.dumps(answers[0] if isinstance(inputs, SingleInput) else answers)


_TASKS: dict[str, Callable[[dict[str, Any], ReadsImages, ComputeCall], Awaitable[Response]]] = {
    "classification": _classify,
    "detection": _detect,
    "ocr": _recognize,
}
