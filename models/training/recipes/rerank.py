"""The rerank recipe: a cross-encoder tuned on query, document and label, judged against what ranked before."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.loader import load
from models.runtime.placement import Placement
from models.source import locate
from models.training.checks.outcome import check_base
from models.training.data.dataset import DataSplit
from models.training.data.rows import TextRows
from models.training.embeddings import Floats
from models.training.errors import TrainingDataError
from models.training.events import emit
from models.training.hyperparameters import RerankHyperparameters
from models.training.job import Outcome, TextContext
from models.training.recipes.retrieval_metrics import relevance_metrics
from models.training.tuning import losses
from models.training.tuning.batch_plan import plan, shuffled
from models.training.tuning.batches import Augment, Batch, Batches
from models.training.tuning.settings import Mode, TunerSettings, augmenter, merge_settings
from models.training.tuning.trainable_cross_encoder import TrainableCrossEncoder, is_cross_encoder, score_pairs
from models.training.tuning.trainer import Tuner, fingerprint

# A fresh head has all to learn, a cross-encoder only this task.
_RATES = {("full", True): 5e-5, ("full", False): 2e-5, ("lora", True): 5e-4, ("lora", False): 2e-4}
_MANY_ROWS = 20_000
_GOLDEN_TEXTS = 8
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


def train(context: TextContext, asked: RerankHyperparameters, parts: DataSplit) -> Outcome:
    """Tune a cross-encoder on the job's rows and write it to `context.result / "encoder"`.

    Golden texts are query and document joined by a newline; their rows are the relevance between 0 and 1. Raises
    TrainingDataError for labels that are no grades.
    """
    settings = settings_for(context, asked, len(parts.train))
    targets = _targets(parts.train)
    before = relevance_metrics(parts.held_out.texts[0], _grades(parts.held_out), _before(context, parts.held_out))
    emit(context.events, f"base: {_told(before)} on held-out rows")
    tokens = tune(context, settings, parts.train, targets, augment=augmenter(asked.augmentation, context.job.seed))
    after, relevance = _judged(context.result / "encoder", context.placement, parts.held_out)
    emit(context.events, f"tuned: {_told(after)} on held-out rows")
    context.report.extend(check_base(after, before, len(parts.held_out), _remedy(context.source.path)))
    return Outcome(
        encoder="own",
        mode=settings.mode,
        labels=(),
        metrics=after
        | {f"base_{name}": value for name, value in before.items()}
        | {"held_out_rows": float(len(parts.held_out))},
        incumbent_metrics=_incumbent(context, parts.held_out),
        golden=_golden(context, parts.held_out, relevance),
        trained_tokens=tokens,
    )


def settings_for(context: TextContext, asked: RerankHyperparameters, rows: int) -> TunerSettings:
    """The recipe's own settings with the job's in their place."""
    mode: Mode = "lora" if asked.mode == "lora" else "full"
    rate = _RATES[mode, not is_cross_encoder(context.source.path)]
    own = TunerSettings(mode=mode, epochs=1.0 if rows > _MANY_ROWS else 3.0, batch_size=32, learning_rate=rate)
    return merge_settings(own, asked, seed=context.job.seed)


def tune(
    context: TextContext, settings: TunerSettings, rows: TextRows, targets: Tensor, *, augment: Augment | None = None
) -> int:
    """Train and save to `context.result / "encoder"`; return the tokens read."""
    model = TrainableCrossEncoder(context.source, context.placement, settings)
    if model.fresh:
        emit(context.events, f"{context.job.base} is no cross-encoder: its transformer gets a fresh head")
    batches = plan(
        shuffled(len(rows), settings.batch_size),
        epochs=settings.epochs,
        seed=settings.seed,
        max_steps=settings.max_steps,
    )
    run = Tuner(
        model,
        lambda batch: relevance_loss(model, batch),
        Batches(rows.texts, targets, batches, model.reader, augment=augment),
        settings,
        context.placement,
        directory=context.directory / "checkpoints",
        events=context.events,
        fingerprint=fingerprint("rerank", context.source.version, rows.texts, rows.scores),
        report=context.report,
    )
    fitted = run.run(context.job.checkpoint)
    model.save(context.result / "encoder")
    return fitted.tokens


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
        raise TrainingDataError(
            "invalid_label", "label: expected 0 and 1, or grades from 0", "training_file", column="label"
        )
    if float(grades.min()) == float(grades.max()):
        raise TrainingDataError(
            "one_label", f"label: every row has {float(grades[0])}", "training_file", column="label"
        )
    return grades / max(float(grades.max()), 1.0)


def _before(context: TextContext, rows: TextRows) -> Floats:
    """Scores [n] of the base: its own as a cross-encoder, or cosines as a bi-encoder."""
    if is_cross_encoder(context.source.path):
        return score_pairs(context.model, list(zip(*rows.texts, strict=True)))
    query, document = (context.embedder(column) for column in rows.texts)
    cosines: Floats = (query * document).sum(axis=1)
    return cosines


def _judged(path: Path, placement: Placement, rows: TextRows) -> tuple[dict[str, float], Floats]:
    """A saved cross-encoder's metrics on rows, and its relevance of each."""
    logits = score_pairs(load(locate(f"reranker={path}"), placement), list(zip(*rows.texts, strict=True)))
    relevance: Floats = torch.from_numpy(logits).sigmoid().numpy()
    return relevance_metrics(rows.texts[0], _grades(rows), relevance), relevance


def _remedy(base: Path) -> str:
    if is_cross_encoder(base):
        return "The base model ranks better: take fewer steps, a smaller learning rate or more rows, or keep it."
    return (
        "These rows are too few for a fresh head: begin from a cross-encoder, or tune the encoder (task "
        "embedding); more rows help, too."
    )


def _incumbent(context: TextContext, rows: TextRows) -> dict[str, float] | None:
    path = context.job.incumbent
    if path is None or not (path / "encoder").is_dir():
        return None
    return _judged(path / "encoder", context.placement, rows)[0]


def _golden(context: TextContext, rows: TextRows, relevance: Floats) -> dict[str, object]:
    texts = [[query, document] for query, document in zip(*rows.texts, strict=True)][:_GOLDEN_TEXTS]
    numbers = [[float(value)] for value in relevance[:_GOLDEN_TEXTS]]
    return {"texts": texts, "rows": numbers, "tolerance": _TOLERANCE[context.placement.dtype_name]}


def _told(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
