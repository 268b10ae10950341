"""Switches among the columns: commands and states, which explain readings and are hardly faults themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def switch_scale(runs: Sequence[Tensor], whitened: Tensor, changed: Tensor) -> Tensor:
    """What to divide whitened readings [n, k · d] of normal runs [n, d] by, [k · d]: 1 for measured columns.

    Switches are the columns of two values. One that is set once in a thousand readings has a standard deviation of
    0.03, so that each time it is 30 deviations off, and hides faults of measured columns. Divided by the largest value
    of training, or by `changed` [k · d], what a change between its values gives where training shows too few, it
    counts one deviation. Where all columns are switches, they are what is measured.
    """
    readings = torch.cat(list(runs))
    switches = ((readings == readings.amin(dim=0)) | (readings == readings.amax(dim=0))).all(dim=0)
    switches &= ~switches.all()
    reach = whitened.abs().amax(dim=0).maximum(changed).clamp(min=1.0)
    return torch.where(switches.repeat(whitened.shape[1] // len(switches)), reach, torch.ones_like(reach))


def value_ranges(runs: Sequence[Tensor]) -> Tensor:
    """The distance of each column's largest value from its least, [d]."""
    readings = torch.cat(list(runs))
    return readings.amax(dim=0) - readings.amin(dim=0)
