"""Fitting of forecasters: a linear map, a network, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sensors.forecasting.forecaster import SeriesForecaster, standardised
from models.sensors.forecasting.intervals import Intervals
from models.sensors.forecasting.networks import ForecastKind, LinearForecast, PatchForecast, WindowProducts
from models.sensors.forecasting.windows import Windows, cut_windows
from models.sensors.model import Readings
from models.sensors.scaling import ROUNDING
from models.training.sensors.forecast_network import LossCurve, NetworkFit, NetworkSettings

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
# The linear map stays unless the network's error is smaller by this share.
MIN_GAIN = 0.01
# Squared errors below this share of the training part's variance are nothing: a thousandth of the spread.
LEAST_ERROR = 1e-6
Tune = Callable[[NetworkFit, Windows], None]


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """Mean errors, and the squared error of each window [m] and of each step [horizon]."""

    mse: float
    mae: float
    by_window: NDArray[np.float64]
    by_step: NDArray[np.float64]


def errors_of(model: Callable[[Tensor], Tensor], windows: Windows, *, unit: Tensor | None = None) -> ForecastErrors:
    """The errors of a model of contexts [n, d, context], in units [d] of the columns; constant columns have none."""
    squared, absolute = [], []
    columns = windows.varying if unit is None else torch.nonzero(unit)[:, 0]
    unit = torch.ones(len(windows.series[0]), dtype=torch.float64) if unit is None else unit
    with torch.inference_mode():
        for x, y in windows.batches():
            error = ((model(x) - y).double() * unit[:, None])[:, columns]
            squared.append(error.square().mean(dim=1))
            absolute.append(error.abs().mean(dim=(1, 2)))
    by_window_and_step = torch.cat(squared)
    by_window, by_step = by_window_and_step.mean(dim=1), by_window_and_step.mean(dim=0)
    mae = float(torch.cat(absolute).mean())
    return ForecastErrors(float(by_window.mean()), mae, by_window.numpy(), by_step.numpy())


def fit_linear(train: Windows, validation: Windows) -> LinearForecast:
    """The linear map with the least error on validation windows.

    Candidates are shared or one for each column, with each ridge.
    """
    each = WindowProducts.of(train)
    moments = (each.pooled(), each) if len(each.square) > 1 else (each.pooled(),)
    candidates = [LinearForecast.fitted(columns, ridge) for columns in moments for ridge in RIDGES]
    return min(candidates, key=lambda model: errors_of(model, validation).mse)


@dataclass(frozen=True, slots=True)
class Standardisation:
    """Standardises readings by mean and standard deviation float64 [d] of the training part."""

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, runs: Sequence[Readings]) -> Standardisation:
        """From runs [n, d]; a constant column has no spread, and no part in errors."""
        readings = np.concatenate(list(runs))
        spread = readings.std(axis=0)
        return cls(readings.mean(axis=0), np.where(spread > ROUNDING * np.abs(readings).max(axis=0), spread, 0.0))

    def __call__(self, run: Readings) -> Tensor:
        """Standardised readings float32 [n, d]."""
        return standardised(run, torch.from_numpy(self.centre), torch.from_numpy(self.spread))


@dataclass(frozen=True, slots=True)
class ChosenForecaster:
    """The chosen forecaster with the reason.

    `validation` has each candidate's mean squared error on validation windows.
    """

    forecaster: SeriesForecaster
    scale: Standardisation
    validation: dict[ForecastKind, float]
    reason: str
    training: LossCurve | None = None


@dataclass(frozen=True, slots=True)
class ForecastPlan:
    """What to fit: columns, steps back and ahead, the model, and the network's training."""

    columns: tuple[str, ...]
    context: int
    horizon: int
    model: Literal["auto", "linear", "patch"] = "auto"
    descent: NetworkSettings = field(default_factory=NetworkSettings)
    period_s: float | None = None


def fit_forecaster(
    train: Sequence[Readings], validation: Sequence[Readings], plan: ForecastPlan, tune: Tune | None = None
) -> ChosenForecaster:
    """Fit to training runs [n, d]; choose and calibrate on validation runs.

    Validation runs may begin with the `context` rows before their first own row. `tune` trains a network and leaves it
    at the epoch with the least error on the validation windows. Raises ValueError when no run has context + horizon
    rows.
    """
    scale = Standardisation.of(train)
    fitting, choosing = (
        cut_windows([scale(run) for run in runs], plan.context, plan.horizon) for runs in (train, validation)
    )
    linear = fit_linear(fitting, choosing)
    models: dict[ForecastKind, LinearForecast | PatchForecast] = {"linear": linear}
    curve: LossCurve | None = None
    if plan.model != "linear":
        network = NetworkFit(linear, fitting, plan.descent)
        (tune or _tune)(network, choosing)
        models["patch"], curve = network.model, network.curve
    errors: dict[ForecastKind, float] = {kind: errors_of(model, choosing).mse for kind, model in models.items()}
    kind, reason = _choose(errors, plan.model)
    forecaster = _build_forecaster(models[kind].eval(), choosing, scale, plan)
    return ChosenForecaster(forecaster, scale, errors, reason, curve)


def relative_unit(spread: Tensor, other: Tensor) -> Tensor:
    """Spreads [d] in units of others [d]; 0 of columns that are constant there."""
    return torch.where(other > 0, spread / other, torch.zeros_like(spread))


def skill(mse: float, naive_mse: float) -> float:
    """The share of a naive forecast's squared error that is gone; errors below `LEAST_ERROR` count as that."""
    return 1.0 - max(mse, LEAST_ERROR) / max(naive_mse, LEAST_ERROR)


def _build_forecaster(
    model: LinearForecast | PatchForecast, calibration: Windows, scale: Standardisation, plan: ForecastPlan
) -> SeriesForecaster:
    return SeriesForecaster(
        model,
        Intervals.calibrated(model, calibration),
        plan.columns,
        context=plan.context,
        horizon=plan.horizon,
        centre=torch.from_numpy(scale.centre),
        spread=torch.from_numpy(scale.spread),
        period_s=plan.period_s,
    )


def _tune(network: NetworkFit, validation: Windows) -> None:
    network.train(lambda: errors_of(network.model, validation).mse)


def held_out_windows(forecaster: SeriesForecaster, runs: Sequence[Readings], *, skip: int = 0) -> Windows:
    """Windows of runs [n, d] without their first `skip` rows, in the forecaster's units."""
    return cut_windows([forecaster.standardised(run[skip:]) for run in runs], forecaster.context, forecaster.horizon)


def _choose(errors: dict[ForecastKind, float], asked: Literal["auto", "linear", "patch"]) -> tuple[ForecastKind, str]:
    """The kind to use and the reason."""
    listed = ", ".join(f"{kind} {error:.4f}" for kind, error in errors.items())
    if asked != "auto":
        return asked, f"{asked} was asked for; mean squared error on validation windows: {listed}"
    better = errors["patch"] < (1 - MIN_GAIN) * errors["linear"] and errors["linear"] > LEAST_ERROR
    measured = f"on validation windows the mean squared error is {listed}"
    if better:
        return "patch", f"{measured}: the network is better by more than {MIN_GAIN:.0%}"
    return "linear", f"{measured}: the network is not better by more than {MIN_GAIN:.0%}, and the linear map is simpler"
