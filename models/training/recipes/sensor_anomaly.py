"""The anomaly recipe for numbers: several detectors, one chosen on later readings, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.errors import ModelSourceError
from models.runtime.placement import place_sensor
from models.sensors.adaptive import detector
from models.sensors.adaptive.detector import fit_adaptive
from models.sensors.base import Readings, SensorKind
from models.sensors.calibrated import FittedSensor, most_columns, training_curve
from models.sensors.detectors.factory import DETECTORS, build
from models.sensors.detectors.network import NetworkDetector, Watch
from models.sensors.fitting import fit_sensor
from models.sensors.serialization import describe, load_sensor, save_sensor
from models.training.checks.comparison import ALPHA, Predictions, check_incumbent, check_trivial, limits
from models.training.checks.false_alarms import check_false_alarms
from models.training.checks.gradient import GradientMonitor
from models.training.checks.loss import check_slope
from models.training.checks.network import check_network
from models.training.checks.table import check_table
from models.training.data.segments import Imputation, Segments, divide_segments, to_segments
from models.training.data.table import MOST_COLUMNS, ColumnRoles, read_table
from models.training.errors import TrainingDataError
from models.training.events import emit, phase
from models.training.hyperparameters import SensorAnomalyHyperparameters
from models.training.job import Outcome, SensorContext, TrainingJob
from models.training.sensors import report_plots
from models.training.sensors.detector_selection import (
    ALPHAS,
    DetectorResult,
    HeldOutScores,
    choose,
    judge,
    metrics_of,
    score_runs,
)

# The detector as it judged, where what is served was fitted to the held-out rows too: successors are compared with it.
JUDGED = "judged"
# A network learns nothing worth its time from fewer rows.
_ROWS_FOR_NETWORKS = 2000
_TOO_FEW = "too_few_rows"
_GOLDEN_ROWS = 8
_TOLERANCE = 0.01
_WATCHED_LOSSES = 100


@dataclass(frozen=True, slots=True)
class SensorSplit:
    """Runs to fit to, later runs to judge by, and the median seconds between readings."""

    train: Segments
    held_out: Segments
    repairs: Imputation


def train(bench: SensorContext, settings: SensorAnomalyHyperparameters) -> Outcome:
    """Read, check, fit, choose, fit again to all rows; write the model to `bench.result`."""
    bench.prepare()
    placement = place_sensor(bench.job.device)
    emit(bench.events, f"models of numbers on {placement.device}: {placement.reason}")
    parts = read_parts(bench.job, settings)
    emit(bench.events, f"{len(parts.train)} rows to train on, {len(parts.held_out)} later ones held out")
    bench.report.extend(check_table(parts.train, parts.held_out, parts.repairs))
    bench.report.raise_if_failed("data")
    names = _names(bench, settings, parts)
    for name in names:
        _check_network(bench, settings, name, parts)
    phase(bench.events, "running")
    judged = _all_judged(bench, settings, names, parts)
    chosen, why = choose(judged)
    emit(bench.events, _summary(chosen, why, judged))
    bench.report.extend(
        check_false_alarms(chosen.normal_p_values(parts.held_out), chosen.sensor.stride, chosen.sensor.calibrated_on)
    )
    incumbent = _incumbent(bench, parts.held_out)
    _check_baselines(bench, chosen, incumbent, parts)
    sensor = _published(bench, settings, chosen, parts)
    bench.report.plots = report_plots.detector_plots(chosen, judged, parts.held_out)
    return _outcome(bench, sensor, chosen, judged, incumbent, parts)


@dataclass(frozen=True, slots=True)
class IncumbentDetector:
    """What serves now, on the held-out rows."""

    scores: HeldOutScores
    metrics: Mapping[str, float]


def _check_baselines(
    bench: SensorContext, chosen: DetectorResult, incumbent: IncumbentDetector | None, parts: SensorSplit
) -> None:
    """Is it better than limits on each column, where labels tell both kinds among the held-out rows, and than what
    serves now?
    """
    held_out, rows, seed = parts.held_out, chosen.scores.rows, bench.job.seed
    labels = np.zeros(len(held_out), np.bool_) if held_out.labels is None else held_out.labels
    ours = Predictions(chosen.scores.scores, chosen.scores.p_values <= ALPHA)
    if labels[rows].any() and not labels[rows].all():
        trivial = limits(held_out.readings[rows], np.concatenate(parts.train.normal()))
        bench.report.extend(check_trivial(ours, trivial, labels[rows], chosen.sensor.stride, seed=seed))
    if incumbent is None:
        return
    same, here, there = np.intersect1d(rows, incumbent.scores.rows, assume_unique=True, return_indices=True)
    if not labels[same].all():
        theirs = Predictions(incumbent.scores.scores, incumbent.scores.p_values <= ALPHA)
        bench.report.extend(
            check_incumbent(ours.of(here), theirs.of(there), labels[same], chosen.sensor.stride, seed=seed)
        )


def read_parts(job: TrainingJob, settings: SensorAnomalyHyperparameters) -> SensorSplit:
    """The job's files as runs. Raises TrainingDataError for what cannot be used."""
    wanted = ColumnRoles(settings.columns, settings.timestamp, settings.group, settings.label)
    table = read_table(job.training_file, wanted)
    runs, repairs = to_segments(table, settings.kind)
    if job.validation_file is None:
        groups = 1 if table.groups is None else len(set(table.groups))
        return SensorSplit(*divide_segments(runs, groups, settings.held_out), repairs)
    wanted = ColumnRoles(table.columns, settings.timestamp, settings.group, settings.label)
    later = read_table(job.validation_file, wanted, param="validation_file")
    return SensorSplit(runs, to_segments(later, settings.kind, param="validation_file")[0], repairs)


