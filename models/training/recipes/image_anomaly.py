"""The anomaly recipe of images: what good images look like to a frozen encoder's inner layers, place by place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from models.images.data_uri import to_data_uri
from models.images.detectors.detector import CalibratedImageDetector, Patches
from models.images.detectors.padim import LEAST_IMAGES, fit_padim
from models.images.detectors.patch_core import fit_patch_core
from models.images.detectors.serialization import load_image_detector, save_image_detector
from models.images.golden_images import read_golden
from models.images.heat_map import draw_map, overlay_map
from models.images.patches import PatchEncoder, PatchModel
from models.images.pixels import Pixels
from models.training.checks.false_alarms import check_input_false_alarms
from models.training.checks.image_power import check_image_power, power_metrics
from models.training.context import ImageContext, golden_texts
from models.training.data.dataset import DataSplit
from models.training.errors import TrainingDataError, TrainingError
from models.training.heads.detector_selection import anomaly_metrics, check_detector_choice, false_alarm_rates
from models.training.hyperparameters import ImageAnomalyHyperparameters
from models.training.images.defects import DEFECTS, MOST_COPIES, Defect, draw_defect
from models.training.job import Outcome
from models.training.job_events import ProgressEvents, emit
from models.training.metrics import auroc, miscalibration
from models.training.recipes.image_classification import golden_uris
from models.training.recipes.incumbents import open_incumbent
from models.training.report import Choice, Picture

# Patch features take 0.3 MB an image, and fitting holds them four times.
MAX_REFERENCE = 500
_BATCH_IMAGES = 16
# The simpler first; another one has to lead it by this AUROC.
_FITS = {"padim": fit_padim, "patchcore": fit_patch_core}
_WORTHWHILE_AUROC = 0.01
_ALPHA = 0.05
_PICTURES, _PICTURE_SIDE = 4, 224
# Shares of the middle 98 % of the calibration scores.
_TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores and p-values [n] of images by one detector."""

    scores: Scores
    p_values: Scores


class PatchReader:
    """The patch features of a job's images, a batch at a time."""

    def __init__(self, context: ImageContext) -> None:
        if not isinstance(context.model, PatchEncoder):
            message = f"model: {context.job.base} has no inner maps, by which defects are found: take another encoder"
            raise TrainingError("wrong_model", message, "model")
        self.model = PatchModel(context.model)
        self._store, self._events = context.store, context.events

    def of(self, keys: Sequence[str]) -> Patches:
        """Patches [n, places, channels] of images by their keys."""
        return np.concatenate(list(self.batches(map(self._store.pixels, keys), len(keys))))

    def batches(self, images: Iterable[Pixels], count: int) -> Iterator[Patches]:
        """Patches of images, of some at a time."""
        rest, progress, done = iter(images), ProgressEvents(self._events, max(count, 1)), 0
        while batch := list(islice(rest, _BATCH_IMAGES)):
            yield self.model.unflatten(self.model.forward(batch))
            progress(done := done + len(batch), len(batch))

    def score(
        self, detectors: Mapping[str, CalibratedImageDetector], images: Iterable[Pixels], count: int
    ) -> dict[str, ImageScores]:
        """Scores of images by each detector."""
        found: dict[str, list[Scores]] = {name: [np.empty((2, 0))] for name in detectors}
        for patches in self.batches(images, count):
            for name, detector in detectors.items():
                scored = detector.score(patches)
                found[name].append(np.stack([scored.scores.double().numpy(), scored.p_values.double().numpy()]))
        return {name: ImageScores(*np.concatenate(parts, axis=1)) for name, parts in found.items()}

    def score_keys(
        self, detectors: Mapping[str, CalibratedImageDetector], keys: Sequence[str]
    ) -> dict[str, ImageScores]:
        """The same by the images' keys."""
        return self.score(detectors, map(self._store.pixels, keys), len(keys))


def train(context: ImageContext, settings: ImageAnomalyHyperparameters, parts: DataSplit) -> Outcome:
    """Fit, choose and calibrate a detector; write it to `context.result`."""
    reader, report = PatchReader(context), context.report
    held, strange = parts.held_out.texts[0], parts.out_of_scope
    candidates = _fit(context, settings, reader, parts.train.texts[0])
    of_held, of_strange = (reader.score_keys(candidates, keys) for keys in (held, strange))
    of_defects = reader.score(candidates, _draw_defects(context, held), len(DEFECTS) * MOST_COPIES)
    choice = _choose(of_held, of_strange if strange else of_defects, settings, known=bool(strange))
    detector, kind = candidates[choice.chosen], choice.chosen
    emit(context.events, f"detector: {kind}, because {choice.reason}")
    save_image_detector(detector, context.result)
    found = {} if detector.threshold(_ALPHA) is None else _shares_found(of_defects[kind])
    report.choices.append(choice)
    report.extend(check_input_false_alarms(of_held[kind].p_values, detector.count, "images"))
    report.add(check_image_power(found, _ALPHA, context.model.images.side))
    if len(candidates) > 1:
        report.add(check_detector_choice(len(candidates)))
    report.pictures = (
        *_pictures(context, reader, detector, "Good images that look strangest", held, of_held[kind]),
        *_pictures(context, reader, detector, "Known anomalies that look strangest", strange, of_strange[kind]),
    )
    return Outcome(
        encoder="base",
        mode="frozen",
        labels=(),
        metrics=_metrics(detector, of_held[kind], of_strange[kind]) | power_metrics(found),
        incumbent_metrics=_incumbent_metrics(context, parts),
        golden=_golden(context, reader.model, held),
        trained_tokens=context.embedder.count_tokens(parts.train.texts[0]),
    )


