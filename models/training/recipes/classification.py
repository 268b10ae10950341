"""The classification recipe: a head on a frozen encoder's embeddings, or on a tuned encoder that is provably better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.text.detectors.serialization import save_detector
from models.text.lexical_head import load_head
from models.training.checks.outcome import check_frozen, check_outcome
from models.training.confusion import Confusion
from models.training.context import EncoderContext, TextContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.embeddings import CachedEmbedder, Embed
from models.training.heads import detector_selection
from models.training.hyperparameters import ClassificationHyperparameters
from models.training.job import Outcome
from models.training.job_events import emit
from models.training.metrics import calibration_curve
from models.training.recipes.candidate import Candidate, held_out_metrics
from models.training.recipes.encoder_comparison import ComparisonResult, EncoderComparison
from models.training.recipes.frozen_candidate import fit_frozen, refit_frozen
from models.training.recipes.incumbents import ENCODER, JUDGED, open_incumbent
from models.training.recipes.text_dataset import TextDataset
from models.training.report import Choice, Finding
from models.training.report_labels import check_label
from models.training.tuning.encoder_tuning import EncoderTuning

_GOLDEN_TEXTS = 8
# How far a probability may be from the one at training time: bfloat16 rows depend on what else is in their batch.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}


def train(context: TextContext, settings: ClassificationHyperparameters, parts: DataSplit) -> Outcome:
    """Train, compare on the held-out rows, write the winner to `context.result`."""
    data = TextDataset.of(parts, settings.label_names)
    frozen = fit_frozen(context, settings, data)
    emit(context.events, frozen.summary)
    tuning = EncoderTuning.of_texts(context, settings, len(data.texts))
    comparison = EncoderComparison(context, settings, data, frozen, tuning, same_file=parts.same_file)
    contest = compete(context, settings, parts, data, frozen, comparison)
    predicted, lines = contest.winner.predicted, parts.held_out.lines
    context.report.confusion = Confusion.of(data.labels, data.held_y, predicted, data.held_texts, lines)
    return outcome(context, data, frozen, contest, _golden(context, contest.published, data))


@dataclass(frozen=True, slots=True)
class Contest:
    """The candidate that the held-out rows judged, the one to publish, and the comparison that a tuned one won."""

    winner: Candidate
    published: Candidate
    won: ComparisonResult | None


def compete(
    context: EncoderContext,
    settings: ClassificationHyperparameters,
    parts: DataSplit,
    data: TextDataset,
    frozen: Candidate,
    comparison: EncoderComparison,
    views: Embed | None = None,
) -> Contest:
    """Compare the frozen candidate with a tuned one; judge the winner and write it, where asked fitted to all rows."""
    result = comparison.run()
    won = result if result is not None and result.won else None
    winner = published = won.tuned if won else frozen
    if settings.refit and parts.same_file:
        published = comparison.refit(won) if won else refit_frozen(context, settings, data, frozen, views)
    if published is not winner:
        rows = len(data.whole.texts)
        emit(context.events, f"the published model is fitted to all {rows} rows; its metrics are from held-out rows")
    _write(context, winner, published)
    context.report.choices.append(_detector_choice(settings, data, winner, frozen))
    context.report.extend(_outcome_findings(context, parts, data, winner, won))
    return Contest(winner, published, won)


def outcome(
    context: EncoderContext, data: TextDataset, frozen: Candidate, contest: Contest, golden: Mapping[str, object]
) -> Outcome:
    """The outcome of a contest, and the plot of the winner's calibration."""
    winner = contest.winner
    context.report.plots = {"calibration": calibration_curve(winner.confidence, winner.predicted == data.held_y)}
    return Outcome(
        encoder="own" if winner.directory else "base",
        mode=winner.mode,
        labels=data.labels,
        metrics={**winner.metrics, **({"frozen_macro_f1": frozen.metrics["macro_f1"]} if contest.won else {})},
        incumbent_metrics=_incumbent_metrics(context, data),
        golden=golden,
        trained_tokens=context.embedder.count_tokens(data.texts),
    )


