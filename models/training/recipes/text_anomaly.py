"""The anomaly recipe: what normal texts look like to a frozen encoder, with alpha as the false-alarm rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from models.text.detectors.serialization import TextDetector, load_detector, save_detector
from models.training.checks.false_alarms import check_input_false_alarms
from models.training.context import TextContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.errors import HyperparameterError
from models.training.heads import detector_selection, linear_head
from models.training.heads.detector_selection import SIMPLEST_FIRST, NormalEmbeddings, p_values
from models.training.heads.linear_head import Floats
from models.training.hyperparameters import PARAM, DetectorKind, TextAnomalyHyperparameters
from models.training.job import Outcome
from models.training.job_events import emit
from models.training.metrics import miscalibration
from models.training.recipes.incumbents import open_incumbent
from models.training.report import Choice

_STRENGTH = 10.0
_GOLDEN_TEXTS = 8
# Scores are distances of several kinds; the tolerance is this share of the middle 98 % of the calibration scores.
_TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
_NEEDS_HEAD: tuple[DetectorKind, ...] = ("energy", "combined")


def train(context: TextContext, settings: TextAnomalyHyperparameters, parts: DataSplit) -> Outcome:
    """Fit, choose and calibrate a detector; write it to `context.result`."""
    texts, held_texts = parts.train.texts[0], parts.held_out.texts[0]
    candidates = _candidates(context, settings, _normal(context, settings, parts))
    held_x, out_of_scope = context.embedder(held_texts), context.embedder(parts.out_of_scope)
    kind, ranking = _choose(candidates, held_x, out_of_scope)
    detector = candidates[kind]
    scores = {f"detector_auroc_{name}": score for name, score in ranking.items()}
    metrics = detector_metrics(detector, held_x, out_of_scope) | scores
    emit(context.events, _summary(kind, ranking, metrics))
    context.report.choices.append(_choice(kind, ranking, asked=settings.detector != "auto"))
    save_detector(detector, context.result)
    context.report.extend(check_input_false_alarms(p_values(detector, held_x), len(detector.calibration)))
    if len(candidates) > 1:
        context.report.add(detector_selection.check_detector_choice(len(candidates)))
    return Outcome(
        encoder="base",
        mode="frozen",
        labels=(),
        metrics=metrics,
        incumbent_metrics=_incumbent_metrics(context, parts),
        golden=_golden(context, held_texts),
        trained_tokens=context.embedder.count_tokens(texts),
    )


def _normal(context: TextContext, settings: TextAnomalyHyperparameters, parts: DataSplit) -> NormalEmbeddings:
    """The training rows' embeddings; with a head where there are labels."""
    x, seed = context.embedder(parts.train.texts[0]), context.job.seed
    if parts.train.labels is None:
        if settings.detector in _NEEDS_HEAD:
            message = (
                f"detector: {settings.detector!r} needs normal rows of two labels, the file has fewer; "
                f"without, there are knn, mahalanobis"
            )
            raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.detector")
        return detector_selection.sample(NormalEmbeddings(x), seed)
    labels, numbers = np.unique(parts.train.labels, return_inverse=True)
    y, strength = numbers.astype(np.int64), _STRENGTH if settings.C == "auto" else settings.C
    examples = linear_head.Examples.of(x, y)
    fit = linear_head.fit_head(examples, tuple(map(str, labels)), strengths=(strength,), seed=seed)
    return detector_selection.sample(NormalEmbeddings(x, y, fit.head, fit.logits), seed)


def _candidates(
    context: TextContext, settings: TextAnomalyHyperparameters, normal: NormalEmbeddings
) -> dict[DetectorKind, TextDetector]:
    """The detector asked for, or all that the rows allow."""
    neighbours = detector_selection.neighbours_for(normal, settings.neighbours)
    kinds: Sequence[DetectorKind] = SIMPLEST_FIRST if settings.detector == "auto" else (settings.detector,)
    possible = [kind for kind in kinds if normal.head is not None or kind not in _NEEDS_HEAD]
    affordable = detector_selection.affordable_kinds(possible, normal, context.events)
    return {kind: detector_selection.fit_detector(kind, normal, neighbours) for kind in affordable}


def _choose(
    candidates: Mapping[DetectorKind, TextDetector], held_x: Floats, out_of_scope: Floats
) -> tuple[DetectorKind, dict[DetectorKind, float]]:
    """The kind of best AUROC where anomalies are known, with the AUROC of each kind.

    Else the kind whose false-alarm rate on held-out rows is nearest to alpha 0.05; of equals the simplest.
    """
    if len(out_of_scope):
        ranking = detector_selection.rank_by_out_of_scope(candidates, held_x, out_of_scope)
        return detector_selection.best_kind(ranking), ranking
    errors = {kind: miscalibration(p_values(detector, held_x)) for kind, detector in candidates.items()}
    return next(kind for kind in SIMPLEST_FIRST if errors.get(kind) == min(errors.values())), {}


def detector_metrics(detector: TextDetector, held_x: Floats, out_of_scope: Floats) -> dict[str, float]:
    """False-alarm rates, and AUROC where anomalies are known.

    `primary` is 1 where the false-alarm rate is alpha as far as the held-out rows can tell.
    """
    return {
        **detector_selection.false_alarms(detector, held_x),
        "primary": 1.0 - miscalibration(p_values(detector, held_x)),
        "held_out_rows": float(len(held_x)),
        **detector_selection.out_of_scope_metrics(detector, held_x, out_of_scope),
    }


def _incumbent_metrics(context: TextContext, parts: DataSplit) -> dict[str, float] | None:
    """Metrics of the version in service on the same texts."""
    incumbent = open_incumbent(context)
    if incumbent is None:
        return None
    held_x, out_of_scope = incumbent.embedder(parts.held_out.texts[0]), incumbent.embedder(parts.out_of_scope)
    return detector_metrics(load_detector(incumbent.directory), held_x, out_of_scope)


def _golden(context: TextContext, held_texts: Sequence[str]) -> dict[str, object]:
    texts = list(dict.fromkeys(held_texts))[:_GOLDEN_TEXTS]
    detector = load_detector(context.result)
    rows = [[score] for score in detector(torch.from_numpy(context.embedder(texts))).tolist()]
    low, high = np.quantile(detector.calibration.numpy(), [0.01, 0.99])
    spread = float(max(high - low, 1e-3))
    return golden_texts(context, texts, rows, {dtype: share * spread for dtype, share in _TOLERANCE.items()})


def _choice(kind: DetectorKind, ranking: Mapping[DetectorKind, float], *, asked: bool) -> Choice:
    reason = "its false-alarm rate on held-out rows is nearest to alpha 0.05, or it is the simplest of equals"
    if ranking:
        reason = "it ranks the known anomalies best, or is the simplest within 0.002 of the best"
    if asked:
        reason = "the job asks for it"
    return Choice("Detector", kind, reason, {name: {"AUROC of known anomalies": one} for name, one in ranking.items()})


def _summary(kind: str, ranking: Mapping[DetectorKind, float], metrics: Mapping[str, float]) -> str:
    scores = ", ".join(f"{name} {score:.3f}" for name, score in ranking.items())
    reason = f"by AUROC on known anomalies ({scores})" if ranking else "by its false-alarm rate"
    rate = metrics.get("false_alarm_rate_0.05")
    measured = "too few rows to tell" if rate is None else f"{rate:.3f}"
    return f"detector: {kind}, chosen {reason}; false alarms at alpha 0.05 on held-out rows: {measured}"
