"""Linear layers for inference, multiplied by the library that is fastest on this CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.huge_pages import move_to_huge_pages
from models.runtime.product_race import pack_for_onednn, race_products

# Up to this many rows a thread, oneDNN is faster than MKL in float32 without AVX-512 (benchmarks/NOTES.md).
_ONEDNN_ROWS_PER_THREAD = 64
# Float32 weights are kept in both forms up to this size of a network: MiniLM's are 43 MB, BERT base's 340 MB.
_MAX_DUPLICATED_BYTES = 128 * 2**20
_ANY_ROWS = 2**62
# GELU is oneDNN's, too. Its small pieces of code lie scattered among the tensors and keep the memory between them from
# being used again (100 MB after some hundred batches). So it gets this many rows at a time.
_GELU_ROWS = 32


class Linear(nn.Linear):
    """x Wᵀ + b, then an activation or a residual.

    oneDNN multiplies up to `onednn_max_rows` rows, by weights in its own form and with the activation fused in;
    PyTorch's `linear` multiplies more. `onednn_max_rows` is 0 until `prepare_for_cpu`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.onednn_max_rows = 0
        self.gelu_rows = _GELU_ROWS  # TorchScript reads no globals
        self._packed: Tensor | None = None

    def forward(self, rows: Tensor, activation: str = "none", residual: Tensor | None = None) -> Tensor:
        """Rows [n, in] → [n, out], then the activation ("none" or "gelu") and the residual."""
        packed = self._packed
        if packed is not None and len(rows) <= self.onednn_max_rows:
            algorithm = "none" if activation == "gelu" else ""
            result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, self.bias, activation, [], algorithm)  # noqa: SLF001  # as torch's inductor calls it
        else:
            result = functional.linear(rows, self.weight, self.bias)
            if activation == "gelu":
                for part in torch.split(result, self.gelu_rows):
                    torch.ops.aten.gelu_(part)
        return result if residual is None else result + residual

    def use_onednn(self, max_rows: int = _ANY_ROWS) -> None:
        """Have oneDNN multiply up to `max_rows` rows.

        For any number of rows, drop PyTorch's form of the weights.
        """
        self._packed = pack_for_onednn(self.weight.detach())
        self.onednn_max_rows = max_rows
        if max_rows == _ANY_ROWS:
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def lay_out_for_mkl(self) -> None:
        """Store the weights as [in, out], which MKL multiplies faster; shape and values stay."""
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t(), requires_grad=False)

    def memory(self) -> list[tuple[int, int]]:
        """Address and bytes of each form of the weights."""
        areas = [(self.weight.data_ptr(), self.weight.nbytes)]
        if self._packed is not None:
            areas.append((torch.ops.mkldnn.data_ptr(self._packed), torch.ops.mkldnn._nbytes(self._packed)))  # noqa: SLF001
        return areas


def prepare_for_cpu(layers: Sequence[Linear]) -> int:
    """Give a network's linear layers the forms that are fast on this CPU.

    Call it once, when weights, dtype and device are final. Returns the most rows that oneDNN multiplies, 0 for none.
    """
    if any(layer.weight.device.type != "cpu" for layer in layers):
        return 0
    if has_onednn() and all(_onednn_is_best(layer.weight.dtype) for layer in layers):
        for layer in layers:
            layer.use_onednn()
    elif all(layer.weight.dtype == torch.float32 for layer in layers):
        for layer in layers:
            layer.lay_out_for_mkl()
        wins_few = has_onednn() and race_products().onednn_wins_few
        if wins_few and sum(layer.weight.nbytes for layer in layers) <= _MAX_DUPLICATED_BYTES:
            for layer in layers:
                layer.use_onednn(_ONEDNN_ROWS_PER_THREAD * torch.get_num_threads())
    move_to_huge_pages(area for layer in layers for area in layer.memory())
    return max((layer.onednn_max_rows for layer in layers), default=0)


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _onednn_is_best(dtype: torch.dtype) -> bool:
    """Whether oneDNN is faster than PyTorch's `linear` for any number of rows.

    A race says so for float32. In bfloat16 it is wherever it multiplies that at all.
    """
    race = race_products()
    return race.onednn_wins if dtype == torch.float32 else race.bfloat16_gain > 0 and dtype == torch.bfloat16
