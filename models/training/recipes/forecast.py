"""The forecast recipe: a linear map or a small network, chosen on later windows, with intervals that keep their
promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from models.errors import ModelSourceError
from models.sensors.base import Readings
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.forecasting.windows import Windows
from models.sensors.seasonality import find_season
from models.sensors.serialization import load_sensor, save_sensor
from models.training.checks.forecast import check_forecasts, check_incumbent, check_network
from models.training.checks.gradient import GradientMonitor
from models.training.checks.loss import check_slope
from models.training.checks.table import check_table
from models.training.data.baselines import repeat_last, repeat_season
from models.training.data.forecast_split import SeriesParts, divide_series
from models.training.events import emit, phase
from models.training.hyperparameters import ForecastHyperparameters
from models.training.job import Outcome, SensorContext
from models.training.sensors import report_plots
from models.training.sensors.fit_forecaster import (
    ChosenForecaster,
    ForecastErrors,
    ForecastPlan,
    errors_of,
    fit_forecaster,
    held_out_windows,
)
from models.training.sensors.forecast_network import NetworkFit, NetworkSettings

_SLOPE_STEPS = 100
_TOLERANCE = 0.01


def train(bench: SensorContext, settings: ForecastHyperparameters) -> Outcome:
    """Read, check, fit, choose, calibrate, judge; write the model to `bench.result`."""
    bench.prepare()
    parts = divide_series(bench.job, settings)
    emit(bench.events, f"{len(parts.seen)} rows to train and calibrate on, {len(parts.held_rows)} later ones held out")
    bench.report.extend(check_table(parts.seen, parts.held_rows, parts.repairs))
    bench.report.raise_if_failed("data")
    phase(bench.events, "running")
    chosen = fit_forecaster(parts.train, parts.validation, _plan(bench, settings, parts), MonitoredTraining(bench))
    emit(bench.events, f"forecaster: {chosen.forecaster.model.kind}, since {chosen.reason}")
    judged = _judge(bench, settings, chosen, parts)
    save_sensor(chosen.forecaster, bench.result)
    return _outcome(bench, chosen, judged, parts)


@dataclass(frozen=True, slots=True)
class MonitoredTraining:
    """Trains a network under the eyes of the ladder."""

    bench: SensorContext

    def __call__(self, network: NetworkFit, validation: Windows) -> None:
        """Rungs two and three before the first step, the fourth around the first steps; LadderError where one fails."""
        report, losses = self.bench.report, list[float]()
        report.extend(check_network(network))
        for rung in ("forward", "loss"):
            report.raise_if_failed(rung)
        watch = GradientMonitor(network.model, network.optimizer)

        def around(step: Callable[[], None], loss: float, number: int) -> None:
            with watch.step():
                step()
            losses.append(loss)

        judged = network.train(lambda: errors_of(network.model, validation).mse, around)
        report.extend(watch.findings())
        report.raise_if_failed("gradient")
        if len(losses) >= 4:
            report.add(check_slope(losses[:_SLOPE_STEPS]))
            report.raise_if_failed("loss")
        told = ", ".join(f"{error:.4f}" for error in judged)
        emit(
            self.bench.events,
            f"the network's mean squared error on validation windows, before and after each epoch: {told}",
        )


@dataclass(frozen=True, slots=True)
class ForecastMetrics:
    """Numbers of the held-out windows."""

    metrics: dict[str, float]
    incumbent: dict[str, float] | None


def _plan(bench: SensorContext, settings: ForecastHyperparameters, parts: SeriesParts) -> ForecastPlan:
    usual = NetworkSettings(seed=bench.job.seed)
    descent = NetworkSettings(
        epochs=usual.epochs if settings.n_epochs == "auto" else settings.n_epochs,
        batch_windows=usual.batch_windows if settings.batch_size == "auto" else settings.batch_size,
        learning_rate=usual.learning_rate if settings.learning_rate == "auto" else settings.learning_rate,
        seed=bench.job.seed,
    )
    return ForecastPlan(parts.columns, parts.context, settings.horizon, settings.model, descent, parts.repairs.period_s)


def _judge(
    bench: SensorContext, settings: ForecastHyperparameters, chosen: ChosenForecaster, parts: SeriesParts
) -> ForecastMetrics:
    """Errors in standard deviations of the training part, against forecasts that anybody could make."""
    windows = held_out_windows(chosen.forecaster, parts.held_out)
    ours, coverage = errors_of(chosen.forecaster.model, windows), chosen.forecaster.coverage(windows)
    naive = _naive(settings, parts, windows)
    findings = check_forecasts(
        ours.by_window,
        {name: error.by_window for name, error in naive.items()},
        coverage,
        settings.horizon,
        seed=bench.job.seed,
    )
    bench.report.extend(findings)
    theirs = _incumbent(bench, chosen, parts)
    if theirs is not None:
        bench.report.add(
            check_incumbent(ours.by_window, theirs.errors.by_window, settings.horizon, seed=bench.job.seed)
        )
    bench.report.plots = report_plots.forecast_plots(chosen, parts, {"model": ours, **naive})
    bench.report.raise_if_failed("outcome")
    best = min(error.mse for error in naive.values())
    metrics = _metrics(ours, coverage, best, len(windows)) | {
        f"mse_{name.replace(' ', '_')}": error.mse for name, error in naive.items()
    }
    metrics |= {f"validation_mse_{kind}": error for kind, error in chosen.validation.items()}
    known = None if theirs is None else _metrics(theirs.errors, theirs.coverage, best, len(windows))
    return ForecastMetrics(metrics, known)


def _metrics(errors: ForecastErrors, coverage: float, naive_mse: float, windows: int) -> dict[str, float]:
    """`primary` is the skill: the share of the best naive forecast's squared error that is gone."""
    skill = 1.0 - errors.mse / max(naive_mse, 1e-12)
    return {
        "primary": skill,
        "mse": errors.mse,
        "mae": errors.mae,
        "coverage_80": coverage,
        "held_out_windows": float(windows),
    }


