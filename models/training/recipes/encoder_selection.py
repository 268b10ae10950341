"""A tuned encoder challenges the frozen one, on rows that it was not tuned on: where rows are few, on all of them in
turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.calibration import fit_temperature
from models.text.detectors.serialization import TextDetector
from models.text.heads import LinearHead
from models.training import metrics
from models.training.errors import TrainingError
from models.training.events import emit
from models.training.heads import detector_selection, lexical_head, linear_head
from models.training.hyperparameters import ClassificationHyperparameters, DetectorKind, Metric
from models.training.job import TextContext
from models.training.recipes.candidate import Candidate, TextDataset, examples, judge, number
from models.training.tuning.encoder_tuning import EncoderTuning, open_encoder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# A fifth of so few rows cannot show a lead of one or two points (10 a class of Banking77: 154 rows, a standard error of
# 2.5).
_FEW_ROWS = 1500
# Encoders that are tuned for judgement alone, beside the one that the held-out rows judge.
_MORE_FOLDS = 4
# Banking77, 10 a class, six tunings: 85.3 % at C = 10, 85.6 % at 30, 85.6 % at 100 on rows of the training part outside
# the draw.
_LEAST_STRENGTH = 30.0
_IN_WORDS: dict[Metric, str] = {"macro_f1": "macro-F1", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows that judge an encoder which is tuned without them: their numbers [m] in `TextDataset.whole`, and the
    class numbers [m] that a frozen encoder's head without them gives."""

    rows: Ints
    frozen: Ints


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a jury sees: embeddings [m, d] by the encoder tuned without it, logits [m, labels] at temperature 1 of a
    head on that, and a detector on it."""

    fold: Fold
    x: Floats
    logits: Floats
    detector: TextDetector


@dataclass(frozen=True, slots=True)
class Comparison:
    """A tuned candidate, its rounds against the frozen one, and its lead over all of their rows in the measure that
    decides.
    """

    tuned: Candidate
    tuning: EncoderTuning
    rounds: tuple[FoldResult, ...]
    lead: metrics.Interval
    measure: str

    @property
    def won(self) -> bool:
        """Whether the whole interval of the lead lies above 0."""
        return self.lead.low > 0

    @property
    def rows(self) -> Ints:
        """The rows' numbers in `TextDataset.whole`, in the order of the rounds."""
        return np.concatenate([one.fold.rows for one in self.rounds])

    @property
    def logits(self) -> Floats:
        """Out-of-fold logits float32 [rows, labels]."""
        return np.concatenate([one.logits for one in self.rounds])


def compare_tuned(
    context: TextContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    frozen: Candidate,
    *,
    crossed: bool,
) -> Comparison | None:
    """Tune an encoder and compare; None where mode auto finds nothing to tune on, or nothing to gain.

    `crossed`: the held-out rows are from the same file, so that all rows may judge in turn. Raises TrainingError
    when a mode asked for by name cannot be done.
    """
    folds = _folds(context, settings, data, frozen, crossed=crossed)
    if settings.mode == "auto" and not _can_be_beaten(context, settings, data.whole, folds):
        return None
    try:
        comparison = _compare(context, settings, data, frozen, folds)
    except TrainingError as error:
        if settings.mode != "auto":
            raise
        emit(context.events, f"no tuned encoder: {error.message}; the frozen one stays", "warn")
        return None
    verdict = "wins" if comparison.won else "does not win; the frozen encoder stays"
    rows, lead = len(comparison.rows), comparison.lead
    found = f"{comparison.measure} on {rows} rows that it was not tuned on {lead.value:+.4f} against frozen"
    emit(context.events, f"{comparison.tuned.mode}: {found}, {_interval(settings, lead)}: {verdict}")
    return comparison


def refit_tuned(
    context: TextContext, settings: ClassificationHyperparameters, data: TextDataset, comparison: Comparison
) -> Candidate:
    """The tuned candidate made again with all rows, calibrated by the rounds.

    The same where only the held-out rows have judged: it is calibrated by them and cannot learn from them as well.
    """
    if len(comparison.rounds) == 1:
        return comparison.tuned
    whole = data.whole
    directory = comparison.tuning.run("refitted", *_training_texts(settings, whole))
    embedder = open_encoder(context, directory)
    x = embedder(whole.texts)
    head = linear_head.fit_plain(examples(settings, whole, embedder, x), comparison.tuned.metrics["C"], whole.labels)
    head = _at(head, comparison.logits, whole.y[comparison.rows])
    detector = _detector(settings, x, whole.y, head, context.job.seed)
    detector_selection.calibrate_crossed(detector, [(one.detector, one.x) for one in comparison.rounds])
    return replace(comparison.tuned, embedder=embedder, head=head, detector=detector, directory=directory)


