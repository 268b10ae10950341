"""The classification recipe: a linear head on a frozen encoder's embeddings, and a tuned encoder where it is
provably better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.text.detectors.serialization import TextDetector, save_detector
from models.text.lexical_head import load_head
from models.training.checks.outcome import check_frozen, check_outcome
from models.training.data.dataset import DataSplit
from models.training.events import emit
from models.training.heads import detector_selection, lexical_head, linear_head
from models.training.hyperparameters import ClassificationHyperparameters
from models.training.job import Outcome, TextContext
from models.training.recipes.candidate import Candidate, TextDataset, examples, fit, held_out_metrics, judge, number
from models.training.recipes.encoder_selection import Comparison, compare_tuned, refit_tuned
from models.training.recipes.incumbent_encoder import ENCODER, JUDGED, encoder_of
from models.training.report import Finding

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_GOLDEN_TEXTS = 8
# How far a probability may be from the one at training time: bfloat16 rows depend on what else is in their batch.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}


def train(context: TextContext, settings: ClassificationHyperparameters, parts: DataSplit) -> Outcome:
    """Train, compare on the held-out rows, write the winner to `context.result`."""
    data = TextDataset.of(parts)
    frozen = frozen_candidate(context, settings, data)
    emit(context.events, _summary(frozen))
    comparison = (
        compare_tuned(context, settings, data, frozen, crossed=parts.same_file) if settings.mode != "frozen" else None
    )
    won = comparison if comparison is not None and comparison.won else None
    winner = won.tuned if won else frozen
    published = winner
    if settings.refit and parts.same_file:
        published = refit_tuned(context, settings, data, won) if won else _refit(context, settings, data, frozen)
    if published is not winner:
        emit(
            context.events,
            f"what is published was fitted to all {len(data.whole.texts)} rows after the held-out ones had judged",
        )
    _write(context, winner, published)
    context.report.extend(_outcome(context, parts, data, winner, won))
    return Outcome(
        encoder="own" if winner.directory else "base",
        mode=winner.mode,
        labels=data.labels,
        metrics=winner.metrics
        if winner is frozen
        else {**winner.metrics, "frozen_macro_f1": frozen.metrics["macro_f1"]},
        incumbent_metrics=incumbent_metrics(context, data),
        golden=_golden(context, published, data),
        trained_tokens=sum(item.count for item in context.embedder.read(data.texts)),
    )


def frozen_candidate(context: TextContext, settings: ClassificationHyperparameters, data: TextDataset) -> Candidate:
    """Head and detector on the base encoder's embeddings, both calibrated out of fold on the training rows."""
    x = context.embedder(data.texts)
    held_x, out_of_scope = context.embedder(data.held_texts), context.embedder(data.out_of_scope)
    given = examples(settings, data, context.embedder, x)
    fitted = fit(context, settings, data.labels, given)
    words = _words(context, settings, fitted, given, data)
    normal = detector_selection.sample(_normal(fitted, x, data.y), context.job.seed)
    detector, ranking = _choose_detector(context, settings, normal, held_x, data.held_y, out_of_scope, fitted)
    if not fitted.converged:
        emit(
            context.events,
            "the head's solver stopped before it had converged; its accuracy may gain from a smaller C",
            "warn",
        )
    metrics = {"C": fitted.strength, "temperature": words.head.temperature, "lexical": words.share, **ranking}
    return judge("frozen", context.embedder, words.head, detector, data, metrics)


def _words(
    context: TextContext,
    settings: ClassificationHyperparameters,
    fitted: linear_head.Fit,
    given: linear_head.Examples,
    data: TextDataset,
) -> lexical_head.Choice:
    """The head that answers. The detector keeps the linear one: its promise rests on every row's logits out of fold."""
    if settings.lexical is False:
        return lexical_head.Choice(fitted.head)
    words = lexical_head.choose_head(
        fitted, given, context.embedder.read(data.texts + data.names(settings.label_names)), settings.lexical
    )
    if words.without is not None and words.having is not None:
        verdict = "they stay" if words.share else "left out"
        emit(
            context.events,
            f"word pieces: accuracy out of fold {words.having:.4f}, {words.without:.4f} without them: {verdict}",
        )
    return words


def _choose_detector(
    context: TextContext,
    settings: ClassificationHyperparameters,
    normal: detector_selection.Normal,
    held_x: Floats,
    held_y: Ints,
    out_of_scope: Floats,
    fit: linear_head.Fit,
) -> tuple[TextDetector, dict[str, float]]:
    """The detector asked for, or the one that tells strangers best: real ones where the job has them, else hidden
    classes.
    """
    neighbours = detector_selection.neighbours_for(normal, number(settings.neighbours))
    if settings.detector != "auto":
        return detector_selection.fit_detector(settings.detector, normal, neighbours), {}
    if len(out_of_scope) and len(held_x):
        kinds = {
            kind: detector_selection.fit_detector(kind, normal, neighbours)
            for kind in detector_selection.with_enough(detector_selection.SIMPLEST_FIRST, normal, context.events)
        }
        ranking = detector_selection.rank_by_out_of_scope(kinds, held_x, out_of_scope)
        judges = f"{len(out_of_scope)} out-of-scope texts"
    else:
        ranking = detector_selection.rank_by_hidden_classes(
            normal, held_x, held_y, fit.strength, neighbours, context.job.seed
        )
        judges = "classes that were hidden from it"
    kind = detector_selection.best_kind(ranking)
    if ranking:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in ranking.items())
        emit(context.events, f"out-of-scope detector: {kind}, chosen by AUROC on {judges} ({scores})")
    return detector_selection.fit_detector(kind, normal, neighbours), {
        f"detector_auroc_{name}": score for name, score in ranking.items()
    }