def _naive(settings: ForecastHyperparameters, parts: SeriesParts, windows: Windows) -> dict[str, ForecastErrors]:
    season = settings.season if settings.season != "auto" else find_season(max(parts.train, key=len), parts.context)
    naive = {"last value": errors_of(repeat_last(settings.horizon), windows)}
    if season is not None:
        naive["last season"] = errors_of(repeat_season(season, settings.horizon), windows)
    return naive


@dataclass(frozen=True, slots=True)
class IncumbentForecaster:
    """What serves now, on the held-out windows: its errors in the units of the new one, and what its 80 % intervals
    cover.
    """

    errors: ForecastErrors
    coverage: float


def _incumbent(bench: SensorContext, chosen: ChosenForecaster, parts: SeriesParts) -> IncumbentForecaster | None:
    """None where it forecasts something else."""
    if bench.job.incumbent is None:
        return None
    try:
        known = load_sensor(bench.job.incumbent)
    except ModelSourceError as error:
        emit(bench.events, f"what serves now cannot be compared: {error.message}", "warn")
        return None
    ours = chosen.forecaster
    if not isinstance(known, SeriesForecaster) or (known.columns, known.horizon) != (ours.columns, ours.horizon):
        emit(bench.events, "what serves now cannot be compared: it has other columns or another horizon", "warn")
        return None
    if known.context > ours.context:
        emit(
            bench.events,
            f"what serves now cannot be compared: it needs {known.context} readings, these have {ours.context}",
            "warn",
        )
        return None
    windows = held_out_windows(known, parts.held_out, skip=ours.context - known.context)
    return IncumbentForecaster(
        errors_of(known.model, windows, unit=known.spread / ours.spread), known.coverage(windows)
    )


def _outcome(bench: SensorContext, chosen: ChosenForecaster, judged: ForecastMetrics, parts: SeriesParts) -> Outcome:
    return Outcome(
        encoder="none",
        mode=chosen.forecaster.model.kind,
        labels=(),
        metrics=judged.metrics,
        incumbent_metrics=judged.incumbent,
        golden=_golden(cast(SeriesForecaster, load_sensor(bench.result)), max(parts.held_out, key=len)),
        trained_tokens=sum(map(len, parts.train)),
        sensor=chosen.forecaster.describe(),
    )


def _golden(forecaster: SeriesForecaster, readings: Readings) -> dict[str, object]:
    """One context, and the mean forecast of the model as written, a row a step."""
    first = readings[: forecaster.context]
    mean = forecaster.forecast(first, forecaster.horizon, ()).mean
    spread = float(forecaster.spread.min())
    tolerance = max(_TOLERANCE * spread, 1e-5 * float(np.abs(mean).max()))
    return {"texts": [], "readings": first.tolist(), "rows": mean.tolist(), "tolerance": tolerance}