def _names(bench: SensorContext, settings: SensorAnomalyHyperparameters, parts: SensorSplit) -> list[str]:
    """The detector asked for, or all that there are rows enough for and that can be served."""
    columns = len(parts.train.columns)
    if settings.detector != "auto":
        _require_servable(settings, columns)
        return [settings.detector]
    known, rows = DETECTORS[settings.kind], sum(map(len, parts.train.normal()))
    names = list(known)
    if rows < _ROWS_FOR_NETWORKS:
        emit(bench.events, f"no network is tried: {rows} normal rows to train on, expected {_ROWS_FOR_NETWORKS}")
        names = [name for name in names if not issubclass(known[name], NetworkDetector)]
    most = {name: _most_columns(settings.kind, name) for name in names}
    told = ", ".join(f"{name} (at most {most[name]} columns of a series)" for name in names if most[name] < columns)
    if told:
        emit(bench.events, f"not tried, since its state would be too large to serve: {told}", "warn")
    return [name for name in names if most[name] >= columns]


def _most_columns(kind: SensorKind, name: str) -> int:
    """Columns of which a detector can be served: a series' caller carries its state, records have none."""
    if kind == "records" or name == detector.DETECTOR_ID:  # which says itself how many it takes
        return MOST_COLUMNS
    return min(most_columns(build(kind, name, 1).window), MOST_COLUMNS)


def _require_servable(settings: SensorAnomalyHyperparameters, columns: int) -> None:
    most = _most_columns(settings.kind, settings.detector)
    if columns > most:
        message = (
            f"training_file: detector {settings.detector}: expected at most {most} columns of a series, got "
            f"{columns}; name fewer in "
            "`columns`, train one for each few, or take them as records (`kind`)"
        )
        raise TrainingDataError("too_many_columns", message, "training_file")


def _check_network(bench: SensorContext, settings: SensorAnomalyHyperparameters, name: str, parts: SensorSplit) -> None:
    """The second and third rung, for a network."""
    if name != detector.DETECTOR_ID and issubclass(DETECTORS[settings.kind][name], NetworkDetector):
        bench.report.extend(check_network(settings.kind, name, parts.train.normal(), seed=bench.job.seed))
        bench.report.raise_if_failed("forward")
        bench.report.raise_if_failed("loss")


def _all_judged(
    bench: SensorContext, settings: SensorAnomalyHyperparameters, names: Sequence[str], parts: SensorSplit
) -> list[DetectorResult]:
    """Each of them judged; under `auto` one that needs longer runs than there are is left out, as long as another is
    not.
    """
    judged: list[DetectorResult] = []
    short: list[TrainingDataError] = []
    for name in names:
        try:
            judged.append(_judged(bench, settings, name, parts))
        except TrainingDataError as error:
            if settings.detector != "auto" or error.code != _TOO_FEW:
                raise
            short.append(error)
    if not judged:
        raise short[0]
    for one in short:
        emit(bench.events, f"left out: {one.message}", "warn")
    return judged


