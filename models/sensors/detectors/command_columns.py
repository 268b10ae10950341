"""Switches among the columns: commands and states, which explain readings and are hardly faults themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def switch_scale(runs: Sequence[Tensor], whitened: Tensor, changed: Callable[[Tensor], Tensor]) -> Tensor:
    """What to divide whitened readings [n, k · d] of normal runs [n, d] by, [k · d]: 1 for measured columns.

    Switches are the columns of two values. One that is set once in a thousand readings has a standard deviation of
    0.03, so that each time it is 30 deviations off, and hides faults of measured columns. Divided by the largest value
    of training, or where training shows too few by what a change between its values gives, it counts one deviation.
    `changed` has that change, [k · d], by the columns' ranges [d]. Where all columns are switches, they are what is
    measured.
    """
    readings = torch.cat(list(runs))
    least, most = readings.amin(dim=0), readings.amax(dim=0)
    switches = ((readings == least) | (readings == most)).all(dim=0)
    switches &= ~switches.all()
    reach = whitened.abs().amax(dim=0).maximum(changed(most - least)).clamp(min=1.0)
    return torch.where(switches.repeat(whitened.shape[1] // len(switches)), reach, torch.ones_like(reach))
