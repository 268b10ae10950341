"""The comparison of a tuned encoder with the frozen one, on rows that the tuned one has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.counted import counted
from models.text.detectors.serialization import TextDetector
from models.text.heads import LinearHead
from models.training import metrics
from models.training.context import EncoderContext
from models.training.embeddings import Embed
from models.training.errors import TrainingError
from models.training.heads import detector_selection, lexical_head, linear_head
from models.training.heads.linear_head import Floats, Ints, calibrate, linear_logits
from models.training.hyperparameters import ClassificationHyperparameters, DetectorKind, Metric
from models.training.job_events import Level, emit
from models.training.recipes.candidate import Candidate, calibration_metrics
from models.training.recipes.text_dataset import TextDataset
from models.training.report import Choice
from models.training.tuning.encoder_tuning import EncoderTuning, open_encoder

# A fifth of these few rows cannot show a lead of one or two points: of Banking77 with 10 a class it is 154 rows, with a
# standard error of 2.5 points.
_FEW_ROWS = 1500
# Encoders that are tuned for the comparison alone, beside the one that is measured on the held-out rows.
_MORE_FOLDS = 4
# Banking77, 10 a class, six tunings: 85.3 % at C = 10, 85.6 % at 30, 85.6 % at 100 on rows of the training part outside
# the draw.
_LEAST_STRENGTH = 30.0
_IN_WORDS: dict[Metric, str] = {"macro_f1": "macro-F1", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows that an encoder is tuned without: row numbers [m] in `TextDataset.whole`.

    `frozen` are the class numbers [m] that the frozen encoder's head, fitted without these rows, predicts.
    """

    rows: Ints
    frozen: Ints


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A fold's embeddings [m, d] and logits [m, labels] at temperature 1, and a detector.

    The encoder, head and detector have not seen the fold.
    """

    fold: Fold
    x: Floats
    logits: Floats
    detector: TextDetector


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A tuned candidate, the results of its folds, and its lead over the frozen one in the deciding measure."""

    tuned: Candidate
    folds: tuple[FoldResult, ...]
    lead: metrics.Interval
    measure: str

    @property
    def won(self) -> bool:
        """Whether the whole interval of the lead lies above 0, by enough rows to tell."""
        return self.lead.low > 0 and not self.lead.is_few

    @property
    def rows(self) -> Ints:
        """The row numbers in `TextDataset.whole`, in the order of the folds."""
        return np.concatenate([result.fold.rows for result in self.folds])

    @property
    def logits(self) -> Floats:
        """Out-of-fold logits float32 [rows, labels]."""
        return np.concatenate([result.logits for result in self.folds])


