"""Forward and loss checks of a sensor detector's network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sensors.detectors.factory import build
from models.sensors.detectors.network import NetworkDetector
from models.sensors.model import Readings, SensorKind
from models.sensors.scaling import RobustScale
from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss, check_overfit
from models.training.report import Finding
from models.training.sensors.fit_forecaster import LEAST_ERROR

_ROWS, _OVERFIT_ROWS = 64, 8
_STEPS, _LEARNING_RATE = 300, 5e-3


def check_network(kind: SensorKind, name: str, runs: Sequence[Readings], *, seed: int) -> Iterator[Finding]:
    """Check a detector's fresh network on examples from runs [n, d], spread over time.

    Raises TypeError for a detector without a network.
    """
    detector = build(kind, name, runs[0].shape[1], seed=seed)
    if not isinstance(detector, NetworkDetector):
        raise TypeError(f"detector {name!r} has no network")
    yield from check_examples(detector, _examples(detector, runs))


def check_examples(detector: NetworkDetector, batch: Tensor) -> Iterator[Finding]:
    """Check a fresh network on examples float32 [n, …]; the detector stays as it is."""
    network = detector.network
    inputs, targets = detector.inputs(batch), detector.targets(batch)
    width = targets[0].numel()
    yield from check_forward(lambda: network(inputs).flatten(1), rows=len(batch), width=width, module=network)

    def loss() -> Tensor:
        return detector.loss(batch)

    def overfit_loss(module: nn.Module) -> Tensor:
        return functional.mse_loss(module(inputs[:_OVERFIT_ROWS]), targets[:_OVERFIT_ROWS])

    outputs = network(inputs).detach()
    yield from check_loss(loss, network.named_parameters(), outputs=outputs, targets=targets, kind="values")
    yield check_overfit(network, overfit_loss, steps=_STEPS, learning_rate=_LEARNING_RATE, least=LEAST_ERROR)


def _examples(detector: NetworkDetector, runs: Sequence[Readings]) -> Tensor:
    """Scaled examples, evenly spread over the longest run."""
    longest = torch.from_numpy(np.ascontiguousarray(max(runs, key=len)))
    examples = detector.examples(RobustScale(detector.columns).fit(longest)(longest))
    return examples[torch.linspace(0, len(examples) - 1, min(_ROWS, len(examples))).round().long()].contiguous()
