"""Which class serves a model of images."""

from __future__ import annotations

from typing import cast

from models.images.reader import ImageLimits
from models.images.text_recognizer import RecognizesText
from service.serving.image_model import ServedImages, ServedPatches, ServedTextImages
from service.serving.model_opener import OpenedImages
from service.serving.servable import ServingContext
from service.serving.text_recognition import ServedRecognizer


def serve_images(opened: OpenedImages, context: ServingContext, limits: ImageLimits) -> ServedImages | ServedTextImages:
    """A model of images in service, which may read texts as well, or write them; with its patches, where it has any."""
    model = opened.model
    if model.metadata.task == "ocr":
        return ServedRecognizer(cast(RecognizesText, model), opened.engine, context, limits)
    kind = ServedTextImages if model.metadata.max_tokens else ServedImages
    served = kind(model, opened.engine, context, limits)
    if opened.patches is not None:
        served.patches = ServedPatches(*opened.patches, context, limits)
    return served
