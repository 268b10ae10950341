"""A fine-tuned text model in service: a head or detector on a shared or own encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.registry.artifact import Manifest
from models.registry.golden_rows import compare
from models.text.detectors.detector import ScoredTexts
from models.text.golden_texts import ModelParts, answers, normalize_rows, read_texts
from models.text.model import DescribedTextModel
from models.text.tokenization import Tokens
from service.engine.row_engine import RowEngine
from service.serving.fine_tuned_images import FineTunedImages
from service.serving.fine_tuned_metadata import text_metadata
from service.serving.program_version import ProgramVersion
from service.serving.sensor_model import ServedSensor
from service.serving.servable import ServingContext
from service.serving.text_model import ServedText

_GOLDEN_TIMEOUT_S = 60.0


class FineTunedModel(ServedText):
    """A version of a fine-tuned model; `logits` and `score` make answers of encoder rows.

    A request that holds a version can finish with it: an engine of its own runs until no request holds the version.
    """

    def __init__(
        self,
        model: DescribedTextModel,
        engine: RowEngine[Tokens],
        manifest: Manifest,
        parts: ModelParts,
        context: ServingContext,
    ) -> None:
        super().__init__(model, engine, context, text_metadata(model.metadata, manifest))
        self.manifest = manifest
        self._parts = parts

    @property
    def owns_engine(self) -> bool:
        return self.manifest.encoder == "own"

    @property
    def takes_pairs(self) -> bool:
        """Whether its encoder reads two texts at once."""
        return self._parts.head is None and self.manifest.task in {"classification", "rerank"}

    @property
    def calibrated_on(self) -> int:
        """How many normal items calibrate its p-values; 0 without a detector."""
        return 0 if self._parts.detector is None else len(self._parts.detector.calibration)

    def logits(self, rows: NDArray[np.float32], tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """Compute logits [n, labels] from the encoder's rows [n, d] and the texts' tokens."""
        return self._parts.logits(rows, tokens)

    def probabilities(
        self, rows: NDArray[np.float32], tokens: Sequence[Tokens], *, multi_label: bool
    ) -> NDArray[np.float32]:
        """Compute probabilities [n, labels]: all summing to 1, or each label by itself."""
        return self._parts.probabilities(rows, tokens, multi_label=multi_label)

    def score(self, rows: NDArray[np.float32]) -> ScoredTexts | None:
        """Scores and p-values of the encoder's rows [n, d]; None without a detector."""
        if self._parts.detector is None:
            return None
        with torch.inference_mode():
            return self._parts.detector.score(normalize_rows(rows))

    def threshold(self, alpha: float) -> float | None:
        """The score from which an item is an anomaly at `alpha`; None where it is unknown."""
        return None if self._parts.detector is None else self._parts.detector.threshold(alpha)

    def check_golden(self) -> None:
        """Run the golden inputs through the engine. Raises ArtifactError where the answers differ."""
        golden = self.manifest.golden
        if golden.texts:
            tokens = read_texts(golden, self.model)
            rows = self.engine.submit(tokens, client="golden inputs").future.result(_GOLDEN_TIMEOUT_S)
            compare(self.manifest, answers(self.manifest, self._parts, rows, tokens), self.metadata.dtype)


LiveVersion = FineTunedModel | FineTunedImages | ServedSensor | ProgramVersion
