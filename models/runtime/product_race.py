"""Which way of multiplying is fastest here, measured once on a machine.

The processor's features say what it can multiply, not how fast: with `avx512_bf16` and no AMX, float32 is faster than
bfloat16 on some processors and slower on others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.runtime.kept_races import kept_races

log = logging.getLogger(__name__)

Way = Literal["bfloat16", "onednn", "mkl"]
# The first layer of a feed-forward network in MiniLM: inputs and outputs.
_SHAPE = (384, 1536)
# Rows of one short text, and of a batch.
_FEW, _MANY = 16, 256
# Bfloat16 rounds, and a race on a busy machine varies by some per cent; a smaller gain is worth neither.
MIN_BFLOAT16_GAIN = 1.15
# A way is timed at least so often, and all of them together for about so many seconds.
_MIN_ROUNDS, _SECONDS = 5, 0.06


@dataclass(frozen=True, slots=True)
class ProductTimes:
    """The least seconds of one product, of few rows and of many; infinite where it cannot be computed here."""

    few: Annotated[float, Field(gt=0)]
    many: Annotated[float, Field(gt=0)]

    def gain_over(self, other: ProductTimes) -> float:
        """How many times as fast as `other` this is, as a geometric mean of few and many rows."""
        if math.isinf(self.many):
            return 0.0
        return math.sqrt(other.few * other.many / (self.few * self.many))

    def __str__(self) -> str:
        return "none" if math.isinf(self.many) else f"{self.few * 1e6:.0f} and {self.many * 1e6:.0f} µs"


_NEVER = ProductTimes(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class ProductRace:
    """Times of oneDNN in bfloat16, and of oneDNN and MKL in float32."""

    bfloat16: ProductTimes
    onednn: ProductTimes
    mkl: ProductTimes

    @property
    def float32(self) -> ProductTimes:
        """The best of float32 for few and for many rows; a network may use both."""
        return ProductTimes(min(self.onednn.few, self.mkl.few), min(self.onednn.many, self.mkl.many))

    @property
    def bfloat16_gain(self) -> float:
        """How many times as fast as float32 bfloat16 is; 0 where oneDNN cannot multiply it."""
        return self.bfloat16.gain_over(self.float32)

    @property
    def prefers_bfloat16(self) -> bool:
        """Whether bfloat16 is so much faster than float32 that its rounding is worth it."""
        return self.bfloat16_gain >= MIN_BFLOAT16_GAIN

    @property
    def onednn_wins(self) -> bool:
        """Whether oneDNN multiplies many rows in float32 faster than MKL."""
        return self.onednn.many < self.mkl.many

    @property
    def onednn_wins_few(self) -> bool:
        """Whether oneDNN multiplies few rows in float32 faster than MKL."""
        return self.onednn.few < self.mkl.few

    def __str__(self) -> str:
        ways = f"bfloat16 {self.bfloat16}, float32 by oneDNN {self.onednn}, by MKL {self.mkl}"
        return f"{_FEW} and {_MANY} rows of {_SHAPE[0]} by {_SHAPE[1]} take {ways}"


@cache
def race_products() -> ProductRace:
    """The times of this machine: kept, or measured in some 0.2 s.

    A way that PyTorch refuses here has infinite times. All ways have them where the race fails: PyTorch's own float32
    product is then used for everything.
    """
    try:
        race = kept_races.recall("products", ProductRace, _run)
    except (MemoryError, RuntimeError) as error:
        log.warning("the race of products failed, so PyTorch multiplies in float32: %s", error)
        return ProductRace(_NEVER, _NEVER, _NEVER)
    log.info("products: %s", race)
    return race


def _run() -> ProductRace:
    """Race the ways in turn.

    One thread races, because on a busy machine several wait for each other, which hides the difference.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            ways = _prepare()
            few, many = _time(ways, _FEW), _time(ways, _MANY)
    finally:
        torch.set_num_threads(threads)
    times: dict[Way, ProductTimes] = {way: ProductTimes(few[way], many[way]) for way in few}
    return ProductRace(times.get("bfloat16", _NEVER), times.get("onednn", _NEVER), times["mkl"])


def pack_for_onednn(weight: Tensor) -> Tensor:
    """OneDNN's form of a weight [out, in]: the one for 512 rows, which suits fewer as well.

    Raises RuntimeError or AttributeError where oneDNN has no such product.
    """
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 512)  # noqa: SLF001  # as torch's inductor calls it
    return packed


def _prepare() -> dict[Way, Callable[[Tensor], Tensor]]:
    """The ways that this PyTorch can go on this processor: rows [n, in] → [n, out]."""
    inputs, outputs = _SHAPE
    weight, bias = torch.randn(inputs, outputs).t(), torch.randn(outputs)  # stored as [in, out], as MKL likes it
    ways: dict[Way, Callable[[Tensor], Tensor]] = {"mkl": lambda rows: functional.linear(rows, weight, bias)}
    dtypes: dict[Way, torch.dtype] = {"bfloat16": torch.bfloat16, "onednn": torch.float32}
    for way, dtype in dtypes.items():
        try:
            ways[way] = _multiply_by_onednn(weight.to(dtype), bias.to(dtype))
        except (RuntimeError, AttributeError) as error:  # this processor or this build has no such product
            log.info("%s takes no part in the race of products: %s", way, str(error).partition("\n")[0])
    return ways


def _multiply_by_onednn(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """A product by oneDNN's form of a weight, tried once. Raises RuntimeError or AttributeError."""
    packed = pack_for_onednn(weight)

    def multiply(rows: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")  # noqa: SLF001  # as torch's inductor calls it
        return result

    multiply(torch.zeros(_FEW, weight.shape[1], dtype=weight.dtype))
    return multiply


def _time(ways: Mapping[Way, Callable[[Tensor], Tensor]], count: int) -> dict[Way, float]:
    """The least seconds of each way for `count` rows; they take turns, so that a busy moment strikes all of them."""
    rows = torch.randn(count, _SHAPE[0])
    inputs = {way: rows.bfloat16() if way == "bfloat16" else rows for way in ways}
    least = dict.fromkeys(ways, math.inf)
    ends, rounds = time.perf_counter() + _SECONDS, 0
    while rounds < _MIN_ROUNDS or time.perf_counter() < ends:
        rounds += 1
        for way, multiply in ways.items():
            began = time.perf_counter()
            multiply(inputs[way])
            least[way] = min(least[way], time.perf_counter() - began)
    return least
