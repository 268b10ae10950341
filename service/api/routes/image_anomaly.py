"""Anomaly scores of images, by a trained detector or by normal images of the same request."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Response
from torch import Tensor

from models.images.data_uri import to_data_uri
from models.images.detectors.detector import CalibratedImageDetector, ScoredImages
from models.images.detectors.padim import fit_padim
from models.images.detectors.patch_core import fit_patch_core
from models.images.heat_map import draw_map
from service.api.hot_path import ComputeCall
from service.api.image_urls import fetch_images
from service.api.responses import alpha_warnings, anomaly_body, anomaly_object
from service.api.schemas.anomaly import AnomalyBody, ImageDetectorName
from service.api.schemas.images import EncodedImage, name_images
from service.api.schemas.requests import require_count
from service.errors import InvalidRequest
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.image_model import FitImages, ImageOutput, ReadsImages, ServedPatches
from service.serving.servable import Servable

# Patch features take 0.3 MB an image.
_MOST_IMAGES = 500
_LEAST_REFERENCE = 3
_FITS: dict[ImageDetectorName, FitImages] = {"padim": fit_padim, "patchcore": fit_patch_core}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The scores of a request's images. `parts` were computed for them, `advice` goes before a number of images."""

    detector: CalibratedImageDetector
    scored: ScoredImages
    parts: tuple[ImageOutput, ...]
    advice: str


async def score_images(images: list[EncodedImage], body: AnomalyBody, call: ComputeCall, found: Servable) -> Response:
    """A score, a p-value and a verdict for each image, by a trained detector or by reference images."""
    require_count(len(images), _MOST_IMAGES, "images")
    if isinstance(found, FineTunedImages) and found.fitted_detector is not None:
        _require_own_normal(body, found)
        served: ReadsImages = found
        detector, patches = found.fitted_detector
    else:
        served = call.manager.require_images(found, "embedding")
        detector, patches = None, _require_patches(served)
    outcome = await call.cancel_on_disconnect(_score(images, body, detector, patches, call))
    content = await patches.run_in_pool(lambda: _write(outcome, body, patches))
    return call.respond(content, served, *outcome.parts)


def _require_own_normal(body: AnomalyBody, served: FineTunedImages) -> None:
    """Raise InvalidRequest for fields that say what is normal: a trained detector knows."""
    for name in ("reference", "detector"):
        if name in body.model_fields_set:
            message = f"{name}: {served.metadata.name} was trained on what is normal; leave {name} out"
            raise InvalidRequest(message, param=name)


def _require_patches(served: ReadsImages) -> ServedPatches:
    if served.patches is None:
        name = served.metadata.name
        message = f"{name} gives one vector an image, and defects are found by an encoder's inner maps: name another"
        raise InvalidRequest(message, param="model")
    return served.patches


def _require_reference(body: AnomalyBody) -> list[EncodedImage]:
    reference = body.normal_images
    if len(reference) < _LEAST_REFERENCE:
        expected = f"expected at least {_LEAST_REFERENCE} images that show what normal is"
        raise InvalidRequest.at("reference", f"{expected}, got {len(reference)}")
    require_count(len(reference), _MOST_IMAGES, "reference")
    return reference


async def _score(
    images: list[EncodedImage],
    body: AnomalyBody,
    trained: CalibratedImageDetector | None,
    patches: ServedPatches,
    call: ComputeCall,
) -> _Outcome:
    """Scores by a trained detector, or by one that is fitted to the reference."""
    detector, more = trained, list[ImageOutput]()
    reference = _require_reference(body) if trained is None else []
    fetched = await fetch_images([*reference, *images], call)
    reference, images = fetched[: len(reference)], fetched[len(reference) :]
    if detector is None:
        kind = body.detector
        detector, more = await patches.fitted(kind, reference, call.caller, name_images(reference), _FITS[kind])
    rows = await patches.image_rows(images, call.caller, "anomaly", name_images(images))
    scored = await patches.run_in_pool(lambda: detector.score(patches.model.unflatten(rows.values)))
    return _Outcome(detector, scored, (rows, *more), "send" if trained is None else "train on")


def _write(outcome: _Outcome, body: AnomalyBody, patches: ServedPatches) -> bytes:
    detector, scored = outcome.detector, outcome.scored
    threshold, advice = detector.threshold(body.alpha), f"{outcome.advice} at least {{}} images"
    scores, p_values = scored.scores.tolist(), scored.p_values.tolist()
    maps = [_draw(places, threshold, patches) if body.maps else None for places in scored.places]
    each = enumerate(zip(scores, p_values, maps, strict=True))
    return anomaly_body(
        body,
        [anomaly_object(index, score, p, body.alpha, anomaly_map=drawn) for index, (score, p, drawn) in each],
        threshold,
        {"count": detector.count, "cached": len(outcome.parts) == 1, "truncated": 0},
        alpha_warnings(detector.count, body.alpha, "reference images", advice),
        outcome.parts,
    )


def _draw(places: Tensor, threshold: float | None, patches: ServedPatches) -> str:
    """A map of scores [places] as a data URI of a PNG, of the size that the model reads."""
    size = patches.images.signature
    picture = draw_map(places.numpy(), threshold, size.width, size.height)
    return to_data_uri(picture, max(picture.size), "PNG")
