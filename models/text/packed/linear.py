"""Linear layers for inference, multiplied by the library that is fastest on this CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.runtime.fbgemm import fbgemm, has_fbgemm
from models.runtime.huge_pages import move_to_huge_pages
from models.runtime.product_autotune import autotune_products, pack_for_onednn
from models.text.packed.float16_autotune import autotune_float16

# Up to this many rows a thread, oneDNN is faster than MKL in float32 without AVX-512 (benchmarks/NOTES.md).
_ONEDNN_ROWS_PER_THREAD = 64
# Float32 weights are kept in both forms up to this size of a network: MiniLM's are 43 MB, BERT base's 340 MB.
_MAX_DUPLICATED_BYTES = 128 * 2**20
_ANY_ROWS = 2**31
# GELU is oneDNN's, too. Its small pieces of code lie scattered among the tensors and keep the memory between them from
# being used again (100 MB after some hundred batches). So it gets the first number of rows at a time, and the second
# number of those that are left at the end.
_GELU_ROWS = 128, 32


class Linear(nn.Linear):
    """x Wᵀ + b, then an activation or a residual.

    FBGEMM multiplies up to `float16_max_rows` rows, by weights rounded to float16. OneDNN multiplies up to
    `onednn_rows_per_thread` rows for each thread of the pass, by weights in its own form and with the activation fused
    in. PyTorch's `linear` multiplies more. Both numbers are 0 until `prepare_for_cpu`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.float16_max_rows = self.onednn_rows_per_thread = 0
        self.by_mkl = False
        self.gelu_rows = _GELU_ROWS  # TorchScript reads no globals
        self._packed: Tensor | None = None
        self._rounded: Any = None  # a ScriptObject

    def forward(
        self, rows: Tensor, activation: str = "none", residual: Tensor | None = None, threads: int = 1
    ) -> Tensor:
        """Rows [n, in] → [n, out], then the activation ("none" or "gelu") and the residual.

        `threads` are those of the calling thread, which TorchScript cannot ask for.
        """
        packed, rounded = self._packed, self._rounded
        by_float16 = len(rows) <= self.float16_max_rows
        by_onednn = len(rows) <= threads * self.onednn_rows_per_thread
        if packed is not None and by_onednn and not by_float16:
            algorithm = "none" if activation == "gelu" else ""
            result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, self.bias, activation, [], algorithm)  # noqa: SLF001  # as torch's inductor calls it
        else:
            if rounded is not None and by_float16:
                result = torch.ops.quantized.linear_dynamic_fp16(rows, rounded)
            elif residual is not None and self.by_mkl:
                return (residual + self.bias).addmm_(rows, self.weight.t())  # `linear` copies the bias to add to it
            else:
                result = functional.linear(rows, self.weight, self.bias)
            if activation == "gelu":
                self._gelu_in_place(result)
        return result if residual is None else result + residual

    def _gelu_in_place(self, rows: Tensor) -> None:
        many, few = self.gelu_rows
        begin, count = 0, len(rows)
        while begin < count:
            end = begin + (many if count - begin >= many else few)
            torch.ops.aten.gelu_(rows[begin:end])
            begin = end

    @property
    def rounded(self) -> bool:
        """Whether it has its weights in float16, too."""
        return self._rounded is not None

    def round_to_float16(self) -> None:
        """Give FBGEMM the weights in float16, for up to `float16_max_rows` rows."""
        with fbgemm():
            self._rounded = torch.ops.quantized.linear_prepack_fp16(self.weight.detach(), self.bias.detach())

    def forget_float16(self) -> None:
        """Let go of the weights in float16."""
        self._rounded, self.float16_max_rows = None, 0

    def use_onednn(self, max_rows: int = _ANY_ROWS) -> None:
        """Have oneDNN multiply up to `max_rows` rows a thread.

        For any number of rows, drop PyTorch's form of the weights.
        """
        self._packed = pack_for_onednn(self.weight.detach())
        self.onednn_rows_per_thread = max_rows
        if max_rows == _ANY_ROWS:
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def lay_out_for_mkl(self) -> None:
        """Store the weights as [in, out], which MKL multiplies faster; shape and values stay."""
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t(), requires_grad=False)
        self.by_mkl = True

    def memory(self) -> list[tuple[int, int]]:
        """Address and bytes of each form of the weights."""
        areas = [(self.weight.data_ptr(), self.weight.nbytes)]
        if self._packed is not None:
            areas.append((torch.ops.mkldnn.data_ptr(self._packed), torch.ops.mkldnn._nbytes(self._packed)))  # noqa: SLF001
        return areas


