"""The steps that the recipes which tune a whole model share: embedding and rerank."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from models.training.context import TextContext
from models.training.data.rows import TextRows
from models.training.hyperparameters import EmbeddingHyperparameters, RerankHyperparameters
from models.training.tuning.batches import Batch, Batches
from models.training.tuning.settings import Mode, TunerSettings, merge_settings
from models.training.tuning.trainable_cross_encoder import TrainableCrossEncoder
from models.training.tuning.trainable_encoder import TrainableEncoder
from models.training.tuning.training_loop import TrainingLoop, fingerprint

_MANY_ROWS = 20_000


def tuner_settings(
    asked: EmbeddingHyperparameters | RerankHyperparameters, mode: Mode, rate: float, rows: int, seed: int
) -> TunerSettings:
    """The recipes' own settings with the job's in their place; many rows get fewer passes."""
    epochs = 1.0 if rows > _MANY_ROWS else 3.0
    return merge_settings(TunerSettings(mode=mode, epochs=epochs, batch_size=32, learning_rate=rate), asked, seed=seed)


def tune_and_save(
    context: TextContext,
    model: TrainableEncoder | TrainableCrossEncoder,
    loss: Callable[[Batch], Tensor],
    batches: Batches,
    settings: TunerSettings,
    rows: TextRows,
    *,
    recipe: str,
) -> int:
    """Train, save to `context.result / "encoder"`, and return the number of tokens read.

    Training goes on from the job's checkpoint, where it is of the same recipe, base, rows and settings.
    """
    tuner = TrainingLoop(
        model,
        loss,
        batches,
        settings,
        context.placement,
        directory=context.directory / "checkpoints",
        events=context.events,
        fingerprint=fingerprint(recipe, context.source.version, rows.texts, rows.scores),
        report=context.report,
    )
    run = tuner.run(context.job.checkpoint)
    model.save(context.result / "encoder")
    return run.tokens


def with_base(after: Mapping[str, float], before: Mapping[str, float], held_out: TextRows) -> dict[str, float]:
    """The tuned model's metrics beside those of its base, which are named `base_…`."""
    base = {f"base_{name}": value for name, value in before.items()}
    return {**after, **base, "held_out_rows": float(len(held_out))}
