"""The anomaly recipe for sensors: several detectors, one chosen on later readings, with alpha as false-alarm rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.counted import counted
from models.runtime.placement import place_sensor
from models.sensors.calibrated_detector import FittedDetector
from models.sensors.serialization import describe, load_sensor, save_sensor
from models.training.checks.comparison import ALPHA, Predictions, check_incumbent, check_trivial, limits
from models.training.checks.false_alarms import check_false_alarms
from models.training.checks.power import check_power, power_share
from models.training.checks.sensor_data import check_table
from models.training.context import JobContext
from models.training.data.job_readings import JobReadings, read_readings
from models.training.data.segments import Segments
from models.training.hyperparameters import SensorAnomalyHyperparameters
from models.training.job import Outcome, golden_readings
from models.training.job_events import emit, set_phase
from models.training.recipes.bound_rows import bound_readings, measure_readings
from models.training.recipes.incumbents import JUDGED, emit_incomparable, load_incumbent_sensor
from models.training.recipes.sensor_candidates import SensorCandidates
from models.training.report import Choice
from models.training.sensors import report_plots
from models.training.sensors.detector_selection import (
    ALPHAS,
    DetectorResult,
    HeldOutScores,
    choose,
    metrics_of,
    score_runs,
)
from models.training.sensors.held_out_events import explain, find_events, report_events
from models.training.sensors.power import measure_power

_GOLDEN_ROWS = 8
_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class IncumbentDetector:
    """The detector in service, on the held-out rows."""

    scores: HeldOutScores
    metrics: Mapping[str, float]


def train(context: JobContext, settings: SensorAnomalyHyperparameters) -> Outcome:
    """Read, check, fit, choose, fit again to all rows; write the model to `context.result`."""
    placement = place_sensor(context.job.device)
    emit(context.events, f"sensor models on {placement.device}: {placement.reason}")
    bound = bound_readings(context.job)
    parts = read_readings(context.job, settings, bound)
    emit(context.events, f"{counted(len(parts.train), 'row')} to train on, {len(parts.held_out)} later ones held out")
    context.report.extend(check_table(parts.train, parts.held_out, parts.repairs))
    context.report.raise_if_failed("data")
    candidates = SensorCandidates(context, settings, parts)
    names = candidates.names()
    candidates.check_networks(names)
    set_phase(context.events, "running")
    results = candidates.results(names)
    chosen, reason = choose(results)
    emit(context.events, _summary(chosen, reason, results))
    context.report.choices.append(_choice(chosen, reason, results))
    p_values, sensor = chosen.normal_p_values(parts.held_out), chosen.sensor
    context.report.extend(check_false_alarms(p_values, sensor.stride, sensor.calibrated_on))
    power = _measure_power(context, chosen, parts)
    incumbent = _incumbent(context, parts.held_out)
    _check_baselines(context, chosen, incumbent, parts)
    published = _publish(context, settings, candidates, chosen, parts)
    _describe(context, chosen, results, parts.held_out)
    return Outcome(
        encoder="none",
        mode=chosen.name,
        labels=(),
        metrics=chosen.metrics | power | {f"detector_faults_{result.name}": result.faults for result in results},
        incumbent_metrics=None if incumbent is None else incumbent.metrics,
        golden=_golden(context, parts.held_out),
        trained_tokens=len(parts.train),
        sensor=describe(published),
        bound=measure_readings(context, bound, parts.left_out),
    )


def _describe(context: JobContext, chosen: DetectorResult, results: list[DetectorResult], held_out: Segments) -> None:
    """Add the events that it finds in the held-out part, and the plots, to the report."""
    runs = explain(chosen.sensor, held_out)
    events = find_events(chosen.sensor, runs)
    if held_out.kind == "series":
        context.report.events = report_events(chosen.sensor, events, held_out)
    context.report.plots = report_plots.detector_plots(chosen, results, held_out, runs, events)


def _measure_power(context: JobContext, chosen: DetectorResult, parts: JobReadings) -> dict[str, float]:
    """Report which faults it would find; the metric `power` is the share of columns in which it finds any."""
    longest = max(parts.held_out.normal(), key=len, default=np.zeros((0, len(parts.held_out.columns))))
    found = measure_power(chosen.sensor, longest, ALPHA)
    context.report.add(check_power(found, ALPHA, parts.repairs.period_s))
    share = power_share(found)
    return {} if share is None else {"power": share}


def _incumbent(context: JobContext, held_out: Segments) -> IncumbentDetector | None:
    """The detector in service on the same rows; None where it reads other columns."""
    sensor = load_incumbent_sensor(context)
    if sensor is None:
        return None
    if not isinstance(sensor, FittedDetector) or sensor.columns != held_out.columns:
        emit_incomparable(context.events, f"it reads {', '.join(sensor.columns)}")
        return None
    scores = score_runs(sensor, held_out)
    return IncumbentDetector(scores, metrics_of(sensor, held_out, scores))


def _check_baselines(
    context: JobContext, chosen: DetectorResult, incumbent: IncumbentDetector | None, parts: JobReadings
) -> None:
    """Compare with limits on each column, where the held-out rows have both labels, and with the incumbent."""
    held_out, rows, seed = parts.held_out, chosen.scores.rows, context.job.seed
    labels = np.zeros(len(held_out), np.bool_) if held_out.labels is None else held_out.labels
    ours, stride = _predictions(chosen.scores), chosen.sensor.stride
    if labels[rows].any() and not labels[rows].all():
        trivial = limits(held_out.readings[rows], np.concatenate(parts.train.normal()))
        context.report.extend(check_trivial(ours, trivial, labels[rows], stride, seed=seed))
    if incumbent is None:
        return
    same, here, there = np.intersect1d(rows, incumbent.scores.rows, assume_unique=True, return_indices=True)
    if not labels[same].all():
        theirs = _predictions(incumbent.scores)
        context.report.extend(check_incumbent(ours.of(here), theirs.of(there), labels[same], stride, seed=seed))


def _predictions(scores: HeldOutScores) -> Predictions:
    return Predictions(scores.scores, scores.p_values <= ALPHA)


def _publish(
    context: JobContext,
    settings: SensorAnomalyHyperparameters,
    candidates: SensorCandidates,
    chosen: DetectorResult,
    parts: JobReadings,
) -> FittedDetector:
    """Write the chosen detector, fitted to the held-out rows too unless that is switched off."""
    if not settings.refit:
        save_sensor(chosen.sensor, context.result)
        return chosen.sensor
    sensor = candidates.fit(chosen.name, [parts.train, parts.held_out])
    save_sensor(sensor, context.result)
    (context.result / JUDGED).mkdir(exist_ok=True)
    save_sensor(chosen.sensor, context.result / JUDGED)
    rows = sum(len(run) for part in (parts.train, parts.held_out) for run in part.normal())
    message = f"the published detector is fitted to all {rows} normal rows; its metrics are from held-out rows"
    emit(context.events, message)
    return sensor


def _golden(context: JobContext, held_out: Segments) -> dict[str, object]:
    """The first readings of the later part, and the scores that the written model gives for them."""
    sensor = load_sensor(context.result)
    if not isinstance(sensor, FittedDetector):
        raise TypeError("the recipe wrote a forecaster")
    first = held_out.readings[next(held_out.each())][: sensor.window - 1 + _GOLDEN_ROWS]
    scores = sensor.score(first).scores
    return golden_readings(first, scores[:, None], _TOLERANCE * max(float(np.abs(scores).max()), 1e-3))


def _choice(chosen: DetectorResult, reason: str, results: list[DetectorResult]) -> Choice:
    figures = {
        one.name: {
            "AUROC of labelled anomalies": one.metrics.get("auroc"),
            "AUROC of injected faults": one.faults,
            "false alarms at alpha 0.05": one.metrics.get("false_alarm_rate_0.05"),
        }
        for one in results
    }
    return Choice("Detector", chosen.name, reason, figures)


def _summary(chosen: DetectorResult, reason: str, results: list[DetectorResult]) -> str:
    rate = chosen.metrics.get(f"false_alarm_rate_{ALPHAS[0]}")
    measured = "too few rows to tell" if rate is None else f"{rate:.3f}"
    each = "; ".join(f"{one.name}: AUROC of injected faults {one.faults:.3f}" for one in results)
    return f"detector: {chosen.name}, since {reason}; false alarms at alpha 0.05 on held-out rows: {measured} ({each})"
