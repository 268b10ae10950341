"""The fifth rung for a detector of numbers or texts: does it keep its promise on readings or texts that it has not
seen?
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.sensors.drift import DriftMonitor
from models.training.data.table import Doubles
from models.training.report import Finding

_ALPHAS = (0.05, 0.01)
_ERRORS = 2.0
_OF_NUMBERS = (
    "Train on normal rows of more days or states, nearer in time to what will be scored; leave out columns that wander."
)
_OF_TEXTS = "Train on more normal texts, of every kind that will be scored; take out what is no normal text."


def check_promise(normal: Doubles, stride: int, calibrated_on: int) -> Iterator[Finding]:
    """Judge p-values [n] of held-out normal rows, in the order of time; `stride` rows make one independent row.

    The false-alarm rate may be off by two standard errors, of these rows and of those that the p-values rest on.
    """
    yield from _rates(normal, stride, calibrated_on, _OF_NUMBERS)
    yield _drift(normal, stride)


def check_texts_promise(normal: NDArray[np.float64], calibrated_on: int) -> Iterator[Finding]:
    """The same for p-values [n] of held-out normal texts, which have no order."""
    found = list(_rates(normal, 1, calibrated_on, _OF_TEXTS))
    yield from found
    if not found:
        message = (
            f"{calibrated_on} normal texts calibrate: too few for any alarm at alpha {_ALPHAS[0]}, or no "
            f"normal text is held out."
        )
        yield _finding(
            f"false_alarm_rate_{_ALPHAS[0]}", False, float(calibrated_on), 1 / _ALPHAS[0] - 1, message, _OF_TEXTS
        )


def _rates(normal: NDArray[np.float64], stride: int, calibrated_on: int, remedy: str) -> Iterator[Finding]:
    independent = max(len(normal) / stride, 1.0)
    # Of 2m / (1 + stride) blocks m / stride are independent (`BlockedCalibration`).
    known = calibrated_on * (1 + stride) / (2 * stride)
    for alpha in _ALPHAS:
        if len(normal) and calibrated_on + 1 >= 1 / alpha:
            rate = float((normal <= alpha).mean())
            chance = _ERRORS * float(np.sqrt(alpha * (1 - alpha) * (1 / independent + 1 / known)))
            yield _promise(alpha, rate, chance, remedy)


def _promise(alpha: float, rate: float, chance: float, remedy: str) -> Finding:
    allowed = f"{max(alpha - chance, 0.0):.2%} to {alpha + chance:.2%}"
    message = f"Of the held-out normal rows {rate:.2%} are alarms at alpha {alpha}; chance allows {allowed}."
    return _finding(f"false_alarm_rate_{alpha}", abs(rate - alpha) <= chance, rate, alpha, message, remedy)


def _drift(normal: NDArray[np.float64], stride: int) -> Finding:
    verdict = DriftMonitor(stride).update(normal)
    told = "no longer look" if verdict.detected else "look"
    message = f"The p-values of the held-out normal rows {told} like those of the rows that calibrated."
    remedy = (
        "The machine has changed since: train on later rows, or take the adaptive detector for a series that "
        "goes on changing."
    )
    return _finding("drift", not verdict.detected, float(verdict.detected), 0.0, message, remedy)


def _finding(check: str, fine: bool, value: float, threshold: float, message: str, remedy: str) -> Finding:
    return Finding("outcome", check, "ok" if fine else "warn", value, threshold, message, "" if fine else remedy)
