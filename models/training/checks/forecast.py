"""The ladder for a forecaster: its network before and during training, and what it is worth against doing next to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss, check_overfit
from models.training.metrics import Floats, mean_gain
from models.training.report import Finding, Status
from models.training.sensors.forecast_network import NetworkFit

_WINDOWS, _BY_HEART = 32, 4
_STEPS, _RATE = 200, 5e-3
# What the network adds to the linear map starts at zero on purpose.
_ZERO_AT_START = ("head",)
_PROMISED, _MOST_OFF = 0.8, 0.08


def check_network(network: NetworkFit) -> Iterator[Finding]:
    """The second and third rung on windows spread over time; the network is left as it is."""
    model, (x, y) = network.model, network.sample(_WINDOWS)
    width = y[0].numel()
    yield from check_forward(lambda: model(x).flatten(1), rows=len(x), width=width, module=model, ignore=_ZERO_AT_START)
    made = model(x).detach()
    yield from check_loss(
        lambda: functional.mse_loss(model(x), y),
        model.named_parameters(),
        fresh=False,
        outputs=made,
        targets=y,
        kind="values",
    )
    few, wanted = x[:_BY_HEART], y[:_BY_HEART]

    def off(module: nn.Module) -> Tensor:
        return functional.mse_loss(module(few), wanted)

    yield check_overfit(model, off, steps=_STEPS, learning_rate=_RATE)


def check_incumbent(ours: NDArray[np.float64], theirs: NDArray[np.float64], horizon: int, *, seed: int) -> Finding:
    """Squared errors of held-out windows [m] against those of what serves now on the same windows: not fine where
    worse beyond chance.
    """
    gain = mean_gain(_blocks(-ours, horizon), _blocks(-theirs, horizon), seed=seed)
    message = (
        f"Its mean squared error is {ours.mean():.4g}, that of what serves now {theirs.mean():.4g}; the gain "
        f"is {gain}: {gain.verdict}."
    )
    remedy = "Keep what serves now, or see what changed: other rows, another context, another model."
    return _finding("against_incumbent", "warn" if gain.high < 0 else "ok", gain.value, 0.0, message, remedy)


def check_forecasts(
    ours: NDArray[np.float64], naive: Mapping[str, NDArray[np.float64]], coverage: float, horizon: int, *, seed: int
) -> Iterator[Finding]:
    """The fifth rung: squared errors of held-out windows [m], in the order of time, against those of naive forecasts.

    Windows overlap, so `horizon` neighbours count as one.
    """
    for name, theirs in naive.items():
        gain = mean_gain(_blocks(-ours, horizon), _blocks(-theirs, horizon), seed=seed)
        status: Status = "ok" if gain.low > 0 else "fail" if gain.high < 0 else "warn"
        message = (
            f"Its mean squared error is {ours.mean():.4g}, that of {name} {theirs.mean():.4g}; the gain is {gain}."
        )
        remedy = (
            f"Do with {name}: look for columns without a pattern, a longer context, a shorter horizon, or more rows."
        )
        yield _finding(f"against_{name.replace(' ', '_')}", status, gain.value, 0.0, message, remedy)
    off = abs(coverage - _PROMISED)
    message = f"The 80 % intervals hold {coverage:.1%} of what came."
    remedy = "The series has changed since the rows that calibrate: train on later rows, and trust the width less."
    yield _finding("coverage", "warn" if off > _MOST_OFF else "ok", coverage, _PROMISED, message, remedy)


def _blocks(values: Floats, length: int) -> Floats:
    return np.array([part.mean() for part in np.array_split(values, max(len(values) // length, 1))])


def _finding(check: str, status: Status, value: float, threshold: float, message: str, remedy: str) -> Finding:
    return Finding("outcome", check, status, value, threshold, message, remedy if status != "ok" else "")