def prepare_for_cpu(layers: Sequence[Linear], *, may_round: bool = False) -> range:
    """Give a network's linear layers the forms that are fast on this CPU.

    Where they `may_round`, few rows are multiplied by weights in float16, if that is faster. Call it once, when
    weights, dtype and device are final. Returns the numbers of rows that oneDNN multiplies.
    """
    if not layers or any(layer.weight.device.type != "cpu" for layer in layers):
        return range(0)
    if may_round and _can_round(layers):  # before the weights are dropped
        for layer in layers:
            layer.round_to_float16()
    _lay_out(layers)
    move_to_huge_pages(area for layer in layers for area in layer.memory())
    if layers[0].rounded:
        _autotune_float16(layers)
    if _onednn_takes_few(layers):
        for layer in layers:
            layer.use_onednn(_ONEDNN_ROWS_PER_THREAD)
        move_to_huge_pages(layer.memory()[-1] for layer in layers)
    return range(layers[0].float16_max_rows + 1, layers[0].onednn_rows_per_thread + 1)


def _lay_out(layers: Sequence[Linear]) -> None:
    """Give the layers the form that autotuning of products chose for many rows."""
    by_onednn = has_onednn() and all(_onednn_is_best(layer.weight.dtype) for layer in layers)
    for layer in layers:
        if by_onednn:
            layer.use_onednn()
        elif layer.weight.dtype == torch.float32:
            layer.lay_out_for_mkl()


def _onednn_takes_few(layers: Sequence[Linear]) -> bool:
    """Whether oneDNN is to multiply few rows, where MKL multiplies many and the weights may be held in both forms."""
    if layers[0].onednn_rows_per_thread or any(layer.weight.dtype != torch.float32 for layer in layers):
        return False
    if layers[0].float16_max_rows >= _ONEDNN_ROWS_PER_THREAD:  # FBGEMM multiplies these
        return False
    small = sum(layer.weight.nbytes for layer in layers) <= _MAX_DUPLICATED_BYTES
    return small and has_onednn() and autotune_products().onednn_wins_few


def _autotune_float16(layers: Sequence[Linear]) -> None:
    """Let few rows be multiplied by the weights in float16 where that is faster, else forget these."""
    max_rows = autotune_float16(layers)
    for layer in layers:
        if max_rows:
            layer.float16_max_rows = max_rows
        else:
            layer.forget_float16()


def _can_round(layers: Sequence[Linear]) -> bool:
    """Whether float16 holds the weights, FBGEMM multiplies them, and they are not too large to be held twice."""
    weights = [layer.weight for layer in layers]
    return (
        has_fbgemm()
        and all(weight.dtype == torch.float32 for weight in weights)
        and sum(weight.nbytes for weight in weights) <= 2 * _MAX_DUPLICATED_BYTES
        and all(float(weight.abs().max()) <= torch.finfo(torch.float16).max for weight in weights)  # not NaN either
    )


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _onednn_is_best(dtype: torch.dtype) -> bool:
    """Whether oneDNN is faster than PyTorch's `linear` for any number of rows.

    Autotuning says so for float32. In bfloat16 it is wherever it multiplies that at all.
    """
    tuned = autotune_products()
    return tuned.onednn_wins if dtype == torch.float32 else tuned.bfloat16_gain > 0 and dtype == torch.bfloat16
