"""A classifier in the making: the job's rows as numbers, and an encoder with a head and a detector, judged on the
held-out rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.text.detectors.serialization import TextDetector
from models.text.heads import LinearHead
from models.training import metrics as evaluation
from models.training import metrics as measures
from models.training.data.dataset import DataSplit
from models.training.embeddings import Embedder
from models.training.errors import TrainingDataError
from models.training.events import ProgressEvents
from models.training.heads import detector_selection, linear_head
from models.training.hyperparameters import ClassificationHyperparameters
from models.training.job import TextContext

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# With so many rows a label or fewer, its name is worth an example: Banking77 at 5 a class gained 1.1 points, at 10 0.4.
_FEW_ROWS = 20


@dataclass(frozen=True, slots=True)
class TextDataset:
    """The job's rows as numbers: texts and class numbers into `labels`, and texts known not to belong."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    y: Ints
    held_texts: tuple[str, ...]
    held_y: Ints
    out_of_scope: tuple[str, ...]

    @classmethod
    def of(cls, parts: DataSplit) -> TextDataset:
        """Number the labels of the training rows in alphabetical order."""
        train, held = parts.train, parts.held_out
        if train.labels is None or held.labels is None:
            raise TrainingDataError(
                "wrong_row_kind", "training_file: classification takes rows of text and label", "training_file"
            )
        labels = tuple(sorted(set(train.labels)))
        number = {label: index for index, label in enumerate(labels)}
        y, held_y = (
            np.array([number[label] for label in rows], dtype=np.int64) for rows in (train.labels, held.labels)
        )
        return cls(labels, tuple(train.texts[0]), y, tuple(held.texts[0]), held_y, parts.out_of_scope)

    @property
    def whole(self) -> TextDataset:
        """The same with all rows to train on: first those that were, then the held-out ones."""
        return replace(self, texts=self.texts + self.held_texts, y=np.concatenate([self.y, self.held_y]))

    def only(self, rows: Ints) -> TextDataset:
        """The same with these of the training rows alone."""
        return replace(self, texts=tuple(self.texts[row] for row in rows.tolist()), y=self.y[rows])

    def names(self, wanted: bool | str) -> tuple[str, ...]:
        """The labels' names as texts where they are worth an example each, else none; "auto" decides by the rows a
        label.
        """
        few = float(np.median(np.bincount(self.y))) <= _FEW_ROWS
        return (
            tuple(label.replace("_", " ") for label in self.labels)
            if wanted is True or (wanted == "auto" and few)
            else ()
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder with a head and a detector, and what they are worth on the held-out rows; `directory` is of a tuned
    encoder.
    """

    mode: str
    embedder: Embedder
    head: LinearHead
    detector: TextDetector
    probabilities: Floats
    metrics: Mapping[str, float]
    directory: Path | None = None

    @property
    def predicted(self) -> Ints:
        """Class numbers [m] of the held-out rows."""
        numbers: Ints = self.probabilities.argmax(axis=1)
        return numbers


def examples(
    settings: ClassificationHyperparameters, data: TextDataset, embed: Callable[[Sequence[str]], Floats], x: Floats
) -> linear_head.Examples:
    """What a head is fitted to: the rows' embeddings x, and those of the labels' names where they are worth an
    example each.
    """
    names = data.names(settings.label_names)
    return (
        linear_head.Examples.of(x, data.y, embed(names), np.arange(len(names)))
        if names
        else linear_head.Examples.of(x, data.y)
    )


def fit(
    context: TextContext, settings: ClassificationHyperparameters, labels: tuple[str, ...], given: linear_head.Examples
) -> linear_head.Fit:
    """A linear head of the strength asked for, or the best out of fold; tells the job's events how far it is."""
    strengths = linear_head.STRENGTHS if settings.C == "auto" else (settings.C,)
    progress = ProgressEvents(context.events, linear_head.count_fits(given.real, len(strengths)))
    return linear_head.fit_head(
        given, labels, strengths=strengths, seed=context.job.seed, done=lambda step: progress(step, given.real)
    )


def judge(
    mode: str,
    embedder: Embedder,
    head: LinearHead,
    detector: TextDetector,
    data: TextDataset,
    known: Mapping[str, float],
    directory: Path | None = None,
) -> Candidate:
    """A candidate with its measures on the held-out rows, beside those already `known`."""
    held_x, out_of_scope = embedder(data.held_texts), embedder(data.out_of_scope)
    probabilities: Floats = head.probabilities(torch.from_numpy(held_x), embedder.read(data.held_texts)).numpy()
    metrics = {
        **held_out_metrics(data.held_y, probabilities),
        **detector_selection.false_alarms(detector, held_x),
        **known,
    }
    if len(out_of_scope):
        normal, strange = (detector(torch.from_numpy(x)).numpy() for x in (held_x, out_of_scope))
        metrics |= {
            "oos_auroc": evaluation.auroc(normal, strange),
            "oos_recall_at_95": evaluation.recall_at_in_scope(normal, strange),
        }
    return Candidate(mode, embedder, head, detector, probabilities, metrics, directory)


def held_out_metrics(truth: Ints, probabilities: Floats) -> dict[str, float]:
    """Accuracy, macro-F1 with its interval, and calibration error of probabilities [m, labels]."""
    predicted = probabilities.argmax(axis=1)
    sure = measures.macro_f1_gain(truth, predicted, None, probabilities.shape[1], seed=0)
    return {
        "accuracy": evaluation.accuracy(truth, predicted),
        "macro_f1": sure.value,
        "macro_f1_low": sure.low,
        "macro_f1_high": sure.high,
        "ece": evaluation.calibration_error(probabilities, truth),
        "held_out_rows": float(len(truth)),
    }


def number(setting: int | str) -> int | None:
    """A setting that is a number; None for "auto"."""
    return setting if isinstance(setting, int) else None
