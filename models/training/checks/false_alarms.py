"""Outcome check of a detector's false-alarm rate on unseen readings or texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.sensors.drift import DriftMonitor
from models.sensors.model import Doubles
from models.training.checks.wording import warn_if
from models.training.report import Finding

_ALPHAS = (0.05, 0.01)
_STANDARD_ERRORS = 2.0
_MORE_READINGS = (
    "Train on normal rows of more days or states, closer in time to the rows that will be scored; leave out columns "
    "that wander."
)
_MORE_INPUTS = "Train on more normal {0} of every kind that will be scored; remove {0} that are not normal."
_LATER_ROWS = (
    "The machine has changed since then: train on later rows, or choose the adaptive detector for a series that keeps "
    "changing."
)
# Measured in benchmarks/NOTES.md, on plants that chose nothing.
_LATER_RATES = (
    "They cannot tell how the machine will change: at alpha 0.05, `ensemble` had 10% false alarms on simulated "
    "machines that changed after training, and 3.5% on others (docs/concepts/p-values.md)."
)


def check_false_alarms(normal: Doubles, stride: int, calibrated_on: int) -> Iterator[Finding]:
    """Judge p-values [n] of held-out normal readings in the order of time.

    `stride` rows count as one independent row. The false-alarm rate may be off by two standard errors of these rows
    and of the calibration rows.
    """
    yield from _check_rates(normal, stride, calibrated_on, _MORE_READINGS)
    yield _check_drift(normal, stride)


def check_input_false_alarms(
    normal: NDArray[np.float64], calibrated_on: int, inputs: Literal["texts", "images"] = "texts"
) -> Iterator[Finding]:
    """Judge p-values [n] of held-out normal texts or images, which have no order and so no drift."""
    remedy = _MORE_INPUTS.format(inputs)
    if not len(normal) or not _resolves(_ALPHAS[0], calibrated_on):
        message = (
            f"{calibrated_on} normal {inputs} calibrate: too few for any alarm at alpha {_ALPHAS[0]}, or none is held "
            "out."
        )
        needed, check = 1 / _ALPHAS[0] - 1, f"false_alarm_rate_{_ALPHAS[0]}"
        yield Finding.of("outcome", check, "warn", float(calibrated_on), needed, message, remedy)
    yield from _check_rates(normal, 1, calibrated_on, remedy)


def _resolves(alpha: float, calibrated_on: int) -> bool:
    """Whether the number of calibration rows allows a p-value as small as alpha."""
    return calibrated_on + 1 >= 1 / alpha


def _check_rates(normal: NDArray[np.float64], stride: int, calibrated_on: int, remedy: str) -> Iterator[Finding]:
    independent = max(len(normal) / stride, 1.0)
    # Of 2m / (1 + stride) calibration blocks, m / stride are independent (`BlockedCalibration`).
    calibrating = calibrated_on * (1 + stride) / (2 * stride)
    for alpha in _ALPHAS:
        if len(normal) and _resolves(alpha, calibrated_on):
            chance = _STANDARD_ERRORS * float(np.sqrt(alpha * (1 - alpha) * (1 / independent + 1 / calibrating)))
            yield _check_rate(alpha, int((normal <= alpha).sum()), len(normal), chance, remedy)


def _check_rate(alpha: float, alarms: int, rows: int, chance: float, remedy: str) -> Finding:
    rate = alarms / rows
    allowed = f"{max(alpha - chance, 0.0):.2%} to {alpha + chance:.2%}"
    message = (
        f"At alpha {alpha}, {alarms} of the {rows} held-out normal rows are alarms ({rate:.2%}); chance allows "
        f"{allowed}."
    )
    if chance > alpha and rate <= alpha + chance:  # any rate up to twice alpha would pass: that is no evidence
        message += " So wide a range is no evidence that alpha is kept."
        return Finding.of("outcome", f"false_alarm_rate_{alpha}", "skipped", rate, alpha, message)
    status = warn_if(abs(rate - alpha) > chance)
    remedy = (
        remedy if rate > alpha else f"Faults may be missed at this `alpha`, because its alarms are too few. {remedy}"
    )
    return Finding.of("outcome", f"false_alarm_rate_{alpha}", status, rate, alpha, message, remedy)


def _check_drift(normal: NDArray[np.float64], stride: int) -> Finding:
    detected = DriftMonitor(stride).update(normal).detected
    look = "no longer look" if detected else "look"
    message = f"The p-values of the held-out normal rows {look} like those of the calibration rows. {_LATER_RATES}"
    return Finding.of("outcome", "drift", warn_if(detected), float(detected), 0.0, message, _LATER_ROWS)
