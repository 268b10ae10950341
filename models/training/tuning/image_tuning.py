"""Tuning of an encoder of images: its settings, its views, and whether there is time for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from models.images.processor import probe_image
from models.training.context import ImageContext
from models.training.hyperparameters import ImageClassificationHyperparameters
from models.training.images.augmentation import AugmentedImages, ImageAugmenter, view_keys
from models.training.tuning.encoder_tuning import EncoderTuning
from models.training.tuning.labelled_tuning import Method
from models.training.tuning.settings import TunerSettings, merge_settings
from models.training.tuning.trainable_image_encoder import TrainableImageEncoder

_FEW_ROWS = 2000
_LONGEST_S = 600.0
# A step on an image in forward passes of serving, which are fused: 6.4 for EfficientNet-Lite0 in bfloat16.
_STEP_COST = 6.0
_TIMED_IMAGES = 4


def image_tuning(
    context: ImageContext, settings: ImageClassificationHyperparameters, rows: int, *, on_views: bool
) -> EncoderTuning:
    """The tuning of an encoder of images on this number of rows, or `on_views` of them: each step reads others."""
    how: Method = "lora" if settings.mode == "lora" else "full"
    tuner = merge_settings(_default_settings(how, rows), settings, seed=context.job.seed)
    asked = settings.augmentation
    images = AugmentedImages(context.store, ImageAugmenter(asked, context.job.seed))
    augment = _views_of_step if on_views else None
    return EncoderTuning(context, how, tuner, asked, augment, partial(TrainableImageEncoder, images=images))


def object_to_time(context: ImageContext, tuning: EncoderTuning, rows: int, encoders: int) -> str | None:
    """Why mode auto should not tune this number of encoders: it would take more than ten minutes."""
    seconds = _STEP_COST * _forward_s(context) * tuning.settings.epochs * rows * encoders
    if seconds <= _LONGEST_S:
        return None
    return f"tuning would take some {seconds / 60:.0f} minutes on {context.placement.device}; mode full or lora does it"


def _default_settings(how: Method, rows: int) -> TunerSettings:
    epochs = 10.0 if rows <= _FEW_ROWS else 3.0
    if how == "lora":
        return TunerSettings(mode="lora", epochs=epochs, batch_size=32, learning_rate=1e-3)
    return TunerSettings(mode="full", epochs=epochs, batch_size=32, learning_rate=3e-4, frozen_layers=0.5)


def _views_of_step(texts: Sequence[str], *, epoch: int = 0) -> list[str]:
    return view_keys(texts, range(epoch, epoch + 1))


def _forward_s(context: ImageContext) -> float:
    """Seconds of a forward pass for one image."""
    images = [context.model.images.prepare(probe_image(320, 240, seed)) for seed in range(_TIMED_IMAGES)]
    began = time.monotonic()
    context.model.forward(images)
    return (time.monotonic() - began) / _TIMED_IMAGES