def _judged(
    bench: SensorContext, settings: SensorAnomalyHyperparameters, name: str, parts: SensorSplit
) -> DetectorResult:
    """Fit to the training part and judge by the later one; the fourth rung, for a network."""
    watches: list[GradientMonitor] = []

    def watch(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> GradientMonitor:
        watches.append(GradientMonitor(module, optimizer))
        return watches[-1]

    sensor = _fitted(bench, settings, name, parts.train.normal(), parts, watch)
    for seen in watches:
        bench.report.extend(seen.findings())
        bench.report.raise_if_failed("gradient")
    losses = training_curve(sensor).steps[:_WATCHED_LOSSES]
    if losses:
        bench.report.add(check_slope(losses))
        bench.report.raise_if_failed("loss")
    return judge(name, sensor, parts.held_out, bench.job.seed)


def _fitted(
    bench: SensorContext,
    settings: SensorAnomalyHyperparameters,
    name: str,
    runs: list[Readings],
    parts: SensorSplit,
    watch: Watch | None = None,
) -> FittedSensor:
    if name == detector.DETECTOR_ID:
        return _adaptive(runs, parts)
    columns, period_s, device = parts.train.columns, parts.repairs.period_s, place_sensor(bench.job.device).device
    try:
        return fit_sensor(
            settings.kind, name, columns, runs, seed=bench.job.seed, period_s=period_s, device=device, watch=watch
        )
    except ValueError as error:
        raise TrainingDataError(_TOO_FEW, f"training_file: detector {name}: {error}", "training_file") from error


def _adaptive(runs: list[Readings], parts: SensorSplit) -> FittedSensor:
    try:
        return fit_adaptive(runs, parts.train.columns, parts.repairs.period_s)
    except ValueError as error:
        raise TrainingDataError(
            "too_many_columns", f"training_file: detector {detector.DETECTOR_ID}: {error}", "training_file"
        ) from error


def _published(
    bench: SensorContext, settings: SensorAnomalyHyperparameters, chosen: DetectorResult, parts: SensorSplit
) -> FittedSensor:
    """What is to be served: the chosen detector, fitted to the held-out rows too unless that is switched off."""
    if not settings.refit:
        save_sensor(chosen.sensor, bench.result)
        return chosen.sensor
    runs = [*parts.train.normal(), *parts.held_out.normal()]
    sensor = _fitted(bench, settings, chosen.name, runs, parts)
    save_sensor(sensor, bench.result)
    (bench.result / JUDGED).mkdir(exist_ok=True)
    save_sensor(chosen.sensor, bench.result / JUDGED)
    rows = sum(map(len, runs))
    emit(
        bench.events,
        f"the detector that is published was fitted to all {rows} normal rows after the held-out ones had judged",
    )
    return sensor


def _outcome(
    bench: SensorContext,
    sensor: FittedSensor,
    chosen: DetectorResult,
    judged: list[DetectorResult],
    incumbent: IncumbentDetector | None,
    parts: SensorSplit,
) -> Outcome:
    compared = {f"detector_faults_{one.name}": one.faults for one in judged}
    return Outcome(
        encoder="none",
        mode=chosen.name,
        labels=(),
        metrics=chosen.metrics | compared,
        incumbent_metrics=None if incumbent is None else incumbent.metrics,
        golden=_golden(bench, parts.held_out),
        trained_tokens=len(parts.train),
        sensor=describe(sensor),
    )


def _incumbent(bench: SensorContext, held_out: Segments) -> IncumbentDetector | None:
    """What serves now, on the same rows; None where it reads other columns."""
    path = bench.job.incumbent
    if path is None:
        return None
    try:
        sensor = load_sensor(path / JUDGED if (path / JUDGED).is_dir() else path)
    except ModelSourceError as error:
        emit(bench.events, f"what serves now cannot be compared: {error.message}", "warn")
        return None
    if not isinstance(sensor, FittedSensor) or sensor.columns != held_out.columns:
        emit(bench.events, f"what serves now cannot be compared: it reads {', '.join(sensor.columns)}", "warn")
        return None
    scores = score_runs(sensor, held_out)
    return IncumbentDetector(scores, metrics_of(sensor, held_out, scores))


def _golden(bench: SensorContext, held_out: Segments) -> dict[str, object]:
    """The first readings of the later part, and what the model as written gives for them."""
    sensor = load_sensor(bench.result)
    if not isinstance(sensor, FittedSensor):
        raise TypeError("the recipe wrote a forecaster")
    first = held_out.readings[next(held_out.each())][: sensor.window - 1 + _GOLDEN_ROWS]
    scores = sensor.score(first).scores
    tolerance = _TOLERANCE * max(float(np.abs(scores).max()), 1e-3)
    return {"texts": [], "readings": first.tolist(), "rows": scores[:, None].tolist(), "tolerance": tolerance}


def _summary(chosen: DetectorResult, why: str, judged: list[DetectorResult]) -> str:
    rate = chosen.metrics.get(f"false_alarm_rate_{ALPHAS[0]}")
    told = "too few rows to tell" if rate is None else f"{rate:.3f}"
    others = "; ".join(
        f"{one.name} faults {one.faults:.3f}, miscalibrated by {one.miscalibration:.3f}" for one in judged
    )
    return f"detector: {chosen.name}, since {why}; false alarms at alpha 0.05 on held-out rows: {told} ({others})"