def _folds(
    context: TextContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    frozen: Candidate,
    *,
    crossed: bool,
) -> list[Fold]:
    """The held-out rows; where they may judge and rows are few, also each part of the training rows."""
    whole = data.whole
    folds = [Fold(np.arange(len(data.texts), len(whole.texts)), frozen.predicted)]
    if crossed and len(whole.texts) <= _FEW_ROWS:
        part_of = linear_head.stratified(data.y, _MORE_FOLDS, context.job.seed, context.embedder(data.texts))
        # So few rows that a fold has none make fewer parts.
        parts = [np.flatnonzero(part_of == part) for part in np.unique(part_of)]
        folds += [Fold(rows, _frozen(context, settings, whole, rows, frozen)) for rows in parts]
    return folds


def _can_be_beaten(
    context: TextContext, settings: ClassificationHyperparameters, whole: TextDataset, folds: Sequence[Fold]
) -> bool:
    """Whether an encoder without errors would be seen to lead; tuning takes minutes. Says why not."""
    rows, frozen = (np.concatenate(numbers) for numbers in zip(*((one.rows, one.frozen) for one in folds), strict=True))
    truth = whole.y[rows]
    level = settings.confidence
    best = metrics.gain_in(settings.metric, truth, truth, frozen, len(whole.labels), seed=context.job.seed, level=level)
    if best.low > 0:
        return True
    errors = f"the frozen one is wrong on {int((frozen != truth).sum())} of {len(rows)} rows"
    emit(
        context.events,
        f"no tuned encoder: {errors}, and the lead of one without errors would not show ({_interval(settings, best)})",
    )
    return False


def _interval(settings: ClassificationHyperparameters, lead: metrics.Interval) -> str:
    return f"{100 * settings.confidence:g} % interval {lead.low:+.4f} to {lead.high:+.4f}"


def _compare(
    context: TextContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    frozen: Candidate,
    folds: Sequence[Fold],
) -> Comparison:
    tuning = EncoderTuning(context, settings, len(data.texts))
    tuned, first = _held_out_fold(context, settings, data, tuning, frozen, folds[0])
    rounds = (first, *_more_folds(context, settings, data.whole, tuning, frozen, folds[1:]))
    return Comparison(tuned, tuning, rounds, _lead(context, settings, data.whole, rounds), _IN_WORDS[settings.metric])


def _held_out_fold(
    context: TextContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    tuning: EncoderTuning,
    frozen: Candidate,
    fold: Fold,
) -> tuple[Candidate, FoldResult]:
    """A candidate on an encoder tuned on the training rows. Its embeddings of them flatter it: it is calibrated on
    the held-out ones.
    """
    directory = tuning.run("tuned", *_training_texts(settings, data), add_findings=True)
    embedder = open_encoder(context, directory)
    x, held_x = embedder(data.texts), embedder(data.held_texts)
    strength = _strength(settings, frozen)
    plain = linear_head.fit_plain(examples(settings, data, embedder, x), strength, data.labels)
    logits = _logits(plain, held_x)
    head = _at(plain, logits, data.held_y)
    detector = detector_selection.calibrate_on(_detector(settings, x, data.y, head, context.job.seed), held_x)
    mode = "contrastive" if settings.mode == "auto" else settings.mode
    judged = judge(mode, embedder, head, detector, data, {"C": strength}, directory)
    honest = {"ece": _crossed_calibration_error(plain, logits, data.held_y)}
    return replace(judged, metrics={**judged.metrics, **honest}), FoldResult(fold, held_x, logits, detector)