def image_detector_metrics(
    context: ImageContext, detector: CalibratedImageDetector, good: Sequence[str], strange: Sequence[str]
) -> dict[str, float]:
    """Metrics of a detector on good images and known anomalies, by their keys."""
    reader, named = PatchReader(context), {"": detector}
    return _metrics(detector, *(reader.score_keys(named, keys)[""] for keys in (good, strange)))


def _metrics(detector: CalibratedImageDetector, good: ImageScores, strange: ImageScores) -> dict[str, float]:
    """False-alarm rates, and AUROC where anomalies are known.

    `primary` is 1 where the false-alarm rate is alpha as far as the good images can tell.
    """
    return {
        **false_alarm_rates(good.p_values, detector.threshold),
        "primary": 1.0 - miscalibration(good.p_values),
        "held_out_rows": float(len(good.scores)),
        "calibrated_on": float(detector.count),
        **(anomaly_metrics(good.scores, strange.scores) if len(strange.scores) else {}),
    }


def _fit(
    context: ImageContext, settings: ImageAnomalyHyperparameters, reader: PatchReader, keys: list[str]
) -> dict[str, CalibratedImageDetector]:
    """The detector asked for, or all of them."""
    if len(keys) < LEAST_IMAGES:
        message = f"expected at least {LEAST_IMAGES} good images besides the held-out ones, got {len(keys)}"
        raise TrainingDataError("too_few_rows", f"training_file: {message}", "training_file")
    if len(keys) > MAX_REFERENCE:
        rows = np.random.default_rng(context.job.seed).choice(len(keys), MAX_REFERENCE, replace=False)
        emit(context.events, f"{MAX_REFERENCE} of the {len(keys)} good images stand for all")
        keys = [keys[row] for row in np.sort(rows)]
    patches = reader.of(keys)
    kinds = list(_FITS) if settings.detector == "auto" else [settings.detector]
    return {kind: _FITS[kind](patches) for kind in kinds}


def _choose(
    good: Mapping[str, ImageScores],
    strange: Mapping[str, ImageScores],
    settings: ImageAnomalyHyperparameters,
    *,
    known: bool,
) -> Choice:
    """The detector of best AUROC on known anomalies, else on drawn defects; the simpler of two that are alike."""
    ranking = {kind: auroc(good[kind].scores, strange[kind].scores) for kind in good}
    best = max(ranking.values())
    kind = next(kind for kind, one in ranking.items() if one >= best - _WORTHWHILE_AUROC)
    judges = "known anomalies" if known else "defects drawn into good images"
    reason = f"it tells {judges} best from good images, or is simpler and within {_WORTHWHILE_AUROC} of the best"
    if settings.detector != "auto":
        reason = "the job asks for it"
    return Choice("Detector", kind, reason, {name: {f"AUROC of {judges}": one} for name, one in ranking.items()})


def _draw_defects(context: ImageContext, keys: Sequence[str]) -> Iterator[Pixels]:
    """Copies of held-out images with each kind and size of defect."""
    for defect in DEFECTS:
        for copy in range(MOST_COPIES):
            yield draw_defect(context.store.values(keys[copy % len(keys)]), defect, copy)


def _shares_found(scored: ImageScores) -> dict[Defect, float]:
    """The share of the copies of each defect that are anomalies."""
    alarms = (scored.p_values <= _ALPHA).reshape(len(DEFECTS), MOST_COPIES)
    return dict(zip(DEFECTS, alarms.mean(axis=1).tolist(), strict=True))


def _incumbent_metrics(context: ImageContext, parts: DataSplit) -> dict[str, float] | None:
    """Metrics of the version in service on the same images."""
    incumbent = open_incumbent(context)
    if incumbent is None:
        return None
    detector = load_image_detector(incumbent.directory)
    return image_detector_metrics(context, detector, parts.held_out.texts[0], parts.out_of_scope)


def _golden(context: ImageContext, patches: PatchModel, held: Sequence[str]) -> dict[str, object]:
    """Small copies of held-out images, and the scores that the written detector gives them."""
    uris, detector = golden_uris(context, list(dict.fromkeys(held))), load_image_detector(context.result)
    scored = detector.score(patches.unflatten(patches.forward(read_golden(uris, context.model.images))))
    low, high = np.quantile(detector.calibration.numpy(), [0.01, 0.99])
    spread = float(max(high - low, 1e-3))
    rows = [[score] for score in scored.scores.tolist()]
    return golden_texts(context, uris, rows, {dtype: share * spread for dtype, share in _TOLERANCE.items()})


def _pictures(
    context: ImageContext,
    reader: PatchReader,
    detector: CalibratedImageDetector,
    title: str,
    keys: Sequence[str],
    scored: ImageScores,
) -> Iterator[Picture]:
    """The strangest images with the places that are strange in red."""
    threshold = detector.threshold(_ALPHA)
    for row in np.argsort(-scored.scores)[:_PICTURES].tolist():
        image = context.store.picture(keys[row])
        places = detector.score(reader.of([keys[row]])).places[0].numpy()
        drawn = overlay_map(image, draw_map(places, threshold, *image.size))
        caption = f"{context.store.name(keys[row])}: p-value {scored.p_values[row]:.3f}"
        yield Picture(title, caption, to_data_uri(drawn, _PICTURE_SIDE))
