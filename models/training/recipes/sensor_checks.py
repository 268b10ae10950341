"""Checks around the training of a sensor network, which they name; each ends the job where it fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.training.checks.gradient import GradientMonitor
from models.training.checks.loss import check_slope
from models.training.report import Finding, Report, with_subject

_SLOPE_STEPS = 100


def check_before_training(report: Report, network: str, findings: Iterable[Finding]) -> None:
    """Check the forward pass and the loss of a fresh network. Raises CheckFailed."""
    report.extend(with_subject(network, findings))
    report.raise_if_failed("forward")
    report.raise_if_failed("loss")


def check_after_training(
    report: Report, network: str, monitors: Iterable[GradientMonitor], losses: Sequence[float]
) -> None:
    """Check the gradients, and that the first losses fall. Raises CheckFailed."""
    for monitor in monitors:
        report.extend(with_subject(network, monitor.findings()))
        report.raise_if_failed("gradient")
    if losses:
        report.extend(with_subject(network, [check_slope(losses[:_SLOPE_STEPS])]))
        report.raise_if_failed("loss")
