"""Which class serves a model of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from models.images.base import ImageModel
from models.images.patches import PatchEncoder, PatchModel
from models.images.reader import ImageLimits
from models.images.text_recognizer import RecognizesText
from service.engine.row_engine import RowEngine
from service.serving.image_model import ServedImages, ServedPatches, ServedTextImages
from service.serving.servable import ServingContext
from service.serving.text_recognition import ServedRecognizer


def serve_images(
    model: ImageModel,
    engine: RowEngine[Any],
    context: ServingContext,
    limits: ImageLimits,
    start_patches: Callable[[PatchModel], RowEngine[Any]] | None = None,
) -> ServedImages | ServedTextImages:
    """A model of images in service, which may read texts as well, or write them.

    `start_patches` starts an engine for the patches of a model that has any; without it, they are not computed.
    """
    if model.metadata.task == "ocr":
        return ServedRecognizer(cast(RecognizesText, model), engine, context, limits)
    kind = ServedTextImages if model.metadata.max_tokens else ServedImages
    served = kind(model, engine, context, limits)
    if start_patches is not None and isinstance(model, PatchEncoder):
        patches = PatchModel(model)
        served.patches = ServedPatches(patches, start_patches(patches), context, limits)
    return served
