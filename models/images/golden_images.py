"""Golden images: a loaded model of images must reproduce its outputs after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from models.errors import ArtifactError
from models.images.data_uri import from_data_uri
from models.images.detectors.detector import CalibratedImageDetector
from models.images.detectors.serialization import load_image_detector
from models.images.model import ImageModel
from models.images.patches import PatchEncoder, PatchFeatures, PatchModel
from models.images.pixels import Pixels
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits
from models.registry.artifact import Manifest
from models.registry.golden_rows import compare
from models.text.golden_texts import ModelParts, read_parts

# Their number and longest side: manifests, which hold them, stay small.
GOLDEN_IMAGES, GOLDEN_SIDE = 4, 96
Rows = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ImageParts:
    """An artifact's parts beside an encoder of images: a head with a detector, or a detector of patches."""

    classifier: ModelParts | None
    detector: CalibratedImageDetector | None

    def logits(self, rows: Rows) -> Rows:
        """Logits [n, labels] of vectors [n, d]."""
        return self._require_classifier().logits(rows, ())

    def probabilities(self, rows: Rows, *, multi_label: bool = False) -> Rows:
        """Probabilities [n, labels] of vectors [n, d]: all summing to 1, or each label by itself."""
        return self._require_classifier().probabilities(rows, (), multi_label=multi_label)

    def answers(self, rows: Rows, patches: PatchFeatures | None) -> Rows:
        """Outputs as golden rows hold them, of vectors or patch features: probabilities [n, labels], scores [n, 1]."""
        if self.classifier is not None:
            return self.probabilities(rows)
        if self.detector is None or patches is None:
            raise ArtifactError("its encoder has no inner maps that could be read")
        scores: Rows = self.detector.score(patches.unflatten(rows)).scores.numpy()[:, None]
        return scores

    def _require_classifier(self) -> ModelParts:
        if self.classifier is None:
            raise ArtifactError("it is a detector, which has no labels")
        return self.classifier


def read_image_parts(path: Path, manifest: Manifest) -> ImageParts:
    """An artifact's parts. Raises ArtifactError and ModelSourceError where they cannot be read."""
    if manifest.task == "classification":
        return ImageParts(read_parts(path, manifest), None)
    if manifest.task == "anomaly":
        return ImageParts(None, load_image_detector(path))
    raise ArtifactError(f"{manifest.task} is not done with images")


def read_golden(uris: Sequence[object], images: ImageProcessor) -> list[Pixels]:
    """Golden images as the network reads them. Raises ArtifactError for what is none."""
    try:
        return [images.read(from_data_uri(str(uri)), ImageLimits(), "golden image") for uri in uris]
    except ValueError as error:
        raise ArtifactError(f"golden images: {error}") from error


def reproduce(path: Path, manifest: Manifest, model: ImageModel) -> None:
    """Run an artifact's golden images. Raises ArtifactError when the outputs differ."""
    if not manifest.golden.texts:
        return
    parts, pixels = read_image_parts(path, manifest), read_golden(manifest.golden.texts, model.images)
    patches = PatchModel(model) if parts.detector is not None and isinstance(model, PatchEncoder) else None
    rows = (patches or model).forward(pixels)
    compare(manifest, parts.answers(rows, patches), model.metadata.dtype)
