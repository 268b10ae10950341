"""The second and third rung for a detector's network: does it answer sensibly, and can it learn a batch by heart?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sensors.base import Readings, SensorKind
from models.sensors.detectors.factory import build
from models.sensors.detectors.network import NetworkDetector
from models.sensors.scaling import RobustScale
from models.training.checks.forward import check_forward
from models.training.checks.loss import check_loss, check_overfit
from models.training.report import Finding

_ROWS = 64
_BY_HEART = 8
_STEPS, _RATE = 300, 5e-3


def check_network(kind: SensorKind, name: str, runs: Sequence[Readings], *, seed: int) -> Iterator[Finding]:
    """Rungs for the network `name`, fresh, on examples from runs [n, d] spread over time. Raises TypeError for one
    that is none.
    """
    detector = build(kind, name, runs[0].shape[1], seed=seed)
    if not isinstance(detector, NetworkDetector):
        raise TypeError(f"detector {name!r} is no network")
    yield from check_examples(detector, _examples(detector, runs))


def check_examples(detector: NetworkDetector, batch: Tensor) -> Iterator[Finding]:
    """Rungs for a fresh network on examples float32 [n, …]; the detector is left as it is."""
    network = detector.network
    given, wanted = detector.inputs(batch), detector.targets(batch)
    yield from check_forward(
        lambda: network(given).flatten(1), rows=len(batch), width=wanted[0].numel(), module=network
    )
    made = network(given)
    yield from check_loss(
        lambda: detector.loss(batch), network.named_parameters(), outputs=made.detach(), targets=wanted, kind="values"
    )

    def few(module: nn.Module) -> Tensor:
        return functional.mse_loss(module(given[:_BY_HEART]), wanted[:_BY_HEART])

    yield check_overfit(network, few, steps=_STEPS, learning_rate=_RATE)


def _examples(detector: NetworkDetector, runs: Sequence[Readings]) -> Tensor:
    """Scaled examples, evenly spread over the longest run."""
    longest = torch.from_numpy(np.ascontiguousarray(max(runs, key=len)))
    examples = detector.examples(RobustScale(detector.columns).fit(longest)(longest))
    return examples[torch.linspace(0, len(examples) - 1, min(_ROWS, len(examples))).round().long()].contiguous()
