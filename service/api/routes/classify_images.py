"""Classification of images: by a classifier's own labels, or zero-shot by an encoder of texts and images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from models.images.zero_shot import LabelPrototypes
from service.api.hot_path import ComputeCall
from service.api.image_urls import compute_images
from service.api.routes.label_scores import LabelScores
from service.api.schemas.images import EncodedImage
from service.errors import InvalidRequest
from service.serving.image_model import ImageOutput, ReadsImages, ServedTextImages
from service.serving.text_model import ModelOutput, TokenizeOptions


async def score_images(
    images: list[EncodedImage],
    labels: dict[str, str | list[str]] | None,
    served: ReadsImages,
    call: ComputeCall,
    *,
    multi_label: bool,
) -> LabelScores:
    """Probabilities of a classifier's labels, or of the request's. Raises InvalidRequest for labels out of place."""
    if served.metadata.task == "classification":
        if labels is not None:
            raise InvalidRequest(
                f"{served.metadata.name} was trained on labels of its own; leave labels out", param="labels"
            )
        rows = await compute_images(images, served, call, "classification")
        return score_own_labels(served, rows, multi_label=multi_label)
    if not isinstance(served, ServedTextImages):
        raise InvalidRequest(
            f"{served.metadata.name} is an encoder of images alone: name a classifier, or a model that reads texts too",
            param="model",
        )
    if labels is None:
        raise InvalidRequest(f"{served.metadata.name} is an encoder: give it labels to choose from", param="labels")
    return await _score_zero_shot(images, labels, served, call, multi_label=multi_label)


def score_own_labels(served: ReadsImages, rows: ImageOutput, *, multi_label: bool) -> LabelScores:
    """Probabilities of a classifier's own labels, by its rows."""
    scores = served.probabilities(rows.values, multi_label=multi_label or served.metadata.multi_label)
    return LabelScores(served.metadata.labels, scores, served.score(rows.values), (rows,))


async def _score_zero_shot(
    images: list[EncodedImage],
    labels: dict[str, str | list[str]],
    served: ServedTextImages,
    call: ComputeCall,
    *,
    multi_label: bool,
) -> LabelScores:
    _require_comparable(labels, served, multi_label=multi_label)
    owners, texts = zip(*_label_texts(labels), strict=True)
    options = TokenizeOptions(param="labels")
    fit: Callable[[ModelOutput], LabelPrototypes] = partial(_fit, owners)
    prototypes, more = await served.fitted(
        LabelPrototypes, list(labels.items()), list(texts), call.caller, "classification", options, fit
    )
    rows = await compute_images(images, served, call, "classification")
    scores = prototypes.probabilities(rows.values, served.metadata.zero_shot, multi_label=multi_label)
    about: dict[str, object] = {
        "count": len(texts),
        "cached": not more,
        "truncated": sum(part.truncated for part in more),
    }
    return LabelScores(tuple(labels), scores, None, (rows, *more), about)


def _require_comparable(labels: dict[str, str | list[str]], served: ServedTextImages, *, multi_label: bool) -> None:
    """Refuse labels by themselves where the model only compares them: without a bias, each one would get about 1."""
    _, bias = served.metadata.zero_shot
    if bias:
        return
    only_compares = f"{served.metadata.name} only compares labels with each other"
    if multi_label:
        raise InvalidRequest.at("multi_label", f"{only_compares}: leave it out, or name a SigLIP")
    if len(labels) == 1:
        raise InvalidRequest.at("labels", f"{only_compares}: expected at least 2, got 1; add what else it may be")


def _label_texts(labels: dict[str, str | list[str]]) -> list[tuple[int, str]]:
    """Each text of a label with the label's number: its description or examples, else its name in a sentence."""
    texts = [
        [f"a photo of a {name.replace('_', ' ')}"] if not about else [about] if isinstance(about, str) else about
        for name, about in labels.items()
    ]
    return [(number, text) for number, of_label in enumerate(texts) for text in of_label]


def _fit(owners: tuple[int, ...], rows: ModelOutput) -> LabelPrototypes:
    return LabelPrototypes.of(rows.values, owners)
