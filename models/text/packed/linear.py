"""Linear layers for inference, multiplied in the way that is fastest on a CPU for so many rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.placement import bfloat16_feature, cpu_feature

# Up to so many rows a thread oneDNN is faster in float32 without AVX-512, and MKL beyond (docs/performance.md).
_FEW_ROWS = 64
# Where both are wanted, the second form of float32 weights is kept only where all of them together are no larger: the
# 43 MB of MiniLM, not the 340 MB of BERT base.
_MOST_BYTES = 128 * 2**20
_ANY_NUMBER = 2**62
# oneDNN compiles code for each number of rows that it multiplies (and of threads), and keeps it: some 2 MB and 3 ms or
# more for a network. So there are only 8 numbers from each power of two to the next, and of the smallest each second
# one.
_SIZES = 8
_LEAST_STEP = 2
# GELU is oneDNN's, too. Its code is small but lies scattered among the tensors, and the memory between could not be
# used again (100 MB after some hundred batches): so it is given so many rows at a time.
_PART = 32


class Linear(nn.Linear):
    """x Wᵀ + b, and what follows it.

    Up to `onednn_max_rows` rows oneDNN multiplies, by weights in the form that it works in and with what follows
    fused in; above, PyTorch's `linear`. `onednn_max_rows` is 0 until `prepare_for_cpu`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.onednn_max_rows = 0
        self.part = _PART  # TorchScript reads no globals
        self._packed: Tensor | None = None

    def forward(self, rows: Tensor, follow: str = "none", plus: Tensor | None = None) -> Tensor:
        """Rows [n, in] → [n, out], then GELU where `follow` is "gelu", then `plus` [n, out] added."""
        packed = self._packed
        if packed is not None and len(rows) <= self.onednn_max_rows:
            algorithm = "none" if follow == "gelu" else ""
            result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, self.bias, follow, [], algorithm)  # noqa: SLF001  # as torch's inductor calls it
        else:
            result = functional.linear(rows, self.weight, self.bias)
            if follow == "gelu":
                for part in torch.split(result, self.part):
                    torch.ops.aten.gelu_(part)
        return result if plus is None else result + plus

    def use_onednn(self, onednn_max_rows: int = _ANY_NUMBER) -> None:
        """Have oneDNN multiply up to `onednn_max_rows` rows. Its form of the weights is that for 512 rows, which
        suits fewer as well.

        Where it is to multiply any number, PyTorch's own form of the weights is let go.
        """
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 512)  # noqa: SLF001  # as torch's inductor calls it
        self.onednn_max_rows = onednn_max_rows
        if onednn_max_rows == _ANY_NUMBER:
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def lay_out_for_mkl(self) -> None:
        """Keep the weights as [in, out], by which MKL multiplies faster than by [out, in]; shape and values stay."""
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t(), requires_grad=False)


def pad_rows(rows: int, onednn_max_rows: int) -> int:
    """How many rows to make of `rows` for layers in which oneDNN multiplies up to `onednn_max_rows`."""
    step = max(_LEAST_STEP, (1 << (rows - 1).bit_length()) // (2 * _SIZES))
    size = -(-rows // step) * step
    return size if size <= onednn_max_rows else rows


def prepare_for_cpu(layers: Sequence[Linear]) -> int:
    """Give a network's linear layers the forms that are fast on its CPU: once, when weights, dtype and device are
    final.

    Returns up to how many rows oneDNN multiplies: 0 where it does not.
    """
    if any(layer.weight.device.type != "cpu" for layer in layers):
        return 0
    if has_onednn() and all(_onednn_is_best(layer.weight.dtype) for layer in layers):
        for layer in layers:
            layer.use_onednn()
    elif all(layer.weight.dtype == torch.float32 for layer in layers):
        for layer in layers:
            layer.lay_out_for_mkl()
        if has_onednn() and sum(layer.weight.nbytes for layer in layers) <= _MOST_BYTES:
            for layer in layers:
                layer.use_onednn(_FEW_ROWS * torch.get_num_threads())
    return max((layer.onednn_max_rows for layer in layers), default=0)


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _onednn_is_best(dtype: torch.dtype) -> bool:
    """Whether oneDNN is faster than PyTorch's `linear` for any number of rows: in bfloat16 where the processor
    multiplies it, and in float32 with AVX-512, which MKL does not use on every processor that has it."""
    if dtype == torch.bfloat16:
        return bfloat16_feature() is not None
    return dtype == torch.float32 and cpu_feature("avx512_f") is not None
