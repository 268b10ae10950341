"""The classification recipe of images: a head and a detector on a frozen or tuned encoder, as of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from models.images.data_uri import to_data_uri
from models.images.golden_images import GOLDEN_IMAGES, GOLDEN_SIDE, read_golden
from models.text.heads import LinearHead
from models.training.confusion import Confusion
from models.training.context import ImageContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.hyperparameters import ImageClassificationHyperparameters
from models.training.job import Outcome
from models.training.job_events import emit
from models.training.recipes import classification
from models.training.recipes.candidate import Candidate
from models.training.recipes.encoder_comparison import EncoderComparison
from models.training.recipes.frozen_candidate import fit_frozen
from models.training.recipes.image_views import choose_views
from models.training.recipes.text_dataset import TextDataset
from models.training.tuning.image_tuning import image_tuning, object_to_time

_PICTURE_SIDE = 96


def train(context: ImageContext, settings: ImageClassificationHyperparameters, parts: DataSplit) -> Outcome:
    """Train, judge on the held-out images, and write the model to `context.result`."""
    of_head, store = settings.of_head, context.store
    data = TextDataset.of(parts, of_head.label_names)
    choice = choose_views(context, settings, data, fit_frozen(context, of_head, data))
    frozen, views = choice.candidate, choice.views
    emit(context.events, frozen.summary)
    tuning = image_tuning(context, settings, len(data.texts), on_views=choice.for_tuning)
    comparison = EncoderComparison(
        context,
        of_head,
        data,
        frozen,
        tuning,
        views,
        same_file=parts.same_file,
        objection=partial(object_to_time, context, tuning, len(data.texts)),
    )
    contest = classification.compete(context, of_head, parts, data, frozen, comparison, views)
    context.report.confusion = Confusion.of(
        data.labels,
        data.held_y,
        contest.winner.predicted,
        [store.name(key) for key in data.held_texts],
        parts.held_out.lines,
        lambda row: to_data_uri(store.picture(data.held_texts[row]), _PICTURE_SIDE),
    )
    found = classification.outcome(context, data, frozen, contest, _golden(context, contest.published, data))
    return replace(found, metrics={name: value for name, value in found.metrics.items() if name != "lexical"})


def _golden(context: ImageContext, published: Candidate, data: TextDataset) -> dict[str, object]:
    """Small copies of held-out images of several labels, and the probabilities of the written head for them."""
    uris = golden_uris(context, data.one_of_each_label)
    x = published.embedder.encode(read_golden(uris, context.model.images))
    rows = LinearHead.load(context.result).probabilities(torch.from_numpy(x)).tolist()
    return golden_texts(context, uris, rows, classification.TOLERANCE)


def golden_uris(context: ImageContext, keys: Sequence[str]) -> list[str]:
    """Small copies of the first images, without loss."""
    return [to_data_uri(context.store.picture(key), GOLDEN_SIDE, "PNG") for key in keys[:GOLDEN_IMAGES]]
