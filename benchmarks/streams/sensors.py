"""What a sensor reads of the expectation: with noise, counted, or skewed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from benchmarks.nab_scorer import Floats

Random = np.random.Generator
Sensor = Callable[[Floats, Random], Floats]


def noisy(sigma: float, memory: float = 0.0, quantum: float = 0.0, least: float = -np.inf, tail: float = 0.0) -> Sensor:
    """Noise of `sigma` with a lag-one correlation, Student's where `tail` degrees are given, rounded and clipped."""

    def observe(x: Floats, chance: Random) -> Floats:
        shock = chance.standard_t(tail, len(x)) if tail else chance.normal(size=len(x))
        noise = autoregressive(shock * np.sqrt(1 - memory**2), memory)
        return _rounded(np.maximum(x + sigma * noise, least), quantum)

    return observe


def counted(dispersion: float) -> Sensor:
    """Counts: a negative binomial of variance mean + mean^2 / dispersion."""

    def observe(x: Floats, chance: Random) -> Floats:
        mean = np.maximum(x, 1e-3)
        return chance.poisson(mean * chance.gamma(dispersion, 1 / dispersion, len(x))).astype(float)

    return observe


def skewed(sigma: float, zeros: float, memory: float = 0.0) -> Sensor:
    """Lognormal readings about the expectation with a lag-one correlation, a share of them 0."""

    def observe(x: Floats, chance: Random) -> Floats:
        noise = autoregressive(chance.normal(size=len(x)) * np.sqrt(1 - memory**2), memory)
        read = np.maximum(x, 0) * np.exp(sigma * noise - sigma**2 / 2)
        return np.where(chance.random(len(x)) < zeros, 0.0, read)

    return observe


def autoregressive(shock: Floats, memory: float) -> Floats:
    """Noise in which each reading remembers a share of the one before."""
    return np.asarray(lfilter([1.0], [1.0, -memory], shock))


def _rounded(x: Floats, quantum: float) -> Floats:
    return np.asarray(np.round(x / quantum) * quantum) if quantum else x
