"""Loss and gradient checks on the first batch and the first steps of a tuning run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.training.checks.gradient import WATCHED_STEPS, GradientMonitor
from models.training.checks.loss import MIN_SLOPE_LOSSES, check_loss, check_slope
from models.training.report import Report, with_subject

_SLOPE_STEPS = 40
# The report has checks of the frozen encoder and its head, too.
_TUNED = "encoder in training"


class TrainingChecks:
    """Adds findings to a report and raises CheckFailed; does nothing without a report.

    `fresh`: nothing in the module has been made from the training rows.
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, report: Report | None, total: int, *, fresh: bool
    ) -> None:
        self._module, self._report, self._fresh = module, report, fresh
        steps = min(WATCHED_STEPS, total)
        self._monitor = GradientMonitor(module, optimizer, steps=steps) if report is not None else None
        self._slope_steps = min(_SLOPE_STEPS, total)
        self._losses: list[float] = []
        self._resumed = False

    def begin(self, first: int) -> None:
        """Note the last step of earlier attempts.

        A resumed run has no first loss, which tiny_loss and slope need.
        """
        self._resumed = first > 0

    def before_step(self, loss: Callable[[], Tensor]) -> None:
        """Check the loss before the first step."""
        if self._report is not None and not self._losses:
            fresh = self._fresh and not self._resumed
            self._report.extend(with_subject(_TUNED, check_loss(loss, self._module.named_parameters(), fresh=fresh)))
            self._report.raise_if_failed("loss")

    def before_update(self) -> None:
        """Record the gradients."""
        if self._monitor is not None:
            self._monitor.before()

    def after_step(self, loss: float) -> None:
        """Record the changed weights and the loss; check them once enough steps are seen."""
        if self._report is None or self._monitor is None:
            return
        watching = self._monitor.active
        self._monitor.after()
        if watching and not self._monitor.active:
            self._report.extend(with_subject(_TUNED, self._monitor.findings()))
            self._report.raise_if_failed("gradient")
        self._losses.append(loss)
        if not self._resumed and len(self._losses) == self._slope_steps >= MIN_SLOPE_LOSSES:
            self._report.extend(with_subject(_TUNED, [check_slope(self._losses)]))
            self._report.raise_if_failed("loss")
