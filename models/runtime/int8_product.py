"""Products of 8-bit integers: rows float32 in, float32 out, by the library that is fastest on this CPU.

Weights have a scale for each output (symmetric, [-127, 127]). They are packed once.
"""

# PyTorch's types lack `set_` with a tensor, and TorchScript cannot read a comment for mypy in a function.
# mypy: disable-error-code="call-overload"

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.runtime.fbgemm import fbgemm

_SMALLEST = 1e-5


class FbgemmProduct(nn.Module):
    """x Wᵀ + b by FBGEMM, which rounds the rows itself."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rounded, scales = round_weights(weight)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with fbgemm():
            tensor = torch._make_per_channel_quantized_tensor(rounded, scales, zeros, 0)  # noqa: SLF001
            self._packed = torch.ops.quantized.linear_prepack(tensor, bias)

    def forward(self, rows: Tensor, scale: float, zero_point: int, activation: str = "none") -> Tensor:
        """Rows float32 [n, in], rounded to multiples of `scale` → [n, out], then "none" or "gelu"."""
        result: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, scale, zero_point, self._packed
        )
        return torch.ops.aten.gelu_(result) if activation == "gelu" else result


class OnednnProduct(nn.Module):
    """x Wᵀ + b by oneDNN, with the activation fused in.

    On two threads it takes 0.6 to 0.9 of FBGEMM's time, which rounds all rows in each thread where it shares out the
    columns (benchmarks/NOTES.md). It uses AMX, too. Without VNNI both saturate alike; oneDNN then packs the weights at
    each call, gains 3 % for 480 rows at most, and is not autotuned.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rounded, self._scales = round_weights(weight)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = None if bias is None else bias.detach()
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, [512, weight.shape[1]])

    def forward(self, rows: Tensor, scale: float, zero_point: int, activation: str = "none") -> Tensor:
        """Rows float32 [n, in], rounded to multiples of `scale` → [n, out], then "none" or "gelu"."""
        quantized = torch.quantize_per_tensor(rows, scale, zero_point, torch.quint8)
        # The same bytes as uint8. `int_repr` copies them, which takes six times as long as the rounding, and
        # TorchScript has no `view` of another dtype.
        integers = torch.empty([0], dtype=torch.uint8)
        integers.set_(quantized, 0, quantized.size(), quantized.stride())
        algorithm = "none" if activation == "gelu" else ""
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            integers,
            scale,
            zero_point,
            self._packed,
            self._scales,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.float32,
            activation,
            [],
            algorithm,
        )
        return result


def round_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, in] as int8, and the scale of each output, float32 [out]."""
    scales = weight.abs().amax(1).clamp(min=_SMALLEST) / 127
    return (weight / scales[:, None]).round().to(torch.int8).contiguous(), scales
