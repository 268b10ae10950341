"""Views of training images: whether a frozen encoder's head is fitted to changed copies of them, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.images.data_uri import to_data_uri
from models.training import metrics
from models.training.augmentation_options import ImageAugmentation
from models.training.events import emit
from models.training.heads.linear_head import Floats, Ints
from models.training.hyperparameters import ClassificationHyperparameters, ImageClassificationHyperparameters
from models.training.images.augmentation import AugmentedImages, ImageAugmenter, view_keys
from models.training.images.embeddings import ImageEmbedder
from models.training.job import ImageContext
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


def choose_views(
    context: ImageContext, settings: ImageClassificationHyperparameters, data: TextDataset, plain: Candidate
) -> tuple[Candidate, ImageViews | None]:
    """The candidate whose head is fitted to views, too, where the job asks for it or it is better out of fold.

    The held-out images judge the winner and have no part in this choice.
    """
    asked = settings.augmentation
    if asked.use == "off":
        return _keep(context, plain, "the job asks for it")
    if asked.use == "auto" and len(data.texts) > _MOST_IMAGES:
        return _keep(context, plain, f"there are more than {_MOST_IMAGES} images, where copies gain little")
    views = ImageViews(context, asked)
    context.report.pictures += views.pictures(data.texts_at(np.unique(data.y, return_index=True)[1]))
    candidate = fit_frozen(context, settings.of_head, data, views)
    on, off = _out_of_fold(candidate), _out_of_fold(plain)
    lead = _lead(context, settings.of_head, data, on, off)
    measured = f"{lead.value:+.4f} ({lead.low:+.4f} to {lead.high:+.4f})"
    emit(
        context.events, f"augmentation: the head fitted to {asked.views} copies of each image, too, leads by {measured}"
    )
    taken = asked.use == "on" or (lead.low > 0 and not lead.is_few)
    reason = f"its lead in {settings.of_head.metric} out of fold is {measured}"
    figures = {
        name: {"accuracy out of fold": metrics.accuracy(data.y, rows)} for name, rows in {"on": on, "off": off}.items()
    }
    context.report.choices.append(
        Choice(
            "Augmentation", "on" if taken else "off", "the job asks for it" if asked.use == "on" else reason, figures
        )
    )
    return (candidate, views) if taken else (plain, None)


def _lead(
    context: ImageContext, settings: ClassificationHyperparameters, data: TextDataset, on: Ints, off: Ints
) -> Interval:
    classes, seed = len(data.labels), context.job.seed
    return metrics.gain_in(settings.metric, data.y, on, off, classes, seed=seed, level=settings.confidence)


def _keep(context: ImageContext, plain: Candidate, reason: str) -> tuple[Candidate, None]:
    context.report.choices.append(Choice("Augmentation", "off", reason))
    return plain, None


def _out_of_fold(candidate: Candidate) -> Ints:
    if candidate.out_of_fold is None:
        raise ValueError("expected a frozen candidate, which has predictions out of fold")
    return candidate.out_of_fold
