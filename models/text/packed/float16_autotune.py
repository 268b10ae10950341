"""For how many rows weights rounded to float16 pay, measured on a network's own layers.

Few rows take as long as it takes to read the weights, and in float16 they are half as large. FBGEMM multiplies such
weights in float32, so only they are rounded.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from models.runtime.autotune_cache import autotune_cache
from models.runtime.timing import one_thread, time_in_turn

log = logging.getLogger(__name__)

# Numbers of rows that are tried, the largest first. Where few gain, more may: FBGEMM's products are about as fast as
# others, and two batches at once read half as much.
_FEW, _MORE = (32, 24, 16, 8), (256, 128, 64)
# A smaller gain is not worth the rounding. Where few rows are rounded anyway, more rows need not gain as much.
_MIN_GAIN, _MIN_GAIN_OF_MORE = 1.05, 1.0
# More rows are tried on the first layers alone, up to this number of weights: they compute long and read little.
_SAMPLED_WEIGHTS = 2**21
# Each number of rows is timed for 0.03 s, or for four turns.
_SECONDS = 0.03


class Product(Protocol):
    """A linear layer that has its weights in float32 and in float16."""

    in_features: int
    out_features: int
    float16_max_rows: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [n, in] → [n, out], up to `float16_max_rows` of them by the weights in float16."""
        ...


@dataclass(frozen=True, slots=True)
class Float16Autotune:
    """The most rows for which weights in float16 are faster, 0 for none."""

    max_rows: Annotated[int, Field(ge=0, le=_MORE[0])]


def autotune_float16(layers: Sequence[Product]) -> int:
    """The most rows that these layers multiply faster by weights in float16, 0 for none: kept, or measured.

    The size of the network is part of the result's name, since weights that fit into a cache are read faster. Where
    autotuning fails, the weights stay in float32.
    """
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    name = f"float16 weights of {weights >> 18} MB for up to {_MORE[0]} rows"
    try:
        tuned = autotune_cache.recall(name, Float16Autotune, partial(_run, layers))
    except (MemoryError, RuntimeError) as error:
        log.warning("%s could not be autotuned, so they stay in float32: %s", name, error)
        return 0
    log.info("%s: %d rows are multiplied faster than by float32", name, tuned.max_rows)
    return tuned.max_rows


def _run(layers: Sequence[Product]) -> Float16Autotune:
    with one_thread(), torch.inference_mode():
        few = next((rows for rows in _FEW if _gain(layers, rows) >= _MIN_GAIN), 0)
        more = _MORE if few == _FEW[0] else ()
        sample = _sample(layers)
        return Float16Autotune(next((rows for rows in more if _gain(sample, rows) >= _MIN_GAIN_OF_MORE), few))


def _sample(layers: Sequence[Product]) -> Sequence[Product]:
    """The first layers, until they have _SAMPLED_WEIGHTS."""
    weights = accumulate(layer.in_features * layer.out_features for layer in layers)
    return layers[: bisect_left(list(weights), _SAMPLED_WEIGHTS) + 1]


def _gain(layers: Sequence[Product], rows: int) -> float:
    """How many times as fast the layers multiply `rows` rows by weights in float16."""
    inputs = {width: torch.randn(rows, width) for width in {layer.in_features for layer in layers}}

    def multiply(float16_max_rows: int) -> None:
        for layer in layers:
            layer.float16_max_rows = float16_max_rows
            layer(inputs[layer.in_features])

    seconds = time_in_turn({limit: partial(multiply, limit) for limit in (0, rows)}, _SECONDS)
    return seconds[0] / seconds[rows]
