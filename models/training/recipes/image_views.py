"""Views of training images: whether a frozen encoder's head is fitted to changed copies of them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.images.data_uri import to_data_uri
from models.training import metrics
from models.training.augmentation_options import ImageAugmentation
from models.training.context import ImageContext
from models.training.heads.linear_head import Floats, Ints
from models.training.hyperparameters import ClassificationHyperparameters, ImageClassificationHyperparameters
from models.training.images.augmentation import AugmentedImages, ImageAugmenter, view_keys
from models.training.images.embeddings import ImageEmbedder
from models.training.job_events import emit
from models.training.metrics import Interval
from models.training.recipes.candidate import Candidate
from models.training.recipes.frozen_candidate import fit_frozen
from models.training.recipes.text_dataset import TextDataset
from models.training.report import Choice, Picture

# With more images, views gain little and take hours.
_MOST_IMAGES = 2000
_PICTURES, _PICTURE_SIDE = 6, 448
_TITLE = "Training images (upper left) and changed copies of them"


class ImageViews:
    """Embeddings of changed copies of a job's images."""

    def __init__(self, context: ImageContext, settings: ImageAugmentation) -> None:
        self._store, self._count = context.store, settings.views
        self._images = AugmentedImages(context.store, ImageAugmenter(settings, context.job.seed))
        self._embed = ImageEmbedder(context.model, self._images, context.cache, context.events)

    def __call__(self, keys: Sequence[str]) -> Floats:
        """Embeddings [views * n, d]: the first view of each image, then the second, and so on."""
        return self._embed(view_keys(keys, range(self._count)))

    def pictures(self, keys: Sequence[str]) -> tuple[Picture, ...]:
        """Some images with some of their views, for the report."""
        drawn = [(self._store.name(key), self._images.picture(key)) for key in keys[:_PICTURES]]
        return tuple(Picture(_TITLE, name, to_data_uri(image, _PICTURE_SIDE)) for name, image in drawn)


@dataclass(frozen=True, slots=True)
class ViewsChoice:
    """The frozen candidate, and the views that its head is fitted to, if any.

    `for_tuning` says whether an encoder is tuned on views: not where they make the frozen head worse.
    """

    candidate: Candidate
    views: ImageViews | None
    for_tuning: bool


def choose_views(
    context: ImageContext, settings: ImageClassificationHyperparameters, data: TextDataset, plain: Candidate
) -> ViewsChoice:
    """Fit the head to views, too, and keep that where the job asks for it or it is better out of fold.

    The held-out images judge the winner and have no part in this choice.
    """
    asked = settings.augmentation
    if asked.use == "off":
        return _keep(context, ViewsChoice(plain, None, for_tuning=False), "the job asks for it")
    if asked.use == "auto" and len(data.texts) > _MOST_IMAGES:
        why = f"there are more than {_MOST_IMAGES} images, where copies gain a frozen encoder's head little"
        return _keep(context, ViewsChoice(plain, None, for_tuning=True), why)
    views = ImageViews(context, asked)
    context.report.pictures += views.pictures(data.texts_at(np.unique(data.y, return_index=True)[1]))
    candidate = fit_frozen(context, settings.of_head, data, views)
    rows = {"on": _out_of_fold(candidate), "off": _out_of_fold(plain)}
    figures = {name: {"accuracy out of fold": metrics.accuracy(data.y, found)} for name, found in rows.items()}
    if asked.use == "on":
        return _keep(context, ViewsChoice(candidate, views, for_tuning=True), "the job asks for it", figures)
    lead = _lead(context, settings.of_head, data, **rows)
    measured = f"{lead.value:+.4f} ({lead.low:+.4f} to {lead.high:+.4f})"
    emit(context.events, f"augmentation: a head fitted to {asked.views} copies of each image, too, leads by {measured}")
    chosen = ViewsChoice(plain, None, for_tuning=lead.high >= 0 or lead.is_few)
    if lead.low > 0 and not lead.is_few:
        chosen = ViewsChoice(candidate, views, for_tuning=True)
    return _keep(context, chosen, f"its lead in {settings.of_head.metric} out of fold is {measured}", figures)


def _lead(
    context: ImageContext, settings: ClassificationHyperparameters, data: TextDataset, on: Ints, off: Ints
) -> Interval:
    classes, seed = len(data.labels), context.job.seed
    return metrics.gain_in(settings.metric, data.y, on, off, classes, seed=seed, level=settings.confidence)


def _keep(
    context: ImageContext, chosen: ViewsChoice, reason: str, figures: Mapping[str, Mapping[str, float]] | None = None
) -> ViewsChoice:
    """The choice, written to the report."""
    name = "off" if chosen.views is None else "on"
    context.report.choices.append(Choice("Augmentation", name, reason, figures or {}))
    return chosen


def _out_of_fold(candidate: Candidate) -> Ints:
    if candidate.out_of_fold is None:
        raise ValueError("expected a frozen candidate, which has predictions out of fold")
    return candidate.out_of_fold
