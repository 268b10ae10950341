"""Conformal p-values: the false-alarm rate of a detector is the alpha that a caller asks for."""

from __future__ import annotations

import torch
from torch import Tensor


def conformal_p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    """The share of calibration scores at least as strange as each score, itself counted.

    Float64 [n] in (0, 1]: p = (1 + #{c ≥ s}) / (1 + m) for m calibration scores [m]. On exchangeable normal data
    P(p ≤ alpha) ≤ alpha (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005).
    """
    _require_vector(calibration, "calibration")
    _require_vector(scores, "scores")
    ordered = calibration.sort().values
    below = torch.searchsorted(ordered, scores.contiguous(), right=False)
    return (1.0 + len(ordered) - below.double()) / (1.0 + len(ordered))


def conformal_threshold(calibration: Tensor, alpha: float) -> float | None:
    """The score above which `conformal_p_values` is at most alpha.

    None when no score can be that strange: m calibration scores resolve p-values of 1/(m+1) and no finer.
    """
    _require_vector(calibration, "calibration")
    allowed = int(alpha * (len(calibration) + 1) + 1e-9) - 1
    if allowed < 0:
        return None
    ordered = calibration.sort(descending=True).values
    return float(ordered[allowed]) if allowed < len(ordered) else float("-inf")


def smallest_p_value(calibrated_on: int) -> float:
    """The smallest p-value that this number of calibration scores can give."""
    return 1.0 / (calibrated_on + 1)


def _require_vector(tensor: Tensor, name: str) -> None:
    """Refuse what broadcasting would silently turn into a matrix."""
    if tensor.ndim != 1:
        raise ValueError(f"{name}: expected shape [n], got {list(tensor.shape)}")