def _detector_choice(
    settings: ClassificationHyperparameters, data: TextDataset, winner: Candidate, frozen: Candidate
) -> Choice:
    """The kind of the winner's detector, and why."""
    auroc = "detector_auroc_"
    ranking = {name.removeprefix(auroc): one for name, one in frozen.metrics.items() if name.startswith(auroc)}
    judges = "the out-of-scope texts" if data.out_of_scope else "labels that were hidden from it"
    reason = "there are too few labels and no out-of-scope texts to compare others by"
    if ranking:
        reason = f"it ranks {judges} best, or is the simplest within 0.002 of the best"
    if winner is not frozen:
        ranking, reason = {}, "tuned encoders take the one that uses both distances and logits"
    if settings.detector != "auto":
        reason = "the job asks for it"
    figures = {name: {f"AUROC of {judges}": one} for name, one in ranking.items()}
    return Choice("Out-of-scope detector", winner.detector.kind, reason, figures)


def _write(context: EncoderContext, measured: Candidate, published: Candidate) -> None:
    """Write the published files, and the measured ones where the published have learnt the held-out rows.

    Successors are compared with the measured ones.
    """
    _save(published, context.result)
    save_detector(published.detector, context.result)
    if published is not measured:
        (context.result / JUDGED).mkdir()
        _save(measured, context.result / JUDGED)


def _save(candidate: Candidate, directory: Path) -> None:
    candidate.head.save(directory)
    if candidate.directory is not None:
        candidate.directory.rename(directory / ENCODER)


def _outcome_findings(
    context: EncoderContext, parts: DataSplit, data: TextDataset, winner: Candidate, won: ComparisonResult | None
) -> Iterator[Finding]:
    """Judge the outcome: against the trivial baseline and the frozen head, and what tuning did to the space."""
    yield from check_outcome(
        [data.labels[row] for row in data.held_y],
        [data.labels[row] for row in winner.predicted],
        confidence=winner.confidence,
        scores=winner.scores,
        trivial=parts.baselines[-1].predictions,
        trivial_name=check_label(parts.baselines[-1].name),
        embeddings=winner.embedder(data.held_texts),
        embeddings_before=context.embedder(data.held_texts) if won else None,
        lines=parts.held_out.lines,
        seed=context.job.seed,
    )
    ranked = sum(name.startswith("detector_auroc_") for name in winner.metrics)
    if "oos_auroc" in winner.metrics and ranked > 1:
        yield detector_selection.check_detector_choice(ranked)
    if won is not None:
        yield check_frozen(won.lead, len(won.rows), won.measure)


def _incumbent_metrics(context: EncoderContext, data: TextDataset) -> dict[str, float] | None:
    """Metrics of the version in service on the same held-out rows; labels that it does not know count as wrong."""
    incumbent = open_incumbent(context)
    if incumbent is None:
        return None
    truth = [data.labels[number] for number in data.held_y.tolist()]
    return head_metrics(incumbent.directory, incumbent.embedder, data.held_texts, truth)


def head_metrics(
    directory: Path, embedder: CachedEmbedder, texts: Sequence[str], truth: Sequence[str]
) -> dict[str, float]:
    """Metrics of a saved head on texts [n] with their labels; labels that it does not know count as wrong."""
    head = load_head(directory)
    probabilities = head.probabilities(torch.from_numpy(embedder(texts)), embedder.read(texts)).numpy()
    number = {label: index for index, label in enumerate(sorted({*truth, *head.labels}))}
    rows = np.zeros((len(probabilities), len(number)), np.float32)
    rows[:, [number[label] for label in head.labels]] = probabilities
    return held_out_metrics(np.array([number[label] for label in truth], np.int64), rows)


def _golden(context: TextContext, published: Candidate, data: TextDataset) -> dict[str, object]:
    """Held-out texts of several classes, and the probabilities that the written head gives for them."""
    texts = data.one_of_each_label[:_GOLDEN_TEXTS]
    x, tokens = torch.from_numpy(published.embedder(texts)), published.embedder.read(texts)
    rows = load_head(context.result).probabilities(x, tokens).tolist()
    return golden_texts(context, texts, rows, TOLERANCE)
