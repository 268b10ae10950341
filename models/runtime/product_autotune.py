"""Which way of multiplying is fastest here, measured once on a machine.

The processor's features say what it can multiply, not how fast: with `avx512_bf16` and no AMX, float32 is faster than
bfloat16 on some processors and slower on others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.runtime.autotune_cache import autotune_cache
from models.runtime.int8_product import FbgemmProduct, OnednnProduct
from models.runtime.malloc import keep_freed_memory, return_freed_memory
from models.runtime.timing import one_thread, time_in_turn

log = logging.getLogger(__name__)

Way = Literal["bfloat16", "onednn", "mkl", "int8", "onednn_int8"]
_WAYS: tuple[Way, ...] = get_args(Way)
# A result of another name was kept by an older version.
_NAME = f"products of a layer: {', '.join(_WAYS)}"
_Product = Callable[[Tensor], Tensor]
# Inputs and outputs of the products of a layer of MiniLM.
_SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384))
# Rows of one short text, and of a batch.
_FEW, _MANY = 16, 256
# Bfloat16 rounds, and measurements vary by some per cent; a smaller gain is worth neither.
MIN_BFLOAT16_GAIN = 1.15
# int8 rounds more and is never chosen by itself. From this gain on it is pointed out.
_MIN_INT8_GAIN = 1.3
# Other work on the machine changes a time by some per cent. Where oneDNN and MKL are closer, the one that usually leads
# is taken: MKL with AVX2 alone, oneDNN with AVX-512.
_ONEDNN_MAY_TAKE = {"AVX2": 1 / 1.05, "AVX512": 1.05}
# Seconds for few rows and for many. In shorter times, two ways that are 10 % apart change places once in ten.
_FEW_SECONDS, _MANY_SECONDS = 0.06, 0.3


@dataclass(frozen=True, slots=True)
class ProductTimes:
    """The least seconds of a layer's products, of few rows and of many; infinite where one cannot be computed here."""

    few: Annotated[float, Field(gt=0)]
    many: Annotated[float, Field(gt=0)]

    def gain_over(self, other: ProductTimes) -> float:
        """How many times as fast as `other` this is, as a geometric mean of few and many rows."""
        if math.isinf(self.many):
            return 0.0
        return math.sqrt(other.few * other.many / (self.few * self.many))

    def __str__(self) -> str:
        return "none" if math.isinf(self.many) else f"{self.few * 1e3:.2f} and {self.many * 1e3:.2f} ms"


_NEVER = ProductTimes(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class ProductAutotune:
    """Times of oneDNN in bfloat16, of oneDNN and MKL in float32, and of FBGEMM and oneDNN in int8."""

    bfloat16: ProductTimes
    onednn: ProductTimes
    mkl: ProductTimes
    int8: ProductTimes = _NEVER
    onednn_int8: ProductTimes = _NEVER

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
    def preferred(self) -> Literal["bfloat16", "float32"]:
        """The dtype that is chosen where none is asked for."""
        return "bfloat16" if self.prefers_bfloat16 else "float32"

    @property
    def int8_gain(self) -> float:
        """How many times as fast int8 multiplies many rows as the preferred dtype does; 0 where it cannot be had.

        Few rows gain more, but float32 may multiply them by weights in float16, which is not measured here.
        """
        fastest = self.onednn_int8 if self.onednn_int8_wins else self.int8
        other = self.bfloat16 if self.prefers_bfloat16 else self.float32
        return 0.0 if math.isinf(fastest.many) else other.many / fastest.many

    @property
    def recommends_int8(self) -> bool:
        """Whether int8 is so much faster that it is worth a try."""
        return self.int8_gain >= _MIN_INT8_GAIN

    @property
    def onednn_wins(self) -> bool:
        """Whether oneDNN multiplies many rows in float32 faster than MKL."""
        return self.onednn.many < self.mkl.many * _ONEDNN_MAY_TAKE.get(torch.backends.cpu.get_cpu_capability(), 1.0)

    @property
    def onednn_wins_few(self) -> bool:
        """Whether oneDNN multiplies few rows in float32 faster than MKL."""
        return self.onednn.few < self.mkl.few

    @property
    def onednn_int8_wins(self) -> bool:
        """Whether oneDNN multiplies many rows in int8 faster than FBGEMM."""
        return self.onednn_int8.many < self.int8.many

    def __str__(self) -> str:
        float32 = f"float32 by oneDNN {self.onednn}, by MKL {self.mkl}"
        int8 = f"int8 by FBGEMM {self.int8}, by oneDNN {self.onednn_int8}"
        ways = f"bfloat16 {self.bfloat16}, {float32}, {int8}"
        return f"a layer of MiniLM takes, for {_FEW} and {_MANY} rows: {ways}"


@cache
def autotune_products() -> ProductAutotune:
    """The times of this machine: kept, or measured in some 0.5 s.

    A way that PyTorch refuses here has infinite times. All ways have them where autotuning fails: PyTorch's own float32
    product is then used for everything.
    """
    try:
        tuned = autotune_cache.recall(_NAME, ProductAutotune, _run)
    except (MemoryError, RuntimeError) as error:
        log.warning("products could not be autotuned, so PyTorch multiplies in float32: %s", error)
        return ProductAutotune(_NEVER, _NEVER, _NEVER)
    log.info("products: %s", tuned)
    return tuned


def _run() -> ProductAutotune:
    keep_freed_memory()  # as when a model is served; else the system's work for new pages is timed, too
    with one_thread(), torch.inference_mode():
        ways = _prepare()
        few, many = _time(ways, _FEW, _FEW_SECONDS), _time(ways, _MANY, _MANY_SECONDS)
    del ways
    return_freed_memory()
    times = {way: ProductTimes(few[way], many[way]) for way in few}
    return ProductAutotune(**dict.fromkeys(_WAYS, _NEVER) | times)


def pack_for_onednn(weight: Tensor) -> Tensor:
    """OneDNN's form of a weight [out, in]: the one for 512 rows, which suits fewer as well.

    Raises RuntimeError or AttributeError where oneDNN has no such product.
    """
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 512)  # noqa: SLF001  # as torch's inductor calls it
    return packed


