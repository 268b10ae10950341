"""Checks of a forecaster: its network before training, and its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss, check_overfit
from models.training.checks.wording import lead_status, loss_status, warn_if
from models.training.metrics import Floats, Interval, mean_gain
from models.training.report import Finding
from models.training.sensors.fit_forecaster import LEAST_ERROR
from models.training.sensors.forecast_network import NetworkFit

_WINDOWS, _OVERFIT_WINDOWS = 32, 4
_STEPS, _LEARNING_RATE = 200, 5e-3
# The network's correction to the linear map starts at zero on purpose.
_ZERO_AT_START = ("head",)
_NOMINAL_COVERAGE, _MAX_COVERAGE_ERROR = 0.8, 0.08

Errors = NDArray[np.float64]


def check_network(fit: NetworkFit) -> Iterator[Finding]:
    """Forward and loss checks on windows spread over time; the network stays as it is."""
    model, (x, y) = fit.model, fit.sample(_WINDOWS)
    width = y[0].numel()
    yield from check_forward(lambda: model(x).flatten(1), rows=len(x), width=width, module=model, ignore=_ZERO_AT_START)

    def loss() -> Tensor:
        return functional.mse_loss(model(x), y)

    def overfit_loss(module: nn.Module) -> Tensor:
        return functional.mse_loss(module(x[:_OVERFIT_WINDOWS]), y[:_OVERFIT_WINDOWS])

    forecast = model(x).detach()
    yield from check_loss(loss, model.named_parameters(), fresh=False, outputs=forecast, targets=y, kind="values")
    yield check_overfit(model, overfit_loss, steps=_STEPS, learning_rate=_LEARNING_RATE, least=LEAST_ERROR)


def check_incumbent(ours: Errors, theirs: Errors, horizon: int, *, seed: int) -> Finding:
    """Warn where squared errors [m] are worse than the served model's beyond chance.

    Both are of the same windows, in the order of time.
    """
    gain = _error_gain(ours, theirs, horizon, seed)
    message = (
        f"The mean squared error is {ours.mean():.4g}, that of the served model {theirs.mean():.4g}; the gain is "
        f"{gain}: {gain.verdict}."
    )
    remedy = "Keep the served model, or check what changed: other rows, another context, another model."
    return Finding.of("outcome", "against_incumbent", loss_status(gain), gain.value, 0.0, message, remedy)


def check_forecasts(
    ours: Errors, naive: Mapping[str, Errors], coverage: float, horizon: int, *, seed: int
) -> Iterator[Finding]:
    """Compare squared errors of held-out windows [m] with those of naive forecasts.

    Windows overlap, so `horizon` neighbours count as one. `coverage` is the share inside the 80 % intervals.
    """
    for name, theirs in naive.items():
        gain = _error_gain(ours, theirs, horizon, seed)
        message = (
            f"The mean squared error is {ours.mean():.4g}, that of {name} {theirs.mean():.4g}; the gain is {gain}."
        )
        remedy = (
            f"Use {name} instead, or look for columns without a pattern and try a longer context, a shorter horizon "
            "or more rows."
        )
        check = f"against_{name.replace(' ', '_')}"
        yield Finding.of("outcome", check, lead_status(gain), gain.value, 0.0, message, remedy)
    status = warn_if(abs(coverage - _NOMINAL_COVERAGE) > _MAX_COVERAGE_ERROR)
    message = f"The 80 % intervals hold {coverage:.1%} of the held-out readings; expected 72 % to 88 %."
    remedy = "The series has changed since the calibration rows: train on later rows, and trust the width less."
    yield Finding.of("outcome", "coverage", status, coverage, _NOMINAL_COVERAGE, message, remedy)


def _error_gain(ours: Errors, theirs: Errors, horizon: int, seed: int) -> Interval:
    """The reduction of squared errors [m] that matter, with a bootstrap over blocks of `horizon` windows."""
    return mean_gain(*(_block_means(-np.maximum(one, LEAST_ERROR), horizon) for one in (ours, theirs)), seed=seed)


def _block_means(values: Floats, length: int) -> Floats:
    return np.array([part.mean() for part in np.array_split(values, max(len(values) // length, 1))])
