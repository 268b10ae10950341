"""The debug ladder: data, forward, loss, gradient, outcome, in this order; the first rung that fails is where to look.

Each rung has a module of its own; here are the names that recipes use.
"""

from __future__ import annotations

from models.training.report import RUNGS, Finding, Report
from models.training.rung_data import check_data
from models.training.rung_forward import check_forward
from models.training.rung_gradient import GradientWatch, check_gradient
from models.training.rung_loss import check_loss, check_loss_inputs, check_overfit, check_slope
from models.training.rung_outcome import check_base, check_calibration, check_frozen, check_gain, check_outcome, check_rank

__all__ = [
    "RUNGS",
    "Finding",
    "GradientWatch",
    "Report",
    "check_base",
    "check_calibration",
    "check_data",
    "check_forward",
    "check_frozen",
    "check_gain",
    "check_gradient",
    "check_loss",
    "check_loss_inputs",
    "check_outcome",
    "check_overfit",
    "check_rank",
    "check_slope",
]
