"""The frozen candidate: a head and a detector on the base encoder's embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.text.detectors.serialization import TextDetector
from models.training.context import EncoderContext
from models.training.embeddings import Embed
from models.training.heads import detector_selection, lexical_head, linear_head
from models.training.heads.detector_selection import NormalEmbeddings
from models.training.hyperparameters import ClassificationHyperparameters, DetectorKind
from models.training.job_events import ProgressEvents, emit
from models.training.recipes.candidate import Candidate
from models.training.recipes.text_dataset import TextDataset


@dataclass(frozen=True, slots=True)
class _FrozenHead:
    """A linear head fitted to all training rows, the head that answers, and the rows that a detector is fitted to.

    Detectors take the linear head even where word pieces answer: they are calibrated by every row's logits out of fold.
    """

    linear: linear_head.HeadFit
    choice: lexical_head.HeadChoice
    normal: NormalEmbeddings


def fit_frozen(
    context: EncoderContext, settings: ClassificationHyperparameters, data: TextDataset, views: Embed | None = None
) -> Candidate:
    """A head and a detector, both calibrated out of fold on the training rows, measured on the held-out ones.

    `views` embeds changed copies of the rows, to which the head is fitted, too.
    """
    fitted = _fit_head(context, settings, data, views)
    detector, ranking = _choose_detector(context, settings, data, fitted)
    if not fitted.linear.converged:
        message = "the head's solver stopped before it had converged; its accuracy may gain from a smaller C"
        emit(context.events, message, "warn")
    head = fitted.choice.head
    metrics = {"C": fitted.linear.strength, "lexical": fitted.choice.share, **ranking}
    metrics |= {"temperature": head.confidence.temperature, "ceiling": head.confidence.ceiling}
    measured = Candidate.measured("frozen", context.embedder, head, detector, data, metrics)
    return replace(measured, out_of_fold=fitted.linear.logits.argmax(axis=1))


def refit_frozen(
    context: EncoderContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    measured: Candidate,
    views: Embed | None = None,
) -> Candidate:
    """The measured candidate fitted to the held-out rows, too, with the same choices as before."""
    choices = {"C": measured.metrics["C"], "lexical": bool(measured.metrics["lexical"])}
    fixed = settings.model_copy(update=choices | {"detector": measured.detector.kind})
    whole = replace(data.whole, label_names=bool(data.label_texts))
    fitted = _fit_head(context, fixed, whole, views)
    detector, _ = _choose_detector(context, fixed, whole, fitted)
    return replace(measured, head=fitted.choice.head, detector=detector)


def _fit_head(
    context: EncoderContext, settings: ClassificationHyperparameters, data: TextDataset, views: Embed | None
) -> _FrozenHead:
    examples, seed = data.examples(context.embedder, views), context.job.seed
    strengths = linear_head.STRENGTHS if settings.C == "auto" else (settings.C,)
    progress = ProgressEvents(context.events, linear_head.count_fits(examples.real, len(strengths)))
    fit = linear_head.fit_head(
        examples, data.labels, strengths=strengths, seed=seed, done=lambda step: progress(step, examples.real)
    )
    # A detector is calibrated by rows whose label the other folds had, where there are any.
    rows = np.flatnonzero(fit.covered) if fit.covered.any() else np.arange(examples.real)
    normal = NormalEmbeddings(examples.real_x, data.y, fit.head, fit.logits).take(rows)
    choice = _choose_words(context, settings, data, fit, examples)
    return _FrozenHead(fit, choice, detector_selection.sample(normal, seed))


def _choose_words(
    context: EncoderContext,
    settings: ClassificationHyperparameters,
    data: TextDataset,
    fit: linear_head.HeadFit,
    examples: linear_head.Examples,
) -> lexical_head.HeadChoice:
    if settings.lexical is False:
        return lexical_head.HeadChoice(fit.head)
    tokens = context.embedder.read(data.texts + data.label_texts)
    choice = lexical_head.choose_head(fit, examples, tokens, settings.lexical)
    if choice.without_words is not None and choice.with_words is not None:
        accuracies = f"{choice.with_words:.4f}, {choice.without_words:.4f} without them"
        verdict = "kept" if choice.share else "left out"
        emit(context.events, f"word pieces: accuracy out of fold {accuracies}: {verdict}")
    return choice


def _choose_detector(
    context: EncoderContext, settings: ClassificationHyperparameters, data: TextDataset, fitted: _FrozenHead
) -> tuple[TextDetector, dict[str, float]]:
    """The detector asked for, or the one that finds out-of-scope texts best, with the AUROC of each kind."""
    neighbours = detector_selection.neighbours_for(fitted.normal, settings.neighbours)
    if settings.detector != "auto":
        return detector_selection.fit_detector(settings.detector, fitted.normal, neighbours), {}
    judges, ranking = _rank_detectors(context, data, fitted, neighbours)
    kind = detector_selection.best_kind(ranking)
    if ranking:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in ranking.items())
        emit(context.events, f"out-of-scope detector: {kind}, chosen by AUROC on {judges} ({scores})")
    detector = detector_selection.fit_detector(kind, fitted.normal, neighbours)
    return detector, {f"detector_auroc_{name}": score for name, score in ranking.items()}


def _rank_detectors(
    context: EncoderContext, data: TextDataset, fitted: _FrozenHead, neighbours: int
) -> tuple[str, dict[DetectorKind, float]]:
    """AUROC of each kind, by the job's out-of-scope texts or else by hidden classes, and in words by which."""
    normal, held_x = fitted.normal, context.embedder(data.held_texts)
    out_of_scope = context.embedder(data.out_of_scope)
    if len(out_of_scope) and len(held_x):
        kinds = detector_selection.affordable_kinds(detector_selection.SIMPLEST_FIRST, normal, context.events)
        detectors = {kind: detector_selection.fit_detector(kind, normal, neighbours) for kind in kinds}
        ranking = detector_selection.rank_by_out_of_scope(detectors, held_x, out_of_scope)
        return f"{len(out_of_scope)} out-of-scope texts", ranking
    strength, seed = fitted.linear.strength, context.job.seed
    ranking = detector_selection.rank_by_hidden_classes(normal, held_x, data.held_y, strength, neighbours, seed)
    return "classes that were hidden from it", ranking
