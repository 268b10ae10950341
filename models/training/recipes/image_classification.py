"""The classification recipe of images: a head and a detector on a frozen encoder's vectors, as of texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.images.data_uri import to_data_uri
from models.images.golden import GOLDEN_IMAGES, GOLDEN_SIDE, read_golden
from models.linalg import normalize
from models.text.heads import LinearHead
from models.training.confusion import Confusion
from models.training.data.dataset import DataSplit
from models.training.events import emit
from models.training.hyperparameters import ImageClassificationHyperparameters
from models.training.job import ImageContext, Outcome, golden_texts
from models.training.metrics import calibration_curve
from models.training.recipes import classification
from models.training.recipes.frozen_candidate import fit_frozen, refit_frozen
from models.training.recipes.image_views import choose_views
from models.training.recipes.text_dataset import TextDataset
from models.training.report import Choice

_PICTURE_SIDE = 96


def train(context: ImageContext, settings: ImageClassificationHyperparameters, parts: DataSplit) -> Outcome:
    """Train, judge on the held-out images, and write the model to `context.result`."""
    of_head, store = settings.of_head, context.store
    data = TextDataset.of(parts, of_head.label_names)
    measured, views = choose_views(context, settings, data, fit_frozen(context, of_head, data))
    published = measured
    emit(context.events, measured.summary)
    if settings.refit and parts.same_file:
        published = refit_frozen(context, of_head, data, measured, views)
        rows = len(data.whole.texts)
        emit(context.events, f"the published model is fitted to all {rows} images; its metrics are from held-out ones")
    classification.write(context, measured, published)
    context.report.choices.append(Choice("Encoder", "frozen", "encoders of images are not tuned"))
    context.report.choices.append(classification.detector_choice(of_head, data, measured, measured))
    context.report.extend(classification.judge(context, parts, data, measured))
    context.report.confusion = Confusion.of(
        data.labels,
        data.held_y,
        measured.predicted,
        [store.name(key) for key in data.held_texts],
        parts.held_out.lines,
        lambda row: to_data_uri(store.picture(data.held_texts[row]), _PICTURE_SIDE),
    )
    right = measured.predicted == data.held_y
    context.report.plots = {"calibration": calibration_curve(measured.confidence, right)}
    return Outcome(
        encoder="base",
        mode="frozen",
        labels=data.labels,
        metrics={name: value for name, value in measured.metrics.items() if name != "lexical"},
        incumbent_metrics=classification.incumbent_metrics(context, data),
        golden=_golden(context, data),
        trained_tokens=context.embedder.count_tokens(data.texts),
    )


def _golden(context: ImageContext, data: TextDataset) -> dict[str, object]:
    """Small copies of held-out images of several labels, and the probabilities of the written head for them."""
    uris = golden_uris(context, data.one_of_each_label)
    x = normalize(context.model.forward(read_golden(uris, context.model.images)))
    rows = LinearHead.load(context.result).probabilities(torch.from_numpy(x)).tolist()
    return golden_texts(context, uris, rows, classification.TOLERANCE)


def golden_uris(context: ImageContext, keys: Sequence[str]) -> list[str]:
    """Small copies of the first images, without loss."""
    return [to_data_uri(context.store.picture(key), GOLDEN_SIDE, "PNG") for key in keys[:GOLDEN_IMAGES]]
