"""Drift detection: a test whether recent p-values are smaller than uniform ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Drift

Doubles = NDArray[np.float64]

_MOVED_SHARE = 0.01
_KEPT_SHARE = 1 - _MOVED_SHARE
_DRIFT_P_VALUE = 1e-4
_MAX_CAPITAL = 1e6


@dataclass(slots=True)
class DriftMonitor:
    """The Simple Jumper, a betting martingale (Vovk et al., 2021), against p-values that are too small.

    Its capital is in two bets (small p-values, no bet), and 1 % moves between them at each step (Retrain or not
    retrain). While p-values are independent, and uniform or larger, the capital does not grow in expectation. It
    restarts from 1 whenever it falls below (a CUSUM over e-values: Shin, Ramdas, Rinaldo 2023), so that the distant
    past does not count. It is held below 10⁶, so that a drift that is over is forgotten. `p_value` is 1 / capital.
    Drift is detected from a capital of 10,000 on, which such p-values take 10,000 bets or more on average to reach.

    Larger p-values keep the promise of `alpha`: the calibration allows for stretches that differ, and most do not.

    Neighbouring readings resemble each other, so it bets on every `stride`-th p-value only.
    """

    stride: int = 1
    capital: tuple[float, float] = (1 / 2, 1 / 2)
    until_next: int = 0

    def update(self, p_values: Doubles) -> Drift:
        """Bet on p-values [n], in the order of time, and return the verdict after them."""
        small, none = self.capital
        # One call of a function for each bet would take as long as the bet.
        for p_value in p_values[self.until_next :: self.stride].tolist():
            moved = _MOVED_SHARE * (small + none) / 2
            small = (_KEPT_SHARE * small + moved) * (1.5 - p_value)
            none = _KEPT_SHARE * none + moved
            total = small + none
            if not 1 <= total <= _MAX_CAPITAL:
                bounded = 1 / total if total < 1 else _MAX_CAPITAL / total
                small, none = small * bounded, none * bounded
        self.capital = small, none
        self.until_next = (self.until_next - len(p_values)) % self.stride
        return self.verdict()

    def verdict(self) -> Drift:
        """The verdict by the current capital."""
        p_value = min(1.0, 1.0 / sum(self.capital))
        return Drift(p_value <= _DRIFT_P_VALUE, p_value)

    def to_array(self) -> Doubles:
        """Its state, float64 [4]; the third was a bet on large p-values in earlier states."""
        return np.array([*self.capital, 0.0, float(self.until_next)])

    @classmethod
    def from_array(cls, memory: Doubles, stride: int) -> DriftMonitor:
        """From the result of `to_array`. Raises ValueError for anything else."""
        if memory.shape != (4,) or not np.isfinite(memory).all() or bool((memory < 0).any()) or memory[:2].sum() <= 0:
            raise ValueError(f"drift: expected 4 finite numbers that are not negative, got {memory.tolist()}")
        small, none, _, until_next = memory.tolist()
        return cls(stride, (small, none), int(until_next) % stride)
