"""Which class serves a model of images."""

from __future__ import annotations

from typing import Any, cast

from models.images.base import ImageModel
from models.images.patches import PatchEncoder, PatchModel
from models.images.reader import ImageLimits
from models.images.text_recognizer import RecognizesText
from service.engine.row_engine import RowEngine
from service.serving.engine_factory import EngineFactory
from service.serving.image_model import ServedImages, ServedPatches, ServedTextImages
from service.serving.servable import ServingContext
from service.serving.text_recognition import ServedRecognizer


def serve_images(
    model: ImageModel, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits, engines: EngineFactory
) -> ServedImages | ServedTextImages:
    """A model of images in service, which may read texts as well, or write them; with its patches, where it has any."""
    if model.metadata.task == "ocr":
        return ServedRecognizer(cast(RecognizesText, model), engine, context, limits)
    kind = ServedTextImages if model.metadata.max_tokens else ServedImages
    served = kind(model, engine, context, limits)
    if isinstance(model, PatchEncoder):
        patches = PatchModel(model)
        served.patches = ServedPatches(patches, engines.start_patches(patches), context, limits)
    return served
