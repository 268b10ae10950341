"""The embedding recipe: an encoder tuned on pairs, triplets or scores, measured before and after on held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.counted import counted
from models.linalg import normalize, shorten
from models.loader import load
from models.source import locate
from models.training.checks.outcome import check_base, check_gain, check_rank
from models.training.checks.wording import warn_if
from models.training.context import TextContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.data.rows import TextRows
from models.training.embeddings import Embed, Embedder
from models.training.errors import HyperparameterError, TrainingDataError
from models.training.hyperparameters import PARAM, EmbeddingHyperparameters
from models.training.job import Outcome
from models.training.job_events import emit
from models.training.metrics import in_words
from models.training.recipes.incumbents import incumbent_encoder
from models.training.recipes.retrieval_metrics import RetrievalMetrics, evaluate, sanity, sanity_texts
from models.training.recipes.tuned_model import tune_and_save, tuner_settings, with_base
from models.training.report import Finding
from models.training.tuning import losses
from models.training.tuning.batch_plan import Plan, no_duplicates, plan, shuffled
from models.training.tuning.batches import Augment, Batch, Batches
from models.training.tuning.hard_negatives import mine_hard_negatives
from models.training.tuning.settings import Mode, TunerSettings, augmenter
from models.training.tuning.trainable_encoder import TrainableEncoder

# LoRA moves fewer weights and bears a higher rate.
_RATES: dict[Mode, float] = {"lora": 5e-4, "full": 2e-5}
_FORGOTTEN = 0.05
_GOLDEN_TEXTS = 4
# How far a vector's number may be from the one at training time.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def train(context: TextContext, asked: EmbeddingHyperparameters, parts: DataSplit) -> Outcome:
    """Tune the base encoder on the job's rows and write it to `context.result / "encoder"`.

    Raises HyperparameterError for what these rows or this encoder cannot do, TrainingError where training fails.
    """
    mode: Mode = "full" if asked.mode == "full" else "lora"
    settings = tuner_settings(asked, mode, _RATES[mode], len(parts.train), context.job.seed)
    _require_fitting(settings, parts.train, context.embedder.width)
    before, sanity_before = evaluate(context.embedder, parts.held_out), sanity(context.embedder)
    emit(context.events, f"base: {in_words(before.metrics | sanity_before)} on held-out rows")
    tokens = tune(context, settings, parts.train, augment=augmenter(asked.augmentation, context.job.seed))
    tuned = _open(context, context.job.base, context.result / "encoder")
    after, sanity_after = evaluate(tuned, parts.held_out), sanity(tuned)
    emit(context.events, f"tuned: {in_words(after.metrics | sanity_after)} on held-out rows")
    _add_findings(context, parts.held_out, tuned, (before, after), (sanity_before, sanity_after))
    shorter = _shorter_metrics(tuned, parts.held_out, settings.matryoshka)
    return Outcome(
        encoder="own",
        mode=settings.mode,
        labels=(),
        metrics=with_base(after.metrics | sanity_after | shorter, before.metrics | sanity_before, parts.held_out),
        incumbent_metrics=_incumbent_metrics(context, parts.held_out),
        golden=_golden(context, tuned, parts.held_out),
        trained_tokens=tokens,
    )


def tune(context: TextContext, settings: TunerSettings, rows: TextRows, *, augment: Augment | None = None) -> int:
    """Train, save to `context.result / "encoder"`, and return the number of tokens read.

    Pairs become triplets where hard negatives are asked for.
    """
    if settings.hard_negatives:
        rows = _with_negatives(context, settings, rows)
    name = settings.loss or losses.names(rows.kind)[0]
    loss = losses.make(name, rows.kind, temperature=settings.temperature, matryoshka=settings.matryoshka)
    encoder = TrainableEncoder(context.source, context.placement, settings)
    targets = torch.tensor(rows.scores, dtype=torch.float32) if rows.scores is not None else None
    batches = Batches(rows.texts, targets, _plan(settings, rows), encoder.reader, augment=augment)

    def batch_loss(batch: Batch) -> Tensor:
        return loss(encoder.columns(batch), batch.targets)

    return tune_and_save(context, encoder, batch_loss, batches, settings, rows, recipe="embedding")


def _plan(settings: TunerSettings, rows: TextRows) -> Plan:
    size = settings.batch_size
    epoch = shuffled(len(rows), size) if rows.kind == "scored" else no_duplicates(rows.texts, size)
    batches = plan(epoch, epochs=settings.epochs, seed=settings.seed, max_steps=settings.max_steps)
    if not batches:
        message = "in-batch negatives need two rows that share no text"
        raise TrainingDataError("too_few_examples", message, "training_file")
    return batches


def _with_negatives(context: TextContext, settings: TunerSettings, rows: TextRows) -> TextRows:
    try:
        mined = mine_hard_negatives(rows, context.embedder, settings.hard_negatives, seed=settings.seed)
    except ValueError as error:
        raise _refusal("hard_negatives", str(error)) from error
    emit(context.events, f"hard negatives: {counted(len(mined), 'triplet')} of {counted(len(rows), 'pair')}")
    return mined


def _require_fitting(settings: TunerSettings, rows: TextRows, width: int) -> None:
    """Refuse what would fail only after the base was evaluated."""
    losses.make(settings.loss or losses.names(rows.kind)[0], rows.kind, matryoshka=settings.matryoshka)
    if settings.hard_negatives and rows.kind != "pairs":
        raise _refusal("hard_negatives", f"only pairs can be given negatives, these rows are {rows.kind}")
    largest = max(settings.matryoshka, default=0)
    if largest > width:
        raise _refusal("matryoshka", f"{largest} is more than the {width} dimensions of this encoder")


def _refusal(name: str, message: str) -> HyperparameterError:
    return HyperparameterError("invalid_hyperparameter", f"{name}: {message}", f"{PARAM}.{name}")


def _add_findings(
    context: TextContext,
    held_out: TextRows,
    tuned: Embed,
    measured: tuple[RetrievalMetrics, RetrievalMetrics],
    sanity_metrics: tuple[dict[str, float], dict[str, float]],
) -> None:
    """The outcome: did it gain, did the space collapse, was anything forgotten? Pairs are before and after."""
    before, after = measured
    context.report.extend(_gains(before, after, len(held_out), context.job.seed))
    texts = held_out.texts[0]
    context.report.extend(check_rank(tuned(texts), context.embedder(texts)))
    context.report.add(forgetting(*sanity_metrics))


def _gains(before: RetrievalMetrics, after: RetrievalMetrics, rows: int, seed: int) -> Iterator[Finding]:
    if not len(after.each):
        remedy = "The base encoder does better: take fewer steps, a smaller learning rate or more rows, or keep it."
        yield from check_base(after.metrics, before.metrics, rows, remedy)
        return
    remedy = "The base encoder does as well: collect more rows, mine hard negatives, or keep it."
    measure, rival = "Reciprocal rank", "base encoder"
    yield check_gain("gain", after.each, before.each, measure=measure, baseline=rival, remedy=remedy, seed=seed)


def forgetting(before: dict[str, float], after: dict[str, float]) -> Finding:
    """Whether paraphrases of everyday sentences are as near as before."""
    lost = before["sanity_accuracy"] - after["sanity_accuracy"]
    message = (
        f"Of {len(sanity_texts()[0])} everyday paraphrases {after['sanity_accuracy']:.0%} are nearer than another "
        f"sentence ({before['sanity_accuracy']:.0%} before), by {after['sanity_margin']:.2f} of cosine "
        f"({before['sanity_margin']:.2f} before)."
    )
    remedy = (
        "The encoder forgets what it knew: use mode=lora, a lower learning rate or fewer epochs, if it is to "
        "serve other texts too."
    )
    return Finding.of("outcome", "forgetting", warn_if(lost > _FORGOTTEN), lost, _FORGOTTEN, message, remedy)


def _shorter_metrics(embed: Embed, rows: TextRows, sizes: Sequence[int]) -> dict[str, float]:
    """The metrics of each shorter embedding, `…_d64` for 64 dimensions."""

    def cut(size: int) -> Embed:
        return lambda texts: normalize(shorten(embed(texts), size))

    return {f"{name}_d{size}": value for size in sizes for name, value in evaluate(cut(size), rows).metrics.items()}


def _incumbent_metrics(context: TextContext, rows: TextRows) -> dict[str, float] | None:
    """Metrics of the encoder in service on the same rows."""
    path = incumbent_encoder(context.job)
    if path is None:
        return None
    embed = _open(context, "incumbent", path)
    return evaluate(embed, rows).metrics | sanity(embed)


def _open(context: TextContext, name: str, path: Path) -> Embedder:
    """An encoder as serving loads it, without the cache."""
    return Embedder(load(locate(f"{name}={path}"), context.placement))


def _golden(context: TextContext, embed: Embed, rows: TextRows) -> dict[str, object]:
    texts = [*rows.texts[0][:_GOLDEN_TEXTS], *sanity_texts()[0][:_GOLDEN_TEXTS]]
    return golden_texts(context, texts, embed(texts).tolist(), _TOLERANCE)
