"""The anomaly recipe: what normal texts look like to a frozen encoder, with alpha as the false-alarm rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.text.detectors.serialization import TextDetector, load_detector, save_detector
from models.training import metrics as evaluation
from models.training.checks.false_alarms import check_text_false_alarms
from models.training.data.dataset import DataSplit
from models.training.errors import HyperparameterError
from models.training.events import emit
from models.training.heads import detector_selection, linear_head
from models.training.hyperparameters import PARAM, DetectorKind, TextAnomalyHyperparameters
from models.training.job import Outcome, TextContext
from models.training.recipes.incumbent_encoder import encoder_of

Floats = NDArray[np.float32]

_STRENGTH = 10.0
_GOLDEN_TEXTS = 8
# Scores are distances of several kinds; the tolerance is this share of the middle 98 % of the calibration scores.
_TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
_NEEDS_HEAD: tuple[DetectorKind, ...] = ("energy", "combined")


def train(context: TextContext, settings: TextAnomalyHyperparameters, parts: DataSplit) -> Outcome:
    """Fit, choose and calibrate a detector; write it to `context.result`."""
    texts, held_texts = parts.train.texts[0], parts.held_out.texts[0]
    normal = _normal(context, settings, parts)
    held_x, out_of_scope = context.embedder(held_texts), context.embedder(parts.out_of_scope)
    candidates = _candidates(context, settings, normal)
    kind, ranking = _choose(candidates, held_x, out_of_scope)
    detector = candidates[kind]
    metrics = _metrics(detector, held_x, out_of_scope) | {
        f"detector_auroc_{name}": score for name, score in ranking.items()
    }
    emit(context.events, _summary(kind, ranking, metrics))
    save_detector(detector, context.result)
    seen_as = detector.judge(torch.from_numpy(held_x), explain=1).p_values
    context.report.extend(check_text_false_alarms(seen_as.double().numpy(), len(detector.calibration)))
    if len(candidates) > 1:
        context.report.add(detector_selection.chosen_here(len(candidates)))
    return Outcome(
        encoder="base",
        mode="frozen",
        labels=(),
        metrics=metrics,
        incumbent_metrics=_incumbent(context, parts),
        golden=_golden(context, held_texts),
        trained_tokens=sum(item.count for item in context.embedder.read(texts)),
    )


def _normal(context: TextContext, settings: TextAnomalyHyperparameters, parts: DataSplit) -> detector_selection.Normal:
    """The training rows' embeddings; with a head where there are labels and a detector that may want one."""
    x = context.embedder(parts.train.texts[0])
    if parts.train.labels is None:
        if settings.detector in _NEEDS_HEAD:
            message = (
                f"detector: {settings.detector!r} needs normal rows of two labels, the file has fewer; "
                f"without, there are knn, mahalanobis"
            )
            raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.detector")
        return detector_selection.sample(detector_selection.Normal(x), context.job.seed)
    labels, y = np.unique(parts.train.labels, return_inverse=True)
    strength = _STRENGTH if settings.C == "auto" else settings.C
    fit = linear_head.fit_head(
        linear_head.Examples.of(x, y.astype(np.int64)),
        tuple(map(str, labels)),
        strengths=(strength,),
        seed=context.job.seed,
    )
    return detector_selection.sample(
        detector_selection.Normal(x, y.astype(np.int64), fit.head, fit.logits), context.job.seed
    )


def _candidates(
    context: TextContext, settings: TextAnomalyHyperparameters, normal: detector_selection.Normal
) -> dict[DetectorKind, TextDetector]:
    asked = settings.neighbours if isinstance(settings.neighbours, int) else None
    neighbours = detector_selection.neighbours_for(normal, asked)
    kinds: Sequence[DetectorKind] = (
        detector_selection.SIMPLEST_FIRST if settings.detector == "auto" else (settings.detector,)
    )
    possible = [kind for kind in kinds if normal.head is not None or kind not in _NEEDS_HEAD]
    enough = detector_selection.with_enough(possible, normal, context.events)
    return {kind: detector_selection.fit_detector(kind, normal, neighbours) for kind in enough}


def _choose(
    candidates: dict[DetectorKind, TextDetector], held_x: Floats, out_of_scope: Floats
) -> tuple[DetectorKind, dict[DetectorKind, float]]:
    """By AUROC where anomalies are known; else the one whose promise at alpha 0.05 the held-out rows bear out best.

    Of equals the simplest.
    """
    if len(out_of_scope):
        ranking = detector_selection.rank_by_out_of_scope(candidates, held_x, out_of_scope)
        return detector_selection.best_kind(ranking), ranking
    broken = {kind: broken_promise(found, held_x) for kind, found in candidates.items()}
    return next(kind for kind in detector_selection.SIMPLEST_FIRST if broken.get(kind) == min(broken.values())), {}


def broken_promise(detector: TextDetector, unseen: Floats, alpha: float = 0.05) -> float:
    """How far the false-alarm rate on unseen normal items [m, d] is from alpha, beyond two standard errors of
    chance.
    """
    rate = float((detector.judge(torch.from_numpy(unseen), explain=1).p_values <= alpha).double().mean())
    return max(0.0, abs(rate - alpha) - 2 * float(np.sqrt(alpha * (1 - alpha) / len(unseen))))


def _metrics(detector: TextDetector, held_x: Floats, out_of_scope: Floats) -> dict[str, float]:
    """`primary` is 1 where the false-alarm rate is alpha as far as the held-out rows can tell; AUROC where anomalies
    are known.
    """
    metrics = {
        **detector_selection.false_alarms(detector, held_x),
        "primary": 1.0 - broken_promise(detector, held_x),
        "held_out_rows": float(len(held_x)),
    }
    if not len(out_of_scope):
        return metrics
    normal, strange = (detector(torch.from_numpy(x)).numpy() for x in (held_x, out_of_scope))
    found = {"auroc": evaluation.auroc(normal, strange), "recall_at_95": evaluation.recall_at_in_scope(normal, strange)}
    return metrics | found


def _incumbent(context: TextContext, parts: DataSplit) -> dict[str, float] | None:
    """What the version now in service is worth on the same texts; None where there is none, or its encoder cannot be
    opened.
    """
    directory = context.job.incumbent
    embedder = encoder_of(context, directory) if directory else None
    if directory is None or embedder is None:
        return None
    return _metrics(load_detector(directory), embedder(parts.held_out.texts[0]), embedder(parts.out_of_scope))


def _golden(context: TextContext, held_texts: Sequence[str]) -> dict[str, object]:
    texts = list(dict.fromkeys(held_texts))[:_GOLDEN_TEXTS]
    detector = load_detector(context.result)
    scores = detector(torch.from_numpy(context.embedder(texts)))
    low, high = np.quantile(detector.calibration.numpy(), [0.01, 0.99])
    tolerance = _TOLERANCE[context.placement.dtype_name] * float(max(high - low, 1e-3))
    return {"texts": texts, "rows": [[score] for score in scores.tolist()], "tolerance": tolerance}


def _summary(kind: str, ranking: dict[DetectorKind, float], metrics: dict[str, float]) -> str:
    why = (
        f"by AUROC on known anomalies ({', '.join(f'{name} {score:.3f}' for name, score in ranking.items())})"
        if ranking
        else "by its false-alarm rate"
    )
    rate = metrics.get("false_alarm_rate_0.05")
    told = "too few rows to tell" if rate is None else f"{rate:.3f}"
    return f"detector: {kind}, chosen {why}; false alarms at alpha 0.05 on held-out rows: {told}"
