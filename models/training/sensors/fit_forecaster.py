"""Fitting forecasters: the linear map in closed form, the network by descent, and the choice between them on unseen
windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sensors.base import Readings
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.forecasting.intervals import Intervals
from models.sensors.forecasting.networks import ForecastKind, LinearForecast, Moments, PatchForecast
from models.sensors.forecasting.windows import Windows, cut_windows
from models.training.sensors.forecast_network import LossCurve, NetworkFit, NetworkSettings

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
# The simpler model stays unless the other's error is smaller by this share of it.
WORTH = 0.01
_NO_SPREAD = 1e-9
Tune = Callable[[NetworkFit, Windows], None]


@dataclass(frozen=True, slots=True)
class ForecastErrors:
    """Mean squared and mean absolute error over all windows, steps and columns; the squared one of each window [m]
    and step [horizon].
    """

    mse: float
    mae: float
    by_window: NDArray[np.float64]
    by_step: NDArray[np.float64]


def errors_of(model: Callable[[Tensor], Tensor], windows: Windows, *, unit: Tensor | None = None) -> ForecastErrors:
    """What a model of contexts [n, d, context] gets wrong; `unit` [d] changes the columns' units."""
    squared, absolute = [], []
    with torch.inference_mode():
        for x, y in windows.batches():
            off = (model(x) - y).double() * (1.0 if unit is None else unit[:, None])
            squared.append(off.square().mean(dim=1))
            absolute.append(off.abs().mean(dim=(1, 2)))
    each = torch.cat(squared)
    by_window = each.mean(dim=1)
    return ForecastErrors(
        float(by_window.mean()), float(torch.cat(absolute).mean()), by_window.numpy(), each.mean(dim=0).numpy()
    )


def fit_linear(train: Windows, validation: Windows) -> tuple[LinearForecast, float]:
    """The map, shared or one a column, and the ridge of least squared error on validation windows; with that error."""
    each = Moments.of(train)
    candidates = [LinearForecast.fitted(moments, strength) for moments in _moments(each) for strength in STRENGTHS]
    errors = [errors_of(model, validation).mse for model in candidates]
    best = int(np.argmin(errors))
    return candidates[best], errors[best]


def _moments(each: Moments) -> tuple[Moments, ...]:
    pooled = each.pooled()
    return (pooled, each) if len(each.square) > 1 else (pooled,)


@dataclass(frozen=True, slots=True)
class Standardisation:
    """What standardises readings: the mean and the standard deviation float64 [d] of the training part."""

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, runs: Sequence[Readings]) -> Standardisation:
        """Of runs [n, d]; a column that never changes keeps its unit."""
        readings = np.concatenate(list(runs))
        spread = readings.std(axis=0)
        return cls(readings.mean(axis=0), np.where(spread > _NO_SPREAD, spread, 1.0))

    def __call__(self, run: Readings) -> Tensor:
        """Standardised float32 [n, d]."""
        return torch.from_numpy(((run - self.centre) / self.spread).astype(np.float32))


@dataclass(frozen=True, slots=True)
class ChosenForecaster:
    """A forecaster, the mean squared error of each candidate on the validation windows, why this one, and how a
    network was trained.
    """

    forecaster: SeriesForecaster
    scale: Standardisation
    validation: dict[ForecastKind, float]
    reason: str
    training: LossCurve | None = None


@dataclass(frozen=True, slots=True)
class ForecastPlan:
    """What to fit: the columns, how far to look back and ahead, which model, and how the network is trained."""

    columns: tuple[str, ...]
    context: int
    horizon: int
    model: Literal["auto", "linear", "patch"] = "auto"
    descent: NetworkSettings = field(default_factory=NetworkSettings)
    period_s: float | None = None


def fit_forecaster(
    train: Sequence[Readings], validation: Sequence[Readings], plan: ForecastPlan, tune: Tune | None = None
) -> ChosenForecaster:
    """Fit to runs [n, d], choose and calibrate by others, which may begin with the `context` rows before their own
    first.

    `tune` trains a network on its windows and leaves it at the epoch that the validation windows given to it like best.
    ValueError when no run has context + horizon rows.
    """
    scale = Standardisation.of(train)
    seen, unseen = (
        cut_windows([scale(run) for run in runs], plan.context, plan.horizon) for runs in (train, validation)
    )
    linear, _ = fit_linear(seen, unseen)
    models: dict[ForecastKind, LinearForecast | PatchForecast] = {"linear": linear}
    curve: LossCurve | None = None
    if plan.model != "linear":
        network = NetworkFit(linear, seen, plan.descent)
        (tune or tune_quietly)(network, unseen)
        models["patch"], curve = network.model, network.curve
    errors: dict[ForecastKind, float] = {kind: errors_of(model, unseen).mse for kind, model in models.items()}
    kind, reason = _choose(errors, plan.model)
    model = models[kind].eval()
    made = SeriesForecaster(
        model,
        Intervals.calibrated(model, unseen),
        plan.columns,
        context=plan.context,
        horizon=plan.horizon,
        centre=torch.from_numpy(scale.centre),
        spread=torch.from_numpy(scale.spread),
        period_s=plan.period_s,
    )
    return ChosenForecaster(made, scale, errors, reason, curve)


def tune_quietly(network: NetworkFit, validation: Windows) -> None:
    """Train with nobody watching."""
    network.train(lambda: errors_of(network.model, validation).mse)


def held_out_windows(forecaster: SeriesForecaster, runs: Sequence[Readings], *, skip: int = 0) -> Windows:
    """Windows of runs [n, d] in the forecaster's own standard units; the first `skip` rows of each run are left out."""
    return cut_windows([forecaster.standardised(run[skip:]) for run in runs], forecaster.context, forecaster.horizon)


def _choose(errors: dict[ForecastKind, float], asked: Literal["auto", "linear", "patch"]) -> tuple[ForecastKind, str]:
    told = ", ".join(f"{kind} {error:.4f}" for kind, error in errors.items())
    if asked != "auto":
        return asked, f"{asked} was asked for; mean squared error on validation windows: {told}"
    better = errors["patch"] < (1 - WORTH) * errors["linear"]
    verdict = (
        f"is better by more than {WORTH:.0%}"
        if better
        else f"is not better by more than {WORTH:.0%}, and the linear map is simpler"
    )
    return (
        "patch" if better else "linear"
    ), f"on validation windows the mean squared error is {told}: the network {verdict}"
