"""The embedding recipe: an encoder tuned on pairs, triplets or scores, judged before and after on rows it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from models.linalg import normalize, shorten
from models.loader import load
from models.source import locate
from models.training.checks.outcome import check_base, check_gain, check_rank
from models.training.data.dataset import DataSplit
from models.training.data.rows import TextRows
from models.training.embeddings import Embedder, Floats
from models.training.errors import HyperparameterError, TrainingDataError
from models.training.events import emit
from models.training.hyperparameters import PARAM, EmbeddingHyperparameters
from models.training.job import Outcome, TextContext
from models.training.recipes.retrieval_metrics import Embed, RetrievalMetrics, evaluate, sanity, sanity_texts
from models.training.report import Finding
from models.training.tuning import losses
from models.training.tuning.batch_plan import Plan, no_duplicates, plan, shuffled
from models.training.tuning.batches import Augment, Batches
from models.training.tuning.hard_negatives import mine_hard_negatives
from models.training.tuning.settings import Mode, TunerSettings, augmenter, merge_settings
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.trainer import Tuner, fingerprint

# LoRA moves fewer weights and bears a higher rate.
_RATES = {"lora": 5e-4, "full": 2e-5}
_MANY_ROWS = 20_000
_FORGOTTEN = 0.05
_GOLDEN_TEXTS = 4
# How far a vector's number may be from the one at training time.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def train(context: TextContext, asked: EmbeddingHyperparameters, parts: DataSplit) -> Outcome:
    """Tune the base encoder on the job's rows and write it to `context.result / "encoder"`.

    Raises HyperparameterError for what these rows or this encoder cannot do, TrainingError where training fails.
    """
    settings = settings_for(asked, parts.train, context.job.seed)
    _require_fitting(settings, parts.train, context.embedder.width)
    before, sane_before = evaluate(context.embedder, parts.held_out), sanity(context.embedder)
    emit(context.events, f"base: {_told(before.metrics | sane_before)} on held-out rows")
    tokens = tune(context, settings, parts.train, augment=augmenter(asked.augmentation, context.job.seed))
    tuned = Embedder(load(locate(f"{context.job.base}={context.result / 'encoder'}"), context.placement))
    after, sane = evaluate(tuned, parts.held_out), sanity(tuned)
    emit(context.events, f"tuned: {_told(after.metrics | sane)} on held-out rows")
    _judge(context, parts.held_out, tuned, (before, after), (sane_before, sane))
    shorter = _shorter(tuned, parts.held_out, settings.matryoshka)
    base = {f"base_{name}": value for name, value in (before.metrics | sane_before).items()}
    return Outcome(
        encoder="own",
        mode=settings.mode,
        labels=(),
        metrics=after.metrics | sane | shorter | base | {"held_out_rows": float(len(parts.held_out))},
        incumbent_metrics=_incumbent(context, parts.held_out),
        golden=_golden(context, tuned, parts.held_out),
        trained_tokens=tokens,
    )


def settings_for(asked: EmbeddingHyperparameters, rows: TextRows, seed: int) -> TunerSettings:
    """The recipe's own settings with the job's in their place: LoRA, and fewer passes over many rows."""
    mode: Mode = "full" if asked.mode == "full" else "lora"
    own = TunerSettings(
        mode=mode, epochs=1.0 if len(rows) > _MANY_ROWS else 3.0, batch_size=32, learning_rate=_RATES[mode]
    )
    return merge_settings(own, asked, seed=seed)


def tune(context: TextContext, settings: TunerSettings, rows: TextRows, *, augment: Augment | None = None) -> int:
    """Train, save to `context.result / "encoder"`; return the tokens read. Pairs become triplets where hard
    negatives are asked for.
    """
    if settings.hard_negatives:
        rows = _with_negatives(context, settings, rows)
    loss = losses.make(
        settings.loss or losses.names(rows.kind)[0],
        rows.kind,
        temperature=settings.temperature,
        matryoshka=settings.matryoshka,
    )
    encoder = TrainableEncoder(context.source, context.placement, settings)
    targets = torch.tensor(rows.scores, dtype=torch.float32) if rows.scores is not None else None
    run = Tuner(
        encoder,
        lambda batch: loss(encoder.columns(batch), batch.targets),
        Batches(rows.texts, targets, _plan(settings, rows), encoder.reader, augment=augment),
        settings,
        context.placement,
        directory=context.directory / "checkpoints",
        events=context.events,
        fingerprint=fingerprint("embedding", context.source.version, rows.texts, rows.scores),
        report=context.report,
    )
    fitted = run.run(context.job.checkpoint)
    encoder.save(context.result / "encoder")
    return fitted.tokens


def _plan(settings: TunerSettings, rows: TextRows) -> Plan:
    epoch = (
        shuffled(len(rows), settings.batch_size)
        if rows.kind == "scored"
        else no_duplicates(rows.texts, settings.batch_size)
    )
    batches = plan(epoch, epochs=settings.epochs, seed=settings.seed, max_steps=settings.max_steps)
    if not batches:
        raise TrainingDataError(
            "too_few_examples", "in-batch negatives need two rows that share no text", "training_file"
        )
    return batches


def _with_negatives(context: TextContext, settings: TunerSettings, rows: TextRows) -> TextRows:
    try:
        mined = mine_hard_negatives(rows, context.embedder, settings.hard_negatives, seed=settings.seed)
    except ValueError as error:
        raise HyperparameterError(
            "invalid_hyperparameter", f"hard_negatives: {error}", f"{PARAM}.hard_negatives"
        ) from error
    emit(context.events, f"hard negatives: {len(mined)} triplets of {len(rows)} pairs")
    return mined


def _require_fitting(settings: TunerSettings, rows: TextRows, width: int) -> None:
    """Refuse what would fail only after the base was evaluated."""
    losses.make(settings.loss or losses.names(rows.kind)[0], rows.kind, matryoshka=settings.matryoshka)
    if settings.hard_negatives and rows.kind != "pairs":
        message = f"hard_negatives: only pairs can be given negatives, these rows are {rows.kind}"
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.hard_negatives")
    if settings.matryoshka and max(settings.matryoshka) > width:
        message = f"matryoshka: {max(settings.matryoshka)} is more than the {width} dimensions of this encoder"
        raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.matryoshka")


def _judge(
    context: TextContext,
    held_out: TextRows,
    tuned: Embed,
    judged: tuple[RetrievalMetrics, RetrievalMetrics],
    sane: tuple[dict[str, float], dict[str, float]],
) -> None:
    """Rung 5: did it gain, did the space collapse, was anything forgotten?"""
    before, after = judged
    if len(after.each):
        remedy = "The base encoder does as well: collect more rows, mine hard negatives, or keep it."
        finding = check_gain(
            "gain",
            after.each,
            before.each,
            measure="Reciprocal rank",
            baseline="base encoder",
            remedy=remedy,
            seed=context.job.seed,
        )
        context.report.add(finding)
    else:
        remedy = "The base encoder does better: take fewer steps, a smaller learning rate or more rows, or keep it."
        context.report.extend(check_base(after.metrics, before.metrics, len(held_out), remedy))
    texts = held_out.texts[0]
    context.report.extend(check_rank(tuned(texts), context.embedder(texts)))
    context.report.add(forgetting(*sane))


def forgetting(before: dict[str, float], after: dict[str, float]) -> Finding:
    """Whether everyday sentences are told apart as before."""
    lost = before["sanity_accuracy"] - after["sanity_accuracy"]
    message = (
        f"Of {len(sanity_texts()[0])} everyday paraphrases {after['sanity_accuracy']:.0%} are nearer than another "
        f"sentence"
        f" ({before['sanity_accuracy']:.0%} before), by {after['sanity_margin']:.2f} of cosine "
        f"({before['sanity_margin']:.2f} before)."
    )
    remedy = (
        "The encoder forgets what it knew: use mode=lora, a lower learning rate or fewer epochs, if it is to "
        "serve other texts too."
    )
    return Finding(
        "outcome",
        "forgetting",
        "warn" if lost > _FORGOTTEN else "ok",
        lost,
        _FORGOTTEN,
        message,
        remedy if lost > _FORGOTTEN else "",
    )


def _shorter(embed: Embed, rows: TextRows, sizes: Sequence[int]) -> dict[str, float]:
    """The metrics of each shorter embedding, `…_d64` for 64 dimensions."""

    def cut(size: int) -> Callable[[Sequence[str]], Floats]:
        return lambda texts: normalize(shorten(embed(texts), size))

    return {f"{name}_d{size}": value for size in sizes for name, value in evaluate(cut(size), rows).metrics.items()}


def _incumbent(context: TextContext, rows: TextRows) -> dict[str, float] | None:
    """The version in service on the same rows; None where there is none with an encoder of its own."""
    path = context.job.incumbent
    if path is None or not (path / "encoder").is_dir():
        return None
    embed = Embedder(load(locate(f"incumbent={path / 'encoder'}"), context.placement))
    return evaluate(embed, rows).metrics | sanity(embed)


def _golden(context: TextContext, embed: Embed, rows: TextRows) -> dict[str, object]:
    texts = [*rows.texts[0][:_GOLDEN_TEXTS], *sanity_texts()[0][:_GOLDEN_TEXTS]]
    return {"texts": texts, "rows": embed(texts).tolist(), "tolerance": _TOLERANCE[context.placement.dtype_name]}


def _told(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