def _prepare() -> dict[Way, list[_Product]]:
    """The ways that this PyTorch can go on this processor, each with a layer's products: rows [n, in] → [n, out]."""
    # Stored as [in, out], as MKL likes it.
    layer = [(torch.randn(inputs, outputs).t(), torch.randn(outputs)) for inputs, outputs in _SHAPES]
    makers: dict[Way, Callable[[Tensor, Tensor], _Product]] = {
        "bfloat16": lambda weight, bias: _by_onednn(weight.bfloat16(), bias.bfloat16()),
        "onednn": _by_onednn,
        "int8": lambda weight, bias: _in_int8(FbgemmProduct(weight, bias)),
        "onednn_int8": lambda weight, bias: _in_int8(_exact_onednn(weight, bias)),
    }
    ways: dict[Way, list[_Product]] = {"mkl": [partial(functional.linear, weight=w, bias=b) for w, b in layer]}
    for way, make in makers.items():
        try:
            products = [make(weight, bias) for weight, bias in layer]
            _multiply(products, _rows_of(way, _FEW))
            ways[way] = products
        except (RuntimeError, AttributeError) as error:  # this processor or this build has no such product
            log.info("products are autotuned without %s: %s", way, str(error).partition("\n")[0])
    return ways


def _by_onednn(weight: Tensor, bias: Tensor) -> _Product:
    """A product by oneDNN's form of a weight. Raises RuntimeError or AttributeError."""
    packed = pack_for_onednn(weight)
    return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")  # noqa: SLF001  # as torch's inductor calls it


def _in_int8(product: FbgemmProduct | OnednnProduct) -> _Product:
    return lambda rows: product(rows, 0.05, 128)


def _exact_onednn(weight: Tensor, bias: Tensor) -> OnednnProduct:
    """A product by oneDNN. Raises RuntimeError where its sums of 16 bits overflow, as without VNNI."""
    count, rows, weights = 64, 255, 127
    largest = OnednnProduct(torch.full((1, count), float(weights)), None)(torch.full((1, count), float(rows)), 1.0, 0)
    if largest.item() != count * rows * weights:
        raise RuntimeError("oneDNN's sums of 8-bit products overflow on this processor")
    return OnednnProduct(weight, bias)


def _rows_of(way: Way, count: int) -> list[Tensor]:
    """What each product of a layer multiplies."""
    dtype = torch.bfloat16 if way == "bfloat16" else torch.float32
    return [torch.randn(count, inputs, dtype=dtype) for inputs, _ in _SHAPES]


def _multiply(products: list[_Product], rows: list[Tensor]) -> None:
    for product, own in zip(products, rows, strict=True):
        product(own)


def _time(ways: dict[Way, list[_Product]], count: int, seconds: float) -> dict[Way, float]:
    """The least seconds of each way for `count` rows."""
    return time_in_turn(
        {way: partial(_multiply, products, _rows_of(way, count)) for way, products in ways.items()}, seconds
    )
