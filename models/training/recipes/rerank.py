"""The rerank recipe: a cross-encoder tuned on query, document and label, measured against its base."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.loader import load
from models.runtime.placement import Placement
from models.source import locate
from models.text.sequence_classifier import is_sequence_classifier, relevance
from models.training.checks.outcome import check_base
from models.training.context import TextContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.data.rows import TextRows
from models.training.embeddings import Floats
from models.training.errors import TrainingDataError
from models.training.hyperparameters import RerankHyperparameters
from models.training.job import Outcome
from models.training.job_events import emit
from models.training.metrics import in_words
from models.training.recipes.incumbents import incumbent_encoder
from models.training.recipes.retrieval_metrics import relevance_metrics
from models.training.recipes.tuned_model import tune_and_save, tuner_settings, with_base
from models.training.tuning import losses
from models.training.tuning.batch_plan import plan, shuffled
from models.training.tuning.batches import Augment, Batch, Batches
from models.training.tuning.settings import Mode, TunerSettings, augmenter
from models.training.tuning.trainable_cross_encoder import TrainableCrossEncoder, score_pairs

# By mode and whether the head is fresh: a fresh head has all to learn, a cross-encoder only this task.
_RATES: dict[tuple[Mode, bool], float] = {
    ("full", True): 5e-5,
    ("full", False): 2e-5,
    ("lora", True): 5e-4,
    ("lora", False): 2e-4,
}
_GOLDEN_TEXTS = 8
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


def train(context: TextContext, asked: RerankHyperparameters, parts: DataSplit) -> Outcome:
    """Tune a cross-encoder on the job's rows and write it to `context.result / "encoder"`.

    Golden texts are query and document joined by a newline; their rows are the relevance between 0 and 1. Raises
    TrainingDataError for labels that are not grades.
    """
    mode: Mode = "lora" if asked.mode == "lora" else "full"
    rate = _RATES[mode, not is_sequence_classifier(context.source.path)]
    settings = tuner_settings(asked, mode, rate, len(parts.train), context.job.seed)
    targets, held_out = _targets(parts.train), parts.held_out
    before = relevance_metrics(held_out.texts[0], _grades(held_out), _base_scores(context, held_out))
    emit(context.events, f"base: {in_words(before)} on held-out rows")
    tokens = tune(context, settings, parts.train, targets, augment=augmenter(asked.augmentation, context.job.seed))
    after, relevance = evaluate_saved(context.result / "encoder", context.placement, held_out)
    emit(context.events, f"tuned: {in_words(after)} on held-out rows")
    context.report.extend(check_base(after, before, len(held_out), _remedy(context.source.path)))
    return Outcome(
        encoder="own",
        mode=settings.mode,
        labels=(),
        metrics=with_base(after, before, held_out),
        incumbent_metrics=_incumbent_metrics(context, held_out),
        golden=_golden(context, held_out, relevance),
        trained_tokens=tokens,
    )


def tune(
    context: TextContext, settings: TunerSettings, rows: TextRows, targets: Tensor, *, augment: Augment | None = None
) -> int:
    """Train, save to `context.result / "encoder"`, and return the number of tokens read."""
    model = TrainableCrossEncoder(context.source, context.placement, settings)
    if model.fresh:
        emit(context.events, f"{context.job.base} is no cross-encoder: its transformer gets a fresh head")
    epoch = shuffled(len(rows), settings.batch_size)
    batch_plan = plan(epoch, epochs=settings.epochs, seed=settings.seed, max_steps=settings.max_steps)
    batches = Batches(rows.texts, targets, batch_plan, model.reader, augment=augment)
    return tune_and_save(
        context, model, lambda batch: relevance_loss(model, batch), batches, settings, rows, recipe="rerank"
    )


def relevance_loss(model: TrainableCrossEncoder, batch: Batch) -> Tensor:
    """Binary cross-entropy of a batch; targets between 0 and 1."""
    if batch.targets is None:
        raise ValueError("expected targets, got none")
    losses.require_vector(batch.targets, len(batch), torch.float32)
    return functional.binary_cross_entropy_with_logits(model(batch), batch.targets)


def _grades(rows: TextRows) -> list[float]:
    if rows.scores is None:
        raise TrainingDataError("wrong_row_kind", "rerank takes rows of query, document and label", "training_file")
    return rows.scores


def _targets(rows: TextRows) -> Tensor:
    """Grades as targets [n] between 0 and 1: grades above 1 (0 to 3, say) are divided by the highest."""
    grades = torch.tensor(_grades(rows), dtype=torch.float32)
    if not bool(torch.isfinite(grades).all()) or float(grades.min()) < 0:
        message = "label: expected 0 and 1, or grades from 0"
        raise TrainingDataError("invalid_label", message, "training_file", column="label")
    if float(grades.min()) == float(grades.max()):
        message = f"label: every row has {float(grades[0])}"
        raise TrainingDataError("one_label", message, "training_file", column="label")
    return grades / max(float(grades.max()), 1.0)


def _base_scores(context: TextContext, rows: TextRows) -> Floats:
    """Scores [n] of the base: its own as a cross-encoder, or cosines as a bi-encoder."""
    if is_sequence_classifier(context.source.path):
        return score_pairs(context.model, list(zip(*rows.texts, strict=True)))
    query, document = (context.embedder(column) for column in rows.texts)
    cosines: Floats = (query * document).sum(axis=1)
    return cosines


def evaluate_saved(path: Path, placement: Placement, rows: TextRows) -> tuple[dict[str, float], Floats]:
    """Metrics of a saved cross-encoder, and its relevance [n] between 0 and 1 of each row."""
    logits = score_pairs(load(locate(f"reranker={path}"), placement), list(zip(*rows.texts, strict=True)))
    relevant: Floats = relevance(logits[:, None])
    return relevance_metrics(rows.texts[0], _grades(rows), relevant), relevant


def _remedy(base: Path) -> str:
    if is_sequence_classifier(base):
        return "The base model ranks better: take fewer steps, a smaller learning rate or more rows, or keep it."
    return (
        "These rows are too few for a fresh head: begin from a cross-encoder, or tune the encoder (task "
        "embedding); more rows help, too."
    )


def _incumbent_metrics(context: TextContext, rows: TextRows) -> dict[str, float] | None:
    """Metrics of the cross-encoder in service on the same rows."""
    path = incumbent_encoder(context.job)
    return None if path is None else evaluate_saved(path, context.placement, rows)[0]


def _golden(context: TextContext, rows: TextRows, relevance: Floats) -> dict[str, object]:
    texts = [[query, document] for query, document in zip(*rows.texts, strict=True)][:_GOLDEN_TEXTS]
    return golden_texts(context, texts, relevance[:_GOLDEN_TEXTS, None].tolist(), _TOLERANCE)
