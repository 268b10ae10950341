"""Anomaly scores of images, by normal images of the same request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fastapi import Response
from PIL import Image
from torch import Tensor

from models.images.detectors.base import CalibratedImageDetector, ScoredImages
from models.images.detectors.padim import fit_padim
from models.images.detectors.patch_core import fit_patch_core
from service.api.compute_route import ComputeCall
from service.api.image_urls import fetch_images
from service.api.responses import alpha_warnings, list_body, png_uri, usage
from service.api.schemas.anomaly import AnomalyBody, ImageDetectorName
from service.api.schemas.fields import require_count
from service.api.schemas.images import EncodedImage, name_images
from service.errors import InvalidRequest
from service.serving.image_model import FitImages, ImageOutput, ServedPatches

# Patch features take 0.3 MB an image.
_MOST_IMAGES = 500
_LEAST_REFERENCE = 3
# The grey of a place that is as strange as the threshold; the strangest one is white.
_THRESHOLD_GREY = 128
_FITS: dict[ImageDetectorName, FitImages] = {"padim": fit_padim, "patchcore": fit_patch_core}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The scores of a request's images. `parts` were computed for them."""

    detector: CalibratedImageDetector
    scored: ScoredImages
    parts: tuple[ImageOutput, ...]


async def score_images(images: list[EncodedImage], body: AnomalyBody, call: ComputeCall) -> Response:
    """A score, a p-value and a verdict for each image."""
    served = await call.manager.resolve_images("embedding", body.model)
    if served.patches is None:
        name = served.metadata.name
        message = f"{name} gives one vector an image, and defects are found by an encoder's inner maps: name another"
        raise InvalidRequest(message, param="model")
    reference = body.normal_images
    if len(reference) < _LEAST_REFERENCE:
        expected = f"expected at least {_LEAST_REFERENCE} images that show what normal is"
        raise InvalidRequest.at("reference", f"{expected}, got {len(reference)}")
    require_count(len(images), _MOST_IMAGES, "images")
    require_count(len(reference), _MOST_IMAGES, "reference")
    patches = served.patches
    outcome = await call.cancel_on_disconnect(_score(images, reference, body.detector, patches, call))
    content = await served.run_in_pool(lambda: _write(outcome, body, patches))
    return call.respond(content, served, *outcome.parts)


async def _score(
    images: list[EncodedImage],
    reference: list[EncodedImage],
    kind: ImageDetectorName,
    patches: ServedPatches,
    call: ComputeCall,
) -> _Outcome:
    fetched = await fetch_images([*reference, *images], call)
    reference, images = fetched[: len(reference)], fetched[len(reference) :]
    detector, more = await patches.fitted(kind, reference, call.caller, name_images(reference), _FITS[kind])
    rows = await patches.image_rows(images, call.caller, "anomaly", name_images(images))
    scored = await patches.run_in_pool(lambda: detector.score(patches.model.unflatten(rows.values)))
    return _Outcome(detector, scored, (rows, *more))


def _write(outcome: _Outcome, body: AnomalyBody, patches: ServedPatches) -> bytes:
    detector, scored = outcome.detector, outcome.scored
    threshold = detector.threshold(body.alpha)
    data: list[dict[str, object]] = [
        {
            "object": "anomaly",
            "index": index,
            "score": float(scored.scores[index]),
            "p_value": float(scored.p_values[index]),
            "is_anomaly": float(scored.p_values[index]) <= body.alpha,
            "contributions": None,
            "nearest": [],
            "anomaly_map": _draw(scored.places[index], threshold, patches) if body.maps else None,
            "truncated": False,
        }
        for index in range(len(scored.scores))
    ]
    return list_body(
        body.model,
        data,
        alpha=body.alpha,
        threshold=threshold,
        events=None,
        drift=None,
        state=None,
        reference={"count": detector.count, "cached": len(outcome.parts) == 1, "truncated": 0},
        warnings=alpha_warnings(detector.count, body.alpha, "reference images", "send at least {} images"),
        usage=usage(*outcome.parts),
    )


def _draw(places: Tensor, threshold: float | None, patches: ServedPatches) -> str:
    """A map of scores [places] as a data URI of a PNG, of the size that the model reads."""
    grid, signature = patches.model.grid, patches.images.signature
    scores = places.reshape(grid, grid).numpy()
    limit = float(scores.max()) if threshold is None else threshold
    beyond = max(float(scores.max()) - limit, 1e-6)
    grey = np.where(
        scores < limit,
        _THRESHOLD_GREY * scores / max(limit, 1e-6),
        _THRESHOLD_GREY + (255 - _THRESHOLD_GREY) * (scores - limit) / beyond,
    ).astype(np.uint8)
    return png_uri(Image.fromarray(grey).resize((signature.width, signature.height), Image.Resampling.BILINEAR))
