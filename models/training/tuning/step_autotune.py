"""Whether training is faster with bfloat16 autocast, measured by steps of one encoder layer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from models.runtime.autotune_cache import autotune_cache
from models.runtime.placement import Placement
from models.runtime.product_autotune import MIN_BFLOAT16_GAIN
from models.runtime.timing import one_thread, time_in_turn

log = logging.getLogger(__name__)

# MiniLM's layer: width, heads and intermediate width.
_LAYER = (384, 12, 1536)
# A batch for it: texts and tokens of each. Autocast rounds the weights at each step, so a much smaller one gains less.
_BATCH = (8, 32)
_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class StepAutotune:
    """The least seconds of a training step with autocast, and without it."""

    bfloat16: Annotated[float, Field(gt=0)]
    float32: Annotated[float, Field(gt=0)]

    @property
    def bfloat16_gain(self) -> float:
        """How many times as fast as float32 autocast is."""
        return self.float32 / self.bfloat16


def choose_autocast(placement: Placement) -> tuple[bool, str]:
    """Whether to train with bfloat16 autocast, and why. On a CPU autotuning decides, unless a dtype was asked for."""
    half = placement.dtype == torch.bfloat16
    if placement.device.type != "cpu" or not placement.auto_dtype:
        return half, f"as the model computes in {placement.dtype_name}"
    try:
        gain = autotune_steps().bfloat16_gain
    except (MemoryError, RuntimeError) as error:
        log.warning("training steps could not be autotuned, so training is in float32: %s", error)
        return False, "training steps could not be autotuned"
    return gain >= MIN_BFLOAT16_GAIN, f"a training step in bfloat16 is {gain:.2f} times as fast as in float32 here"


def autotune_steps() -> StepAutotune:
    """The times of this machine: kept, or measured in some 0.5 s. Raises MemoryError or RuntimeError."""
    return autotune_cache.recall("training steps", StepAutotune, _run)


def _run() -> StepAutotune:
    width, heads, intermediate = _LAYER
    with one_thread():
        layer = nn.TransformerEncoderLayer(width, heads, intermediate, activation="gelu", batch_first=True)
        rows = torch.randn(*_BATCH, width)
        times = time_in_turn({half: partial(_step, layer, rows, half) for half in (True, False)}, _SECONDS)
    return StepAutotune(times[True], times[False])


def _step(layer: nn.Module, rows: Tensor, half: bool) -> None:
    """Compute a loss and its gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = layer(rows).float().square().mean()
    loss.backward()
