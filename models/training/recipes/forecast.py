"""The forecast recipe: a linear map or a small network, chosen on later windows, with calibrated intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from models.counted import counted
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.forecasting.windows import Windows
from models.sensors.model import Readings
from models.sensors.seasonality import find_season
from models.sensors.serialization import load_sensor, save_sensor
from models.training.checks.forecast_network import check_forecasts, check_incumbent, check_network
from models.training.checks.gradient import GradientMonitor
from models.training.checks.sensor_data import check_table
from models.training.context import JobContext
from models.training.data.baselines import repeat_last, repeat_season
from models.training.data.forecast_split import SeriesParts, divide_series
from models.training.hyperparameters import ForecastHyperparameters
from models.training.job import Outcome, golden_readings
from models.training.job_events import emit, set_phase
from models.training.recipes.bound_rows import bound_readings, measure_readings
from models.training.recipes.incumbents import emit_incomparable, load_incumbent_sensor
from models.training.recipes.sensor_checks import check_after_training, check_before_training
from models.training.report import Choice
from models.training.sensors import report_plots
from models.training.sensors.fit_forecaster import (
    ChosenForecaster,
    ForecastErrors,
    ForecastPlan,
    errors_of,
    fit_forecaster,
    held_out_windows,
    relative_unit,
    skill,
)
from models.training.sensors.forecast_network import NetworkFit, NetworkSettings

# Fewer losses show no slope.
_LEAST_LOSSES = 4
_NETWORK = "patch network"
_TOLERANCE = 0.01
# Float32 networks forecast standardised values; of columns of unlike spread the largest one's rounding counts.
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True)
class ForecastMetrics:
    """Metrics on the held-out windows: the new forecaster's, and those of the one in service."""

    metrics: dict[str, float]
    incumbent: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class IncumbentForecaster:
    """The forecaster in service, on the held-out windows.

    Its errors are in the units of the new one; `coverage` is that of its 80 % intervals.
    """

    errors: ForecastErrors
    coverage: float


def train(context: JobContext, settings: ForecastHyperparameters) -> Outcome:
    """Read, check, fit, choose, calibrate, measure; write the model to `context.result`."""
    bound = bound_readings(context.job)
    parts = divide_series(context.job, settings, bound)
    seen, held_out, repairs = parts.readings.train, parts.readings.held_out, parts.readings.repairs
    emit(context.events, f"{counted(len(seen), 'row')} to train and calibrate on, {len(held_out)} later ones held out")
    context.report.extend(check_table(seen, held_out, repairs))
    context.report.raise_if_failed("data")
    set_phase(context.events, "running")
    plan = _plan(settings, parts, context.job.seed)
    chosen = fit_forecaster(parts.train, parts.validation, plan, MonitoredTraining(context))
    emit(context.events, f"forecaster: {chosen.forecaster.model.kind}, since {chosen.reason}")
    context.report.choices.append(_choice(chosen))
    measured = _measure(context, settings, chosen, parts)
    save_sensor(chosen.forecaster, context.result)
    return Outcome(
        encoder="none",
        mode=chosen.forecaster.model.kind,
        labels=(),
        metrics=measured.metrics,
        incumbent_metrics=measured.incumbent,
        golden=_golden(cast(SeriesForecaster, load_sensor(context.result)), max(parts.held_out, key=len)),
        trained_tokens=sum(map(len, parts.train)),
        sensor=chosen.forecaster.describe(),
        bound=measure_readings(context, bound, parts.readings.left_out),
    )


@dataclass(frozen=True, slots=True)
class MonitoredTraining:
    """Trains a network between its checks."""

    context: JobContext

    def __call__(self, network: NetworkFit, validation: Windows) -> None:
        """Check forward and loss, train, check the gradients. Raises CheckFailed."""
        report, losses = self.context.report, list[float]()
        check_before_training(report, _NETWORK, check_network(network))
        monitor = GradientMonitor(network.model, network.optimizer)

        def around_step(step: Callable[[], None], loss: float, number: int) -> None:
            with monitor.step():
                step()
            losses.append(loss)

        errors = network.train(lambda: errors_of(network.model, validation).mse, around_step)
        check_after_training(report, _NETWORK, [monitor], losses if len(losses) >= _LEAST_LOSSES else [])
        curve = ", ".join(f"{error:.4f}" for error in errors)
        message = "the network's mean squared error on validation windows, before and after each epoch"
        emit(self.context.events, f"{message}: {curve}")


