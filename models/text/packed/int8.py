"""int8 on a CPU: the linear layers of a packed network multiply 8-bit integers.

Everything between them stays float32, except attention of long blocks, which is bfloat16 where that is faster.

Weights have a scale for each output (symmetric, [-127, 127]). Inputs have one static scale, measured by running PROBES
in float32. Only the input of the second feed-forward product has a scale for each token, because its outliers are too
large for a static one. So a text's scales do not depend on its neighbours.

SmoothQuant (Xiao et al. 2022, https://arxiv.org/abs/2211.10438) first moves half of the inputs' outliers into the
weights. Each input channel is divided by a factor, and its weights are multiplied by it. The division costs nothing,
because it goes into the layer before: a layer norm, or the product that makes attention's values.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from models.runtime.int8_product import FbgemmProduct, OnednnProduct
from models.runtime.placement import has_amx
from models.runtime.product_autotune import autotune_products
from models.text.packed.attention import NO_SIZE, Attention
from models.text.packed.bert import PackedBert
from models.text.packed.linear import Linear
from models.text.packed.packed_batch import SHARED, PackedBatch

# Inputs are clipped beyond this multiple of the largest value that the probes gave.
_MARGIN = 1.2
# GELU is never below -0.17. Of 256 steps 15 are below zero and 240 above. At a range of 2.72 the lower steps reach
# -0.17 (2.72 · 15 / 240), so 2.72 is the least range that a token gets.
_ZERO_POINT, _POSITIVE_STEPS, _MIN_RANGE = 15, 240, 2.72
_SMALLEST = 1e-5
# FBGEMM multiplies up to 64 rows. OneDNN needs more time for a call, and less for a row (benchmarks/NOTES.md).
_FEW_ROWS, _ANY_ROWS = 64, 2**62
# Rows are float32. Without AMX, rounding shorter blocks for attention and turning the result back costs more than
# bfloat16 saves (benchmarks/NOTES.md).
_BFLOAT16_MIN_SIZE = 128


class Int8Product(nn.Module):
    """x Wᵀ + b: few rows by FBGEMM, many by the faster one of FBGEMM and oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._few_rows = _FEW_ROWS  # TorchScript reads no globals
        self._few = FbgemmProduct(weight, bias)
        self._many = OnednnProduct(weight, bias) if autotune_products().onednn_int8_wins else self._few

    def forward(self, rows: Tensor, scale: float, zero_point: int, activation: str = "none") -> Tensor:
        """Rows float32 [n, in], rounded to multiples of `scale` → [n, out], then "none" or "gelu"."""
        if len(rows) > self._few_rows:
            result: Tensor = self._many(rows, scale, zero_point, activation)
        else:
            result = self._few(rows, scale, zero_point, activation)
        return result


class Int8Linear(nn.Module):
    """x Wᵀ + b with inputs rounded to multiples of `input_scale`, then GELU or a residual.

    The residual's channels are multiplied by `residual_factors`, which undo the smoothing of what it comes from.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, input_scale: float, residual_factors: Tensor | None = None
    ) -> None:
        super().__init__()
        self._product = Int8Product(weight, bias)
        self._input_scale = input_scale
        self._residual_factors = torch.ones(()) if residual_factors is None else residual_factors

    def forward(
        self,
        rows: Tensor,
        activation: str = "none",
        residual: Tensor | None = None,
        threads: int = 1,  # as a Linear
    ) -> Tensor:
        """Rows float32 [n, in] → [n, out]."""
        result: Tensor = self._product(rows, self._input_scale, 128, activation)
        return result if residual is None else result.addcmul_(residual, self._residual_factors)


class Int8AfterGelu(nn.Module):
    """Int8Linear for GELU's output, with a scale for each token. Overwrites `rows`."""

    def __init__(self, weight: Tensor, bias: Tensor, residual_factors: Tensor) -> None:
        super().__init__()
        self._product = Int8Product(weight, None)
        self._bias, self._residual_factors = bias, residual_factors
        # TorchScript reads no globals.
        self._zero_point, self._input_scale, self._min_range = _ZERO_POINT, 1 / _POSITIVE_STEPS, _MIN_RANGE

    def forward(
        self,
        rows: Tensor,
        activation: str,
        residual: Tensor,
        threads: int = 1,  # as a Linear
    ) -> Tensor:
        """Rows float32 [n, in] → [n, out]."""
        ranges = rows.amax(1, keepdim=True).clamp_(min=self._min_range)
        rows.div_(ranges)
        result: Tensor = self._product(rows, self._input_scale, self._zero_point)
        return torch.addcmul(self._bias, result, ranges).addcmul_(residual, self._residual_factors)


