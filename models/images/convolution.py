"""Convolutions for inference, with the activation in the same operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    number = float  # TorchScript's name for integers and floats


class Convolution(nn.Conv2d):
    """A convolution, padded as TensorFlow does (more on the right and below), and ReLU6 where it `activates`.

    oneDNN computes both in one operation, by weights in its own form, from `use_onednn` on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activates: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self.kernel, self.step, self.activates = kernel, stride, activates
        # With a stride of 1 the padding is even.
        self.around = (kernel - 1) // 2 if stride == 1 else 0
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, in, h, w] → [n, out, h / stride, w / stride]."""
        if self.step > 1:
            x = self._pad(x)
        packed = self._packed
        if packed is not None:
            return self._by_onednn(x, packed)
        out = functional.conv2d(x, self.weight, self.bias, self.step, self.around, 1, self.groups)
        return functional.relu6(out) if self.activates else out

    def use_onednn(self, height: int, width: int) -> None:
        """Have oneDNN convolve, by weights in the form for maps of this size; it converts them for others, slowly.

        Raises RuntimeError or AttributeError where oneDNN has no such convolution.
        """
        size = [1, self.in_channels, self._padded_side(height), self._padded_side(width)]
        self._packed = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001  # as torch's inductor calls it
            self.weight.detach(), [self.around] * 2, [self.step] * 2, [1, 1], self.groups, size
        )

    def _by_onednn(self, x: Tensor, packed: Tensor) -> Tensor:
        activation = "hardtanh" if self.activates else "none"
        bounds: list[number | None] = [0.0, 6.0]
        around, step = [self.around, self.around], [self.step, self.step]
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            x, packed, self.bias, around, step, [1, 1], self.groups, activation, bounds, ""
        )
        return result

    def _pad(self, x: Tensor) -> Tensor:
        height, width = self._missing(x.size(2)), self._missing(x.size(3))
        return functional.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])

    def _padded_side(self, size: int) -> int:
        return size + self._missing(size) if self.step > 1 else size

    def _missing(self, size: int) -> int:
        """How many values a side of that size lacks."""
        return max((size - 1) // self.step * self.step + self.kernel - size, 0)