class EncoderComparison:
    """Tunes encoders, compares them with the frozen candidate, and refits the winner.

    `views` embeds changed copies of rows, to which the frozen candidate's head is fitted, too. `same_file`: the
    held-out rows are from the training file, so all rows may judge in turn. `objection` says why mode
    auto should not tune, given the number of encoders.
    """

    def __init__(
        self,
        context: EncoderContext,
        settings: ClassificationHyperparameters,
        data: TextDataset,
        frozen: Candidate,
        tuning: EncoderTuning,
        views: Embed | None = None,
        *,
        same_file: bool,
        objection: Callable[[int], str | None] = lambda encoders: None,
    ) -> None:
        self._context, self._settings, self._frozen = context, settings, frozen
        self._tuning, self._views, self._further_objection = tuning, views, objection
        self._data, self._whole, self._same_file = data, data.whole, same_file

    def run(self) -> ComparisonResult | None:
        """Tune and compare; None for mode frozen, and where mode auto finds nothing to gain or to tune on.

        Raises TrainingError where a mode asked for by name cannot be done.
        """
        if self._settings.mode == "frozen":
            self._choose("frozen", "the job asks for it")
            return None
        folds, auto = self._folds(), self._settings.mode == "auto"
        if auto and (objection := self._objection(folds)) is not None:
            self._emit(f"no tuned encoder: {objection}")
            self._choose("frozen", objection)
            return None
        why = "a better one could show a lead over the frozen one" if auto else "the job asks for it"
        self._emit(f"tuning the encoder {self._context.job.base}, since {why}")
        try:
            result = self._tune_and_compare(folds)
        except TrainingError as error:
            if not auto:
                raise
            self._emit(f"no tuned encoder: {error.message}; the frozen one stays", "warn")
            self._choose("frozen", error.message)
            return None
        measured = (
            f"{result.measure} on {counted(len(result.rows), 'row')} that it was not tuned on {result.lead.value:+.4f}"
        )
        verdict = "wins" if result.won else "does not win; the frozen encoder stays"
        self._emit(f"{result.tuned.mode}: {measured} against frozen, {self._interval(result.lead)}: {verdict}")
        reason = f"the tuned one's lead in {result.measure} is {result.lead.value:+.4f} ({self._interval(result.lead)})"
        self._choose(result.tuned.mode if result.won else "frozen", reason)
        return result

    def _choose(self, encoder: str, reason: str) -> None:
        self._context.report.choices.append(Choice("Encoder", encoder, reason))

    def refit(self, result: ComparisonResult) -> Candidate:
        """The tuned candidate made again with all rows, calibrated by the folds.

        With the held-out rows as the only fold it stays as it is: rows that calibrate it cannot train it as well.
        """
        if len(result.folds) == 1:
            return result.tuned
        directory = self._tuning.run("refitted", *self._whole.tuning_rows)
        embedder = open_encoder(self._context, directory)
        examples = self._whole.examples(embedder)
        head = linear_head.fit_plain(examples, result.tuned.metrics["C"], self._whole.labels)
        head = calibrate(head, result.logits, self._whole.y[result.rows])
        detector = self._uncalibrated_detector(examples, head)
        detector_selection.calibrate_crossed(detector, [(fold.detector, fold.x) for fold in result.folds])
        return replace(result.tuned, embedder=embedder, head=head, detector=detector, directory=directory)

    @property
    def _strength(self) -> float:
        """The strength of a tuned encoder's head, no less than the frozen one's.

        The rows that the encoder was tuned on cannot choose it: to them any strength seems right.
        """
        frozen, asked = self._frozen.metrics["C"], self._settings.C
        return max(frozen, _LEAST_STRENGTH) if asked == "auto" else asked

    def _folds(self) -> list[Fold]:
        """The held-out rows; with few rows of the same file, also each part of the training rows."""
        data, whole = self._data, self._whole
        folds = [Fold(np.arange(len(data.texts), len(whole.texts)), self._frozen.predicted)]
        if self._same_file and len(whole.texts) <= _FEW_ROWS:
            embeddings = self._context.embedder(data.texts)
            part_of = linear_head.stratified(data.y, _MORE_FOLDS, self._context.job.seed, embeddings)
            # With fewer rows than parts, some parts are empty and left out.
            parts = [np.flatnonzero(part_of == part) for part in np.unique(part_of)]
            folds += [Fold(rows, self._predict_frozen(rows)) for rows in parts]
        return folds

    def _predict_frozen(self, rows: Ints) -> Ints:
        """Class numbers [m] of these rows by a head like the frozen candidate's, fitted to the others."""
        embed, strength = self._context.embedder, self._frozen.metrics["C"]
        others, texts = self._whole.without(rows), self._whole.texts_at(rows)
        examples = others.examples(embed, self._views)
        head = linear_head.fit_plain(examples, strength, others.labels)
        if self._frozen.metrics["lexical"]:
            head = lexical_head.add_words(head, examples, embed.read(others.texts + others.label_texts), strength)
        with torch.inference_mode():
            numbers: Ints = head(torch.from_numpy(embed(texts)), embed.read(texts)).argmax(dim=1).numpy()
        return numbers

    def _objection(self, folds: Sequence[Fold]) -> str | None:
        """Why tuning, which takes minutes, cannot pay: an encoder without errors would show no lead, or it is slow."""
        rows, frozen = (np.concatenate([getattr(fold, name) for fold in folds]) for name in ("rows", "frozen"))
        truth = self._whole.y[rows]
        best = self._gain(truth, truth, frozen)
        if best.low > 0:
            return self._further_objection(len(folds) + 1)
        errors = f"the frozen one is wrong on {int((frozen != truth).sum())} of {len(rows)} rows"
        return f"{errors}, so even an encoder without errors would show no clear lead ({self._interval(best)})"

    def _tune_and_compare(self, folds: Sequence[Fold]) -> ComparisonResult:
        tuned, first = self._measure_tuned(folds[0])
        results = (first, *self._results(folds[1:]))
        truth = self._whole.y[np.concatenate([fold.rows for fold in folds])]
        ours = np.concatenate([result.logits.argmax(axis=1) for result in results])
        lead = self._gain(truth, ours, np.concatenate([fold.frozen for fold in folds]))
        return ComparisonResult(tuned, results, lead, _IN_WORDS[self._settings.metric])

    def _measure_tuned(self, fold: Fold) -> tuple[Candidate, FoldResult]:
        """A candidate on an encoder tuned on the training rows, calibrated on the held-out ones.

        Its embeddings of the training rows flatter it, so they cannot calibrate it.
        """
        data = self._data
        directory = self._tuning.run("tuned", *data.tuning_rows, add_findings=True)
        embedder = open_encoder(self._context, directory)
        examples, held_x = data.examples(embedder), embedder(data.held_texts)
        plain = linear_head.fit_plain(examples, self._strength, data.labels)
        logits = linear_logits(plain, held_x)
        head = calibrate(plain, logits, data.held_y)
        detector = detector_selection.calibrate_on(self._uncalibrated_detector(examples, head), held_x)
        measured = Candidate.measured(
            self._tuning.how, embedder, head, detector, data, {"C": self._strength}, directory
        )
        rows = _crossed_probabilities(plain, logits, data.held_y)
        honest = {**measured.metrics, **calibration_metrics(data.held_y, rows)}
        return replace(measured, probabilities=rows, metrics=honest), FoldResult(fold, held_x, logits, detector)

    def _results(self, folds: Sequence[Fold]) -> Iterator[FoldResult]:
        """The result of each further fold: encoder, head and detector are fitted without its rows."""
        for number, fold in enumerate(folds, start=1):
            self._emit(f"few rows: tuning without part {number} of {len(folds)} to compare on it")
            others = self._whole.without(fold.rows)
            embed = self._tuning.temporary(f"tuned-{number}", *others.tuning_rows)
            examples, held_x = others.examples(embed), embed(self._whole.texts_at(fold.rows))
            head = linear_head.fit_plain(examples, self._strength, self._whole.labels)
            detector = self._uncalibrated_detector(examples, head)
            yield FoldResult(fold, held_x, linear_logits(head, held_x), detector)

    def _uncalibrated_detector(self, examples: linear_head.Examples, head: LinearHead) -> TextDetector:
        """A detector on a tuned encoder, still to be calibrated by rows that neither has seen."""
        settings, normal = self._settings, detector_selection.NormalEmbeddings(examples.real_x, examples.real_y, head)
        normal = detector_selection.sample(normal, self._context.job.seed)
        kind: DetectorKind = "combined" if settings.detector == "auto" else settings.detector
        neighbours = detector_selection.neighbours_for(normal, settings.neighbours)
        return detector_selection.fit_detector(kind, normal, neighbours, calibrated=False)

    def _gain(self, truth: Ints, ours: Ints, theirs: Ints) -> metrics.Interval:
        settings, classes, seed = self._settings, len(self._whole.labels), self._context.job.seed
        return metrics.gain_in(settings.metric, truth, ours, theirs, classes, seed=seed, level=settings.confidence)

    def _interval(self, lead: metrics.Interval) -> str:
        if lead.is_few:
            return "too few rows for an interval"
        return f"{100 * self._settings.confidence:g} % interval {lead.low:+.4f} to {lead.high:+.4f}"

    def _emit(self, message: str, level: Level = "info") -> None:
        emit(self._context.events, message, level)


def _crossed_probabilities(head: LinearHead, logits: Floats, y: Ints) -> Floats:
    """Probabilities [m, labels] of held-out rows, each half with the confidence that the other half gave."""
    half_of = linear_head.stratified(y, 2, 0)
    rows = np.empty_like(logits)
    for half in (0, 1):
        own, other = half_of == half, half_of != half
        confidence = calibrate(head, logits[other], y[other]).confidence
        rows[own] = confidence.probabilities(torch.from_numpy(logits[own]) / confidence.temperature).numpy()
    return rows
