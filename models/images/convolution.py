"""Convolutions for inference, with the activation in the same operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.device import threads_set_to, usual_thread_counts

if TYPE_CHECKING:
    number = float  # TorchScript's name for integers and floats

# Of oneDNN, beside its convolution; PyTorch's inductor uses them as well, and they are not public.
CONVOLUTION_OPERATORS = ("_reorder_convolution_weight", "_get_mkldnn_serialized_md")
# oneDNN's form of the weights is looked up for up to five images: a batch of 224 x 224 on a CPU.
_MOST_IMAGES = 5


class Convolution(nn.Conv2d):
    """A convolution, padded as TensorFlow does (more on the right and below), and ReLU6 where it `activates`.

    oneDNN computes both in one operation, by weights in its own forms, from `use_onednn` on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activates: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self.kernel, self.step, self.activates = kernel, stride, activates
        # With a stride of 1 the padding is even.
        self.around = (kernel - 1) // 2 if stride == 1 else 0
        self._by_onednn = False
        # Until `use_onednn`, the lists only show TorchScript their types. `_forms` has places in `_packed`.
        self._packed, self._forms = [torch.empty(0)], [[0]]

    def forward(self, x: Tensor, threads: int = 1) -> Tensor:
        """Maps [n, in, h, w] → [n, out, h / stride, w / stride], computed with `threads` threads."""
        if self.step > 1:
            x = self._pad(x)
        if self._by_onednn:
            return self._convolve_by_onednn(x, self._packed_for(threads, x.size(0)))
        out = functional.conv2d(x, self.weight, self.bias, self.step, self.around, 1, self.groups)
        return functional.relu6(out) if self.activates else out

    def use_onednn(self, height: int, width: int) -> None:
        """Have oneDNN convolve, by weights in the forms for maps of this size, by threads and images.

        It converts them at each call for another size, slowly. Raises RuntimeError or AttributeError where oneDNN has
        no such convolution.
        """
        packed: dict[bytes, Tensor] = {}
        self._forms = []
        for threads in usual_thread_counts() if self.kernel == 1 else (1,):  # the form of others is always the same
            most_images = _MOST_IMAGES if threads > 1 else 1
            forms = [self._pack(packed, [images, height, width], threads) for images in range(1, most_images + 1)]
            self._forms += [forms] * (threads - len(self._forms))
        self._packed, self._by_onednn = list(packed.values()), True

    def _pack(self, packed: dict[bytes, Tensor], shape: list[int], threads: int) -> int:
        """Add the weights for images of a shape, computed with `threads` threads; return their place."""
        images, height, width = shape
        size = [images, self.in_channels, self._padded_side(height), self._padded_side(width)]
        with threads_set_to(threads):
            weight = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001  # as torch's inductor calls it
                self.weight.detach(), [self.around] * 2, [self.step] * 2, [1, 1], self.groups, size
            )
        form = torch.ops.mkldnn._get_mkldnn_serialized_md(weight).numpy().tobytes()  # noqa: SLF001
        packed.setdefault(form, weight)
        return list(packed).index(form)

    def _packed_for(self, threads: int, images: int) -> Tensor:
        """The weights in the form for these numbers of threads and images."""
        forms = self._forms[min(threads, len(self._forms)) - 1]
        return self._packed[forms[min(images, len(forms)) - 1]]

    def _convolve_by_onednn(self, x: Tensor, packed: Tensor) -> Tensor:
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