def _more_folds(
    context: TextContext,
    settings: ClassificationHyperparameters,
    whole: TextDataset,
    tuning: EncoderTuning,
    frozen: Candidate,
    folds: Sequence[Fold],
) -> Iterator[FoldResult]:
    """A round for each further jury, with an encoder tuned, and a head and a detector fitted, without its rows."""
    for turn, fold in enumerate(folds, start=1):
        emit(context.events, f"few rows: tuning once more to judge by others of them, {turn} of {len(folds)}")
        part, texts = _without(whole, fold.rows)
        embed = tuning.temporary(f"tuned-{turn}", *_training_texts(settings, part))
        x, held_x = embed(part.texts), embed(texts)
        head = linear_head.fit_plain(examples(settings, part, embed, x), _strength(settings, frozen), whole.labels)
        yield FoldResult(fold, held_x, _logits(head, held_x), _detector(settings, x, part.y, head, context.job.seed))


def _frozen(
    context: TextContext, settings: ClassificationHyperparameters, whole: TextDataset, rows: Ints, frozen: Candidate
) -> Ints:
    """What a head like the frozen candidate's, fitted to the other rows, says of these."""
    part, texts = _without(whole, rows)
    given = examples(settings, part, context.embedder, context.embedder(part.texts))
    head = linear_head.fit_plain(given, frozen.metrics["C"], part.labels)
    if frozen.metrics["lexical"]:
        read = context.embedder.read(part.texts + part.names(settings.label_names))
        head = lexical_head.with_words(head, given, read, frozen.metrics["C"])
    with torch.inference_mode():
        numbers: Ints = (
            head(torch.from_numpy(context.embedder(texts)), context.embedder.read(texts)).argmax(dim=1).numpy()
        )
    return numbers


def _without(whole: TextDataset, rows: Ints) -> tuple[TextDataset, tuple[str, ...]]:
    """All other rows to train on, and the texts of these."""
    return whole.only(np.setdiff1d(np.arange(len(whole.texts)), rows)), tuple(whole.texts[row] for row in rows.tolist())


def _strength(settings: ClassificationHyperparameters, frozen: Candidate) -> float:
    """A tuned encoder's head is no less strong than the frozen one's: among the rows it was tuned on, any strength
    seems right.
    """
    return max(frozen.metrics["C"], _LEAST_STRENGTH) if settings.C == "auto" else settings.C


def _training_texts(
    settings: ClassificationHyperparameters, data: TextDataset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and labels to tune on: the rows, and the labels' names where they are worth an example."""
    names = data.names(settings.label_names)
    return data.texts + names, tuple(data.labels[row] for row in data.y.tolist()) + (data.labels if names else ())


def _lead(
    context: TextContext, settings: ClassificationHyperparameters, whole: TextDataset, rounds: Sequence[FoldResult]
) -> metrics.Interval:
    rows = np.concatenate([one.fold.rows for one in rounds])
    ours, theirs = (
        np.concatenate(told)
        for told in zip(*((one.logits.argmax(axis=1), one.fold.frozen) for one in rounds), strict=True)
    )
    labels, seed, level = len(whole.labels), context.job.seed, settings.confidence
    return metrics.gain_in(settings.metric, whole.y[rows], ours, theirs, labels, seed=seed, level=level)


def _detector(settings: ClassificationHyperparameters, x: Floats, y: Ints, head: LinearHead, seed: int) -> TextDetector:
    """A detector on a tuned encoder, still to be calibrated by rows that neither has seen."""
    normal = detector_selection.sample(detector_selection.Normal(x, y, head), seed)
    kind: DetectorKind = "combined" if settings.detector == "auto" else settings.detector
    return detector_selection.fit_detector(
        kind, normal, detector_selection.neighbours_for(normal, number(settings.neighbours)), calibrated=False
    )


def _logits(head: LinearHead, x: Floats) -> Floats:
    logits: Floats = x @ head.weight.numpy().T + head.bias.numpy()
    return logits


def _at(head: LinearHead, logits: Floats, y: Ints) -> LinearHead:
    """The head at the temperature that fits logits [m, labels] of rows that it has not seen."""
    return head.at(fit_temperature(torch.from_numpy(logits), torch.from_numpy(y)))


def _crossed_calibration_error(head: LinearHead, logits: Floats, y: Ints) -> float:
    """Calibration error of held-out rows, each half at the temperature that the other half gave."""
    folds = linear_head.stratified(y, 2, 0)
    rows = np.empty_like(logits)
    for fold in (0, 1):
        other = folds != fold
        temperature = _at(head, logits[other], y[other]).temperature if other.any() else head.temperature
        rows[~other] = torch.softmax(torch.from_numpy(logits[~other]) / temperature, dim=-1).numpy()
    return metrics.calibration_error(rows, y)