def _outcome(
    context: TextContext, parts: DataSplit, data: TextDataset, winner: Candidate, won: Comparison | None
) -> Iterator[Finding]:
    """The last rung: against the trivial baseline and the frozen head, and what tuning did to the space."""
    yield from check_outcome(
        [data.labels[row] for row in data.held_y],
        [data.labels[row] for row in winner.predicted],
        confidence=winner.probabilities.max(axis=1),
        trivial=parts.baselines[-1].predictions,
        embeddings=winner.embedder(data.held_texts),
        embeddings_before=context.embedder(data.held_texts) if won else None,
        lines=parts.held_out.lines,
        seed=context.job.seed,
    )
    ranked = sum(name.startswith("detector_auroc_") for name in winner.metrics)
    if "oos_auroc" in winner.metrics and ranked > 1:
        yield detector_selection.chosen_here(ranked)
    if won is not None:
        yield check_frozen(won.lead, len(won.rows), won.measure)


def incumbent_metrics(context: TextContext, data: TextDataset) -> dict[str, float] | None:
    """What the version now in service is worth on the same held-out rows; labels that it does not know count as
    wrong.
    """
    directory = context.job.incumbent
    embedder = encoder_of(context, directory) if directory else None
    if directory is None or embedder is None:
        return None
    head = load_head(directory / JUDGED if (directory / JUDGED).is_dir() else directory)
    told = head.probabilities(torch.from_numpy(embedder(data.held_texts)), embedder.read(data.held_texts)).numpy()
    # Into the numbers of this job: its labels first, then those that only the incumbent has.
    names = (*data.labels, *(label for label in head.labels if label not in set(data.labels)))
    rows = np.zeros((len(told), len(names)), np.float32)
    rows[:, [names.index(label) for label in head.labels]] = told
    return held_out_metrics(data.held_y, rows)


def _refit(
    context: TextContext, settings: ClassificationHyperparameters, data: TextDataset, judged: Candidate
) -> Candidate:
    """The frozen candidate fitted to all rows, the held-out ones too, with the same strength, label names, kind of
    head and of detector.
    """
    whole = data.whole
    x = judged.embedder(whole.texts)
    names = bool(data.names(settings.label_names))  # as it was decided for the head that was judged
    known = settings.model_copy(
        update={"C": judged.metrics["C"], "lexical": bool(judged.metrics["lexical"]), "label_names": names}
    )
    given = examples(known, whole, judged.embedder, x)
    fitted = fit(context, known, whole.labels, given)
    head = _words(context, known, fitted, given, whole).head
    normal = detector_selection.sample(_normal(fitted, x, whole.y), context.job.seed)
    detector = detector_selection.fit_detector(
        judged.detector.kind, normal, detector_selection.neighbours_for(normal, number(settings.neighbours))
    )
    return replace(judged, head=head, detector=detector)


def _normal(fitted: linear_head.Fit, x: Floats, y: Ints) -> detector_selection.Normal:
    """The rows that a detector takes for normal: those with a logit from outside their fold, where there are any."""
    rows = np.flatnonzero(fitted.told) if fitted.told.any() else np.arange(len(x))
    return detector_selection.Normal(x, y, fitted.head, fitted.logits).take(rows)


def _summary(candidate: Candidate) -> str:
    told = candidate.metrics
    return (
        f"{candidate.mode}: accuracy {told['accuracy']:.4f}, macro-F1 {told['macro_f1']:.4f} "
        f"({told['macro_f1_low']:.4f} to {told['macro_f1_high']:.4f}), calibration error {told['ece']:.4f} on "
        f"held-out rows"
    )


def _write(context: TextContext, judged: Candidate, published: Candidate) -> None:
    """What is to be served; and, where that learnt the held-out rows, what was judged by them, for successors to be
    compared with.
    """
    _save(published, context.result)
    save_detector(published.detector, context.result)
    if published is not judged:
        (context.result / JUDGED).mkdir()
        _save(judged, context.result / JUDGED)


def _save(candidate: Candidate, directory: Path) -> None:
    candidate.head.save(directory)
    if candidate.directory is not None:
        candidate.directory.rename(directory / ENCODER)


def _golden(context: TextContext, winner: Candidate, data: TextDataset) -> dict[str, object]:
    """Held-out texts of several classes, and the probabilities that the head as it was written gives for them."""
    texts = _spread(data)
    rows = load_head(context.result).probabilities(
        torch.from_numpy(winner.embedder(texts)), winner.embedder.read(texts)
    )
    return {"texts": list(texts), "rows": rows.tolist(), "tolerance": _TOLERANCE[context.placement.dtype_name]}


def _spread(data: TextDataset) -> Sequence[str]:
    first = {int(number): text for number, text in zip(data.held_y[::-1], data.held_texts[::-1], strict=True)}
    return [first[number] for number in sorted(first)][:_GOLDEN_TEXTS]
