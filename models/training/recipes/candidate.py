"""A classifier in the making: an encoder with a head and a detector, measured on the held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.text.detectors.serialization import TextDetector
from models.text.heads import LinearHead
from models.training import metrics as measures
from models.training.embeddings import CachedEmbedder
from models.training.heads import detector_selection
from models.training.heads.linear_head import Floats, Ints
from models.training.recipes.text_dataset import TextDataset


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder with a head and a detector, and their metrics on the held-out rows.

    `probabilities` float32 [m, labels] are those of the held-out rows, by a calibration that has not seen them.
    `scores` [m] are those of the predicted labels as an answer has them: times that of being in scope. `out_of_fold`
    [n] are class numbers of the training rows by heads that have not seen them. `directory` has a tuned encoder.
    """

    mode: str
    embedder: CachedEmbedder
    head: LinearHead
    detector: TextDetector
    probabilities: Floats
    scores: Floats
    metrics: Mapping[str, float]
    directory: Path | None = None
    out_of_fold: Ints | None = None

    @classmethod
    def measured(
        cls,
        mode: str,
        embedder: CachedEmbedder,
        head: LinearHead,
        detector: TextDetector,
        data: TextDataset,
        known: Mapping[str, float],
        directory: Path | None = None,
    ) -> Candidate:
        """A candidate with its metrics on the held-out rows, beside those already `known`."""
        held_x, out_of_scope = embedder(data.held_texts), embedder(data.out_of_scope)
        probabilities: Floats = head.probabilities(torch.from_numpy(held_x), embedder.read(data.held_texts)).numpy()
        scores: Floats = probabilities.max(axis=1) * detector.score(torch.from_numpy(held_x)).in_scope.numpy()
        strange = detector_selection.out_of_scope_metrics(detector, held_x, out_of_scope)
        metrics = {
            **held_out_metrics(data.held_y, probabilities),
            **detector_selection.false_alarms(detector, held_x),
            **known,
            **{f"oos_{name}": value for name, value in strange.items()},
        }
        return cls(mode, embedder, head, detector, probabilities, scores, metrics, directory)

    @property
    def predicted(self) -> Ints:
        """Class numbers [m] of the held-out rows."""
        numbers: Ints = self.probabilities.argmax(axis=1)
        return numbers

    @property
    def confidence(self) -> Floats:
        """The probability [m] of each predicted class."""
        highest: Floats = self.probabilities.max(axis=1)
        return highest

    @property
    def summary(self) -> str:
        """The metrics in one sentence, for the job's events."""
        known = self.metrics
        interval = "too few rows for an interval"
        if "macro_f1_low" in known:
            interval = f"{known['macro_f1_low']:.4f} to {known['macro_f1_high']:.4f}"
        return (
            f"{self.mode}: accuracy {known['accuracy']:.4f}, macro-F1 {known['macro_f1']:.4f} ({interval}), "
            f"calibration error {known['ece']:.4f} on {known['held_out_rows']:.0f} held-out rows"
        )


def held_out_metrics(truth: Ints, probabilities: Floats) -> dict[str, float]:
    """Accuracy, and macro-F1 and calibration error with their intervals, of probabilities [m, labels]."""
    predicted = probabilities.argmax(axis=1)
    macro_f1 = measures.macro_f1_gain(truth, predicted, None, probabilities.shape[1], seed=0)
    return {
        "accuracy": measures.accuracy(truth, predicted),
        "macro_f1": macro_f1.value,
        **({} if macro_f1.is_few else {"macro_f1_low": macro_f1.low, "macro_f1_high": macro_f1.high}),
        **calibration_metrics(truth, probabilities),
        "held_out_rows": float(len(truth)),
    }


def calibration_metrics(truth: Ints, probabilities: Floats) -> dict[str, float]:
    """The calibration error of probabilities [m, labels] with its interval."""
    right = probabilities.argmax(axis=1) == truth
    found = measures.calibration_interval(probabilities.max(axis=1), right, seed=0)
    return {"ece": found.value, "ece_low": found.low, "ece_high": found.high}
