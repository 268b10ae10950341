"""Linear layers for inference, multiplied in the way that is fastest on a CPU for so many rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Up to so many rows a thread oneDNN is faster in float32, and MKL beyond (docs/performance.md).
_FEW_ROWS = 64
# The second form of float32 weights is kept where all of them together are no larger: the 43 MB of MiniLM, not the 340 MB of BERT base.
_MOST_BYTES = 128 * 2**20


class Linear(nn.Linear):
    """x Wᵀ + b, and what follows it.

    Up to `few` rows oneDNN multiplies, by weights in the form that it works in and with what follows fused in; above, PyTorch's `linear`.
    `few` is 0 until `settle`.
    """

    few = 0
    _packed: Tensor | None = None

    def forward(self, rows: Tensor, *, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Rows [n, in] → [n, out], then GELU, or `plus` [n, out] added."""
        if len(rows) <= self.few:
            return self._by_onednn(rows, gelu, plus)
        result = functional.linear(rows, self.weight, self.bias)
        if gelu:
            return functional.gelu(result)
        return result if plus is None else result + plus

    def use_onednn(self, few: int) -> None:
        """Have oneDNN multiply up to `few` rows. Its form of the weights is that for 512 rows, which suits fewer as well."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 512)  # noqa: SLF001  # as torch's inductor calls it
        self.few = few

    def lay_out_for_mkl(self) -> None:
        """Keep the weights as [in, out], by which MKL multiplies faster than by [out, in]; shape and values stay."""
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t(), requires_grad=False)

    def _by_onednn(self, rows: Tensor, gelu: bool, plus: Tensor | None) -> Tensor:
        linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001  # as torch's inductor calls it
        if plus is not None:
            result: Tensor = linear.binary(rows, plus, self._packed, self.bias, "add")
        else:
            result = linear(rows, self._packed, self.bias, *(("gelu", [], "none") if gelu else ("none", [], "")))
        return result


def settle(layers: Sequence[Linear]) -> None:
    """Give a network's linear layers the forms that are fast on its CPU: once, when weights, dtype and device are final."""
    if any(layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32 for layer in layers):
        return
    for layer in layers:
        layer.lay_out_for_mkl()
    if has_onednn() and sum(layer.weight.nbytes for layer in layers) <= _MOST_BYTES:
        for layer in layers:
            layer.use_onednn(_FEW_ROWS * torch.get_num_threads())


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