def _choice(chosen: ChosenForecaster) -> Choice:
    label = "mean squared error on validation windows"
    errors: dict[str, dict[str, float | None]] = {kind: {label: error} for kind, error in chosen.validation.items()}
    return Choice("Forecaster", chosen.forecaster.model.kind, chosen.reason, errors)


def _plan(settings: ForecastHyperparameters, parts: SeriesParts, seed: int) -> ForecastPlan:
    own = NetworkSettings(seed=seed)
    network = NetworkSettings(
        epochs=own.epochs if settings.n_epochs == "auto" else settings.n_epochs,
        batch_windows=own.batch_windows if settings.batch_size == "auto" else settings.batch_size,
        learning_rate=own.learning_rate if settings.learning_rate == "auto" else settings.learning_rate,
        seed=seed,
    )
    columns, period_s = parts.readings.train.columns, parts.readings.repairs.period_s
    return ForecastPlan(columns, parts.context, settings.horizon, settings.model, network, period_s)


def _measure(
    context: JobContext, settings: ForecastHyperparameters, chosen: ChosenForecaster, parts: SeriesParts
) -> ForecastMetrics:
    """Compare with naive forecasts and the incumbent, in standard deviations of the training part.

    Raises CheckFailed where the forecaster is worse than a naive one.
    """
    windows, horizon, seed = held_out_windows(chosen.forecaster, parts.held_out), settings.horizon, context.job.seed
    ours, coverage = errors_of(chosen.forecaster.model, windows), chosen.forecaster.coverage(windows)
    naive = _naive_errors(settings, parts, windows)
    by_window = {name: errors.by_window for name, errors in naive.items()}
    context.report.extend(check_forecasts(ours.by_window, by_window, coverage, horizon, seed=seed))
    theirs = _incumbent(context, chosen, parts)
    if theirs is not None:
        context.report.add(check_incumbent(ours.by_window, theirs.errors.by_window, horizon, seed=seed))
    context.report.plots = report_plots.forecast_plots(chosen, parts, {"model": ours, **naive})
    context.report.raise_if_failed("outcome")
    best = min(errors.mse for errors in naive.values())
    metrics = _metrics(ours, coverage, best, len(windows))
    metrics |= {f"mse_{name.replace(' ', '_')}": errors.mse for name, errors in naive.items()}
    metrics |= {f"validation_mse_{kind}": error for kind, error in chosen.validation.items()}
    known = None if theirs is None else _metrics(theirs.errors, theirs.coverage, best, len(windows))
    return ForecastMetrics(metrics, known)


def _metrics(errors: ForecastErrors, coverage: float, naive_mse: float, windows: int) -> dict[str, float]:
    """`primary` is the skill: the share of the best naive forecast's squared error that is gone."""
    return {
        "primary": skill(errors.mse, naive_mse),
        "mse": errors.mse,
        "mae": errors.mae,
        "coverage_80": coverage,
        "held_out_windows": float(windows),
    }


def _naive_errors(settings: ForecastHyperparameters, parts: SeriesParts, windows: Windows) -> dict[str, ForecastErrors]:
    season = settings.season if settings.season != "auto" else find_season(max(parts.train, key=len), parts.context)
    naive = {"last value": errors_of(repeat_last(settings.horizon), windows)}
    if season is not None:
        naive["last season"] = errors_of(repeat_season(season, settings.horizon), windows)
    return naive


def _incumbent(context: JobContext, chosen: ChosenForecaster, parts: SeriesParts) -> IncumbentForecaster | None:
    """The forecaster in service; None where it forecasts something else."""
    known, ours = load_incumbent_sensor(context), chosen.forecaster
    if known is None:
        return None
    if not isinstance(known, SeriesForecaster) or (known.columns, known.horizon) != (ours.columns, ours.horizon):
        emit_incomparable(context.events, "it has other columns or another horizon")
        return None
    if known.context > ours.context:
        emit_incomparable(context.events, f"it needs {known.context} readings, these have {ours.context}")
        return None
    windows = held_out_windows(known, parts.held_out, skip=ours.context - known.context)
    errors = errors_of(known.model, windows, unit=relative_unit(known.spread, ours.spread))
    return IncumbentForecaster(errors, known.coverage(windows))


def _golden(forecaster: SeriesForecaster, readings: Readings) -> dict[str, object]:
    """One context, and the mean forecast of the written model, a row a step."""
    first = readings[: forecaster.context]
    mean = forecaster.forecast(first, forecaster.horizon, ()).mean
    spread = forecaster.spread[forecaster.spread > 0]
    return golden_readings(first, mean, max(_TOLERANCE * float(spread.min()), _ROUNDING * float(spread.max())))
