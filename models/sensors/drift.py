"""Does the detector still fit? Whether p-values of recent readings are uniform, as those of normal readings are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.base import Drift

Doubles = NDArray[np.float64]

_MOVES = 0.01
_DETECTED = 1e-4
_RICHEST = 1e6


@dataclass(slots=True)
class DriftMonitor:
    """The Simple Jumper (Vovk et al.: Retrain or not retrain, 2021), a gambler who bets that p-values are not uniform.

    He holds three bets (small p-values, no bet, large ones) and moves 1 % of his capital between them at each; while
    the p-values are uniform and independent, nothing makes his capital grow. It starts again from 1 whenever it
    falls below (a CUSUM over e-values: Shin, Ramdas, Rinaldo 2023), so that what happened long ago does not count,
    and is held below 10⁶, so that he forgets a drift that is over. `p_value` is 1 / capital; drift is detected from
    a capital of 10,000 on: on uniform p-values that takes 10,000 bets on average, or more.

    Neighbouring readings resemble each other, so only every `stride`-th p-value is bet on.
    """

    stride: int = 1
    capital: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    until_next: int = 0

    def update(self, p_values: Doubles) -> Drift:
        """Bet on p-values [n], in the order of time; what is known after them."""
        capital = self.capital
        for p_value in p_values[self.until_next :: self.stride].tolist():
            capital = _bet(capital, p_value)
        self.capital = capital
        self.until_next = (self.until_next - len(p_values)) % self.stride
        return self.verdict()

    def verdict(self) -> Drift:
        """What is known now."""
        p_value = min(1.0, 1.0 / sum(self.capital))
        return Drift(p_value <= _DETECTED, p_value)

    def to_array(self) -> Doubles:
        """Its memory, float64 [4]."""
        return np.array([*self.capital, float(self.until_next)])

    @classmethod
    def from_array(cls, memory: Doubles, stride: int) -> DriftMonitor:
        """From what `to_array` gave. Raises ValueError for anything else."""
        if memory.shape != (4,) or not np.isfinite(memory).all() or bool((memory < 0).any()) or memory[:3].sum() <= 0:
            raise ValueError(f"drift: expected 4 finite numbers that are not negative, got {memory.tolist()}")
        small, none, large, until_next = memory.tolist()
        return cls(stride, (small, none, large), int(until_next) % stride)


def _bet(capital: tuple[float, float, float], p_value: float) -> tuple[float, float, float]:
    small, none, large = capital
    moved, edge = _MOVES * (small + none + large) / 3, p_value - 0.5
    small = ((1 - _MOVES) * small + moved) * (1 - edge)
    none = (1 - _MOVES) * none + moved
    large = ((1 - _MOVES) * large + moved) * (1 + edge)
    total = small + none + large
    bounded = 1 / total if total < 1 else min(1.0, _RICHEST / total)
    return small * bounded, none * bounded, large * bounded
