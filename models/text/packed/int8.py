"""int8 on a CPU: the linear layers of a packed network multiply 8-bit integers, everything between them float32,
but for attention, which is bfloat16 where the processor multiplies that.

Weights have a scale for each output (symmetric, [-127, 127]). Inputs have one for all tokens, found by running
PROBES in float32; only the input of the second feed-forward product, whose outliers are too large for that, has one
for each token. So a text's scales do not depend on its neighbours. Before, SmoothQuant (Xiao et al. 2022,
https://arxiv.org/abs/2211.10438) moves half of the inputs' outliers into the
weights: each input channel is divided by a share and its weights are multiplied by it. The division costs nothing,
since it goes into what comes before: a layer norm, or the product that makes the values of attention.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.runtime.placement import INT8_ENGINE, bfloat16_feature
from models.text.packed.bert import Layout, PackedBert
from models.text.packed.linear import Linear

# How much larger than in the texts that scales are from an input may be before it is cut off.
_MARGIN = 1.2
# GELU's least value is -0.17. Of 256 steps 15 are below zero, so that an input of up to 240 / 15 times as much above is
# still symmetric enough to hold it: from 2.72 on, which is therefore the least range that a token gets.
_BELOW, _ABOVE, _LEAST_RANGE = 15, 240, 2.72
_SMALLEST = 1e-5


class Int8Linear(nn.Module):
    """x Wᵀ + b with inputs rounded to steps of `step`, then GELU, or `plus`, whose channels are multiplied by
    `shares`, added.
    """

    def __init__(self, weight: Tensor, bias: Tensor, step: float, shares: Tensor | None = None) -> None:
        super().__init__()
        self._packed = _pack(weight, bias)
        self._step = step
        self._shares = torch.ones(()) if shares is None else shares

    def forward(self, rows: Tensor, follow: str = "none", plus: Tensor | None = None) -> Tensor:
        """Rows float32 [n, in] → [n, out]."""
        result: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, self._step, 128, self._packed
        )
        if follow == "gelu":
            return torch.ops.aten.gelu_(result)  # type: ignore[no-any-return]
        return result if plus is None else result.addcmul_(plus, self._shares)


class Int8AfterGelu(nn.Module):
    """The same with a step for each token. `rows` is used up."""

    def __init__(self, weight: Tensor, bias: Tensor, shares: Tensor) -> None:
        super().__init__()
        self._packed = _pack(weight, None)
        self._bias, self._shares = bias, shares
        self._below, self._step, self._least = _BELOW, 1 / _ABOVE, _LEAST_RANGE  # TorchScript reads no globals

    def forward(self, rows: Tensor, follow: str, plus: Tensor) -> Tensor:
        """Rows float32 [n, in] → [n, out]."""
        ranges = rows.amax(1, keepdim=True).clamp_(min=self._least)
        rows.div_(ranges)
        result: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, self._step, self._below, self._packed
        )
        return torch.addcmul(self._bias, result, ranges).addcmul_(plus, self._shares)


@torch.inference_mode()
def quantise(network: PackedBert, probes: Layout) -> None:
    """Replace the linear layers of a float32 network on the CPU; it cannot be trained or moved afterwards."""
    network.eval().requires_grad_(False)
    largest = _largest_inputs(network, probes)
    before = network.norm
    halves = bfloat16_feature() is not None
    for layer in network.layers:
        _quantise(layer, before, largest)
        layer.halves = halves  # type: ignore[assignment]  # of a _Layer it is one
        before = cast(nn.LayerNorm, layer.norm)


def _quantise(layer: nn.Module, before: nn.LayerNorm, largest: dict[nn.Module, Tensor]) -> None:
    """One layer; `before` is the norm whose output it reads."""
    qkv, out, up_proj, down_proj = (
        cast(Linear, getattr(layer, name)) for name in ("qkv", "out", "up_proj", "down_proj")
    )
    norm = cast(nn.LayerNorm, layer.attention_norm)
    entering, mixed, widened = (_shares(largest[one], one.weight) for one in (qkv, out, up_proj))
    _divide(before, entering)
    _divide(norm, widened)
    weight, bias = qkv.weight * entering, qkv.bias.clone()
    weight[-len(mixed) :] /= mixed[:, None]  # the values of attention come last
    bias[-len(mixed) :] /= mixed
    layer.qkv = Int8Linear(weight, bias, _step(largest[qkv] / entering))
    layer.out = Int8Linear(out.weight * mixed, out.bias, _step(largest[out] / mixed), entering)
    layer.up_proj = Int8Linear(up_proj.weight * widened, up_proj.bias, _step(largest[up_proj] / widened))
    layer.down_proj = Int8AfterGelu(down_proj.weight, down_proj.bias.detach(), widened)


def _largest_inputs(network: PackedBert, probes: Layout) -> dict[nn.Module, Tensor]:
    """For each linear layer the largest magnitude of each input channel, float32 [in]."""
    seen: dict[nn.Module, Tensor] = {}

    def look(module: nn.Module, inputs: Any) -> None:
        seen[module] = inputs[0].abs().amax(0)

    hooks = [module.register_forward_pre_hook(look) for module in network.modules() if isinstance(module, Linear)]
    network(probes)
    for hook in hooks:
        hook.remove()
    return seen


def _shares(largest: Tensor, weight: Tensor) -> Tensor:
    """By how much each input channel is to be divided: SmoothQuant's formula with its exponent ½, around 1."""
    shares = (largest.clamp(min=_SMALLEST) / weight.abs().amax(0).clamp(min=_SMALLEST)).sqrt()
    return shares / shares.mean()


def _divide(norm: nn.LayerNorm, shares: Tensor) -> None:
    norm.weight.div_(shares)
    norm.bias.div_(shares)


def _step(largest: Tensor) -> float:
    return max(float(largest.max()) * _MARGIN, _SMALLEST) / 127


def _pack(weight: Tensor, bias: Tensor | None) -> Any:
    """FBGEMM's form of the weights [out, in], rounded."""
    steps = weight.abs().amax(1).clamp(min=_SMALLEST) / 127
    rounded = (weight / steps[:, None]).round().to(torch.int8)
    before = torch.backends.quantized.engine
    # These tensors are to leave PyTorch one day, which it says; there is no other way to FBGEMM yet.
    with warnings.catch_warnings(action="ignore"):
        torch.backends.quantized.engine = INT8_ENGINE
        try:
            zeros = torch.zeros(len(steps), dtype=torch.int64)
            tensor = torch._make_per_channel_quantized_tensor(rounded, steps, zeros, 0)  # noqa: SLF001
            return torch.ops.quantized.linear_prepack(tensor, bias)
        finally:
            torch.backends.quantized.engine = before