@torch.inference_mode()
def quantize(network: PackedBert, probes: PackedBatch) -> None:
    """Replace a float32 network's linear layers; it cannot be trained or moved afterwards."""
    network.eval().requires_grad_(False)
    maxima = _input_maxima(network, probes)
    input_norm = network.norm
    tuned = autotune_products()
    if tuned.onednn_int8_wins:
        network.onednn_rows = range(_FEW_ROWS + 1, _ANY_ROWS)
    bfloat16_min_size = _bfloat16_min_size()
    for layer in network.layers:
        _quantize_layer(layer, input_norm, maxima)
        cast(Attention, layer.attention).bfloat16_min_size = bfloat16_min_size
        input_norm = cast(nn.LayerNorm, layer.norm)


def _bfloat16_min_size() -> int:
    """The least size of blocks whose attention is bfloat16."""
    if not autotune_products().prefers_bfloat16:
        return NO_SIZE
    return SHARED if has_amx() else _BFLOAT16_MIN_SIZE


def _quantize_layer(layer: nn.Module, input_norm: nn.LayerNorm, maxima: dict[nn.Module, Tensor]) -> None:
    """Quantize one layer, which reads the output of `input_norm`."""
    qkv, out, up, down = (cast(Linear, getattr(layer, name)) for name in ("qkv", "out", "up_proj", "down_proj"))
    qkv_factors, out_factors, up_factors = (_smoothing_factors(maxima[one], one.weight) for one in (qkv, out, up))
    _divide_norm(input_norm, qkv_factors)
    _divide_norm(cast(nn.LayerNorm, layer.attention_norm), up_factors)
    weight, bias = qkv.weight * qkv_factors, qkv.bias.clone()
    weight[-len(out_factors) :] /= out_factors[:, None]  # attention's values come last
    bias[-len(out_factors) :] /= out_factors
    layer.qkv = Int8Linear(weight, bias, _input_scale(maxima[qkv] / qkv_factors))
    layer.out = Int8Linear(out.weight * out_factors, out.bias, _input_scale(maxima[out] / out_factors), qkv_factors)
    layer.up_proj = Int8Linear(up.weight * up_factors, up.bias, _input_scale(maxima[up] / up_factors))
    layer.down_proj = Int8AfterGelu(down.weight, down.bias.detach(), up_factors)


def _input_maxima(network: PackedBert, probes: PackedBatch) -> dict[nn.Module, Tensor]:
    """For each linear layer the largest magnitude of each input channel, float32 [in]."""
    maxima: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, inputs: Any) -> None:
        maxima[module] = inputs[0].abs().amax(0)

    hooks = [module.register_forward_pre_hook(record) for module in network.modules() if isinstance(module, Linear)]
    network(probes)
    for hook in hooks:
        hook.remove()
    return maxima


def _smoothing_factors(maxima: Tensor, weight: Tensor) -> Tensor:
    """The divisor of each input channel: SmoothQuant's formula, exponent ½, mean 1."""
    factors = (maxima.clamp(min=_SMALLEST) / weight.abs().amax(0).clamp(min=_SMALLEST)).sqrt()
    return factors / factors.mean()


def _divide_norm(norm: nn.LayerNorm, factors: Tensor) -> None:
    norm.weight.div_(factors)
    norm.bias.div_(factors)


def _input_scale(maxima: Tensor) -> float:
    return max(float(maxima.max()) * _MARGIN, _SMALLEST) / 127
