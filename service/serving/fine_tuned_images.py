"""A fine-tuned model of images in service: a head, or a detector of patches, on a shared encoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.images.detectors.detector import CalibratedImageDetector
from models.images.golden_images import ImageParts, read_golden
from models.registry.artifact import Manifest
from models.registry.golden_rows import compare
from models.text.detectors.detector import ScoredTexts
from models.text.golden_texts import normalize_rows
from service.serving.fine_tuned_metadata import text_metadata
from service.serving.image_model import ReadsImages, ServedPatches
from service.serving.servable import ServingContext

_GOLDEN_TIMEOUT_S = 60.0


class FineTunedImages(ReadsImages):
    """A version of a fine-tuned model of images, which computes with the engine of its base or of its own encoder."""

    def __init__(self, base: ReadsImages, manifest: Manifest, parts: ImageParts, context: ServingContext) -> None:
        super().__init__(base, base.engine, context, text_metadata(base.metadata, manifest))
        self.images, self.image_limits = base.images, base.image_limits
        self.manifest = manifest
        self.base_patches = base.patches
        self._parts = parts

    @property
    def owns_engine(self) -> bool:
        return self.manifest.encoder == "own"

    @property
    def fitted_detector(self) -> tuple[CalibratedImageDetector, ServedPatches] | None:
        """The detector of patches with what computes them; None for a classifier."""
        if self._parts.detector is None or self.base_patches is None:
            return None
        return self._parts.detector, self.base_patches

    def logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ReadsImages."""
        return self._parts.logits(rows)

    def probabilities(self, rows: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
        """See ReadsImages."""
        return self._parts.probabilities(rows, multi_label=multi_label)

    def score(self, rows: NDArray[np.float32]) -> ScoredTexts | None:
        """See ReadsImages."""
        detector = None if self._parts.classifier is None else self._parts.classifier.detector
        if detector is None:
            return None
        with torch.inference_mode():
            return detector.score(normalize_rows(rows))

    def check_golden(self) -> None:
        """Run the golden images through the engine. Raises ArtifactError where the answers differ."""
        uris = self.manifest.golden.texts
        if not uris:
            return
        patches = self.base_patches if self._parts.detector is not None else None
        engine = self.engine if patches is None else patches.engine
        request = engine.submit(read_golden(uris, self.images), client="golden inputs")
        rows = request.future.result(_GOLDEN_TIMEOUT_S)
        answers = self._parts.answers(rows, None if patches is None else patches.model)
        compare(self.manifest, answers, self.metadata.dtype)
