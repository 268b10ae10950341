"""Linear layers: whichever way multiplies, the result is the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.runtime.device import threads_set_to
from models.runtime.fbgemm import has_fbgemm
from models.runtime.product_autotune import ProductAutotune, ProductTimes
from models.text.packed import linear
from models.text.packed.architectures import BertShape
from models.text.packed.bert import PackedBert
from models.text.packed.linear import Linear, has_onednn, prepare_for_cpu
from models.text.packed.packed_batch import PackedBatch
from models.text.tokenization import Tokens

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="PyTorch has no oneDNN here")
needs_fbgemm = pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here")
FEW = 5


def layer(inputs: int = 24, outputs: int = 40) -> Linear:
    torch.manual_seed(0)
    return Linear(inputs, outputs).requires_grad_(False)


def expected(one: Linear, rows: Tensor, *, gelu: bool, plus: Tensor | None) -> Tensor:
    result = rows.double() @ one.weight.double().T + one.bias.double()
    if gelu:
        result = functional.gelu(result)
    return result if plus is None else result + plus


@needs_onednn
@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 70, 300])
@pytest.mark.parametrize(("gelu", "residual"), [(False, False), (True, False), (False, True)])
def test_few_rows_and_many_are_multiplied_alike(count: int, gelu: bool, residual: bool) -> None:
    one = layer()
    rows, plus = torch.randn(count, 24), torch.randn(count, 40) if residual else None
    right = expected(one, rows, gelu=gelu, plus=plus)
    one.lay_out_for_mkl()
    one.use_onednn(FEW)
    torch.testing.assert_close(one(rows, "gelu" if gelu else "none", plus).double(), right, atol=1e-5, rtol=1e-5)


@needs_fbgemm
@pytest.mark.parametrize("count", [1, FEW, FEW + 1])
@pytest.mark.parametrize(("gelu", "residual"), [(False, False), (True, False), (False, True)])
def test_few_rows_are_multiplied_by_rounded_weights(count: int, gelu: bool, residual: bool) -> None:
    one = layer()
    rows, plus = torch.randn(count, 24), torch.randn(count, 40) if residual else None
    right = expected(one, rows, gelu=gelu, plus=plus)
    one.round_to_float16()
    one.use_onednn()
    one.float16_max_rows = FEW
    got = one(rows, "gelu" if gelu else "none", plus).double()
    torch.testing.assert_close(got, right, atol=2e-3, rtol=1e-3)
    assert torch.allclose(got, right, atol=1e-6) is (count > FEW)


@needs_fbgemm
@pytest.mark.parametrize("max_rows", [0, 24])
def test_autotuning_decides_which_rows_meet_rounded_weights(max_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "autotune_float16", lambda _: max_rows)
    monkeypatch.setattr(linear, "autotune_products", lambda: timings(onednn=0.9))
    layers = [layer(), layer()]
    assert prepare_for_cpu(layers, may_round=True).start == max_rows + 1
    assert {(one.rounded, one.float16_max_rows) for one in layers} == {(max_rows > 0, max_rows)}


@needs_fbgemm
@pytest.mark.parametrize("why", ["not asked", "bfloat16", "beyond float16", "not a number", "too large"])
def test_weights_are_not_rounded(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "autotune_float16", lambda _: 24)
    layers = [layer(), layer()]
    if why == "bfloat16":
        layers[1].to(torch.bfloat16)
    elif why == "too large":
        monkeypatch.setattr(linear, "_MAX_DUPLICATED_BYTES", 24 * 40 * 4 - 1)
    elif why != "not asked":
        layers[1].weight[3, 3] = 65_520 if why == "beyond float16" else math.nan
    prepare_for_cpu(layers, may_round=why != "not asked")
    assert not any(one.rounded or one.float16_max_rows for one in layers)


@needs_onednn
def test_only_few_rows_take_onednns_form() -> None:
    one = layer()
    one.use_onednn(FEW)
    one.weight = torch.nn.Parameter(
        torch.zeros_like(one.weight), requires_grad=False
    )  # so that PyTorch's own form gives the bias alone
    for count, own in ((1, False), (FEW, False), (FEW + 1, True)):
        assert torch.equal(one(torch.randn(count, 24)), one.bias.expand(count, 40)) is own


@needs_onednn
def test_where_onednn_multiplies_all_the_other_form_is_let_go() -> None:
    one, rows = layer(), torch.randn(70, 24)
    right = expected(one, rows, gelu=False, plus=None)
    one.use_onednn()
    torch.testing.assert_close(one(rows).double(), right, atol=1e-5, rtol=1e-5)
    assert one.weight.numel() == 0


def timings(*, bfloat16: float = math.inf, onednn: float, mkl: float = 1.0) -> ProductAutotune:
    return ProductAutotune(*(ProductTimes(seconds, seconds) for seconds in (bfloat16, onednn, mkl)))


@needs_onednn
@pytest.mark.parametrize(
    ("tuned", "dtype", "all_rows"),
    [
        (timings(onednn=0.9), torch.float32, True),
        (timings(onednn=1.1), torch.float32, False),
        (timings(onednn=0.9), torch.bfloat16, False),
        (timings(onednn=0.9, bfloat16=0.5), torch.bfloat16, True),
    ],
)
def test_autotuning_decides_what_onednn_multiplies(
    tuned: ProductAutotune, dtype: torch.dtype, all_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "autotune_products", lambda: tuned)
    one, taken = layer().to(dtype), list[int | None]()

    def take(self: Linear, max_rows: int | None = None) -> None:
        taken.append(max_rows)
        self.onednn_rows_per_thread = 1

    monkeypatch.setattr(Linear, "use_onednn", take)
    prepare_for_cpu([one])
    assert (taken == [None]) is all_rows


@pytest.mark.parametrize("prepare", [lambda one: prepare_for_cpu([one]), Linear.lay_out_for_mkl])
def test_the_residual_is_left_as_it_was(prepare: Callable[[Linear], object]) -> None:
    one, rows = layer(24, 24), torch.randn(3, 24)
    before = rows.clone()
    prepare(one)
    one(rows, "none", rows)
    assert torch.equal(rows, before)


def test_the_layout_for_mkl_changes_neither_shape_nor_values() -> None:
    one = layer()
    before = one.weight.clone()
    one.lay_out_for_mkl()
    assert torch.equal(one.weight, before)
    assert one.weight.stride() == (1, 40)
    assert not one.weight.requires_grad


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which MKL wins for many rows."""
    never = ProductTimes(math.inf, math.inf)
    tuned = ProductAutotune(never, ProductTimes(0.9, 1.1), ProductTimes(1.0, 1.0))
    monkeypatch.setattr(linear, "autotune_products", lambda: tuned)


@needs_onednn
@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(("count", "by_onednn"), [(1, False), (2, True), (3, True)])
def test_more_threads_of_a_pass_make_more_rows_few(count: int, by_onednn: bool) -> None:
    one = layer()
    with threads_set_to(2):  # those of the process; a runner has a share of them
        assert prepare_for_cpu([one]) == range(1, 65)
    with torch.profiler.profile() as profile:
        one(torch.randn(128, 24), threads=count)
    assert ("mkldnn::_linear_pointwise" in {event.name for event in profile.events() or ()}) is by_onednn


@needs_onednn
@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(("count", "by_onednn"), [(1, False), (2, True)])
@pytest.mark.slow
def test_a_network_counts_the_threads_of_its_pass(count: int, by_onednn: bool) -> None:
    cpu, shape = torch.device("cpu"), BertShape(9, 128, 0, 24, 1, 2, 40, 1e-5, 0)
    network = PackedBert(shape).placed(cpu, torch.float32)
    with threads_set_to(count), torch.profiler.profile() as profile:
        batch = PackedBatch.of([Tokens(np.zeros(97, np.int32), 97)], cpu, network.onednn_rows)
        network.embed(batch, "mean")
    assert ("mkldnn::_linear_pointwise" in {event.name for event in profile.events() or ()}) is by_onednn
    assert (len(batch.ids) > 97) is by_onednn, "rows are filled up for oneDNN alone"


@needs_fbgemm
@needs_onednn
@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(("max_rows", "onednn_rows"), [(32, range(33, 65)), (64, range(0)), (256, range(0))])
def test_what_weights_in_float16_multiply_takes_no_form_of_onednn(
    max_rows: int, onednn_rows: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "autotune_float16", lambda _: max_rows)
    one, rows = layer(), torch.randn(max_rows, 24)
    right = expected(one, rows, gelu=True, plus=None)
    assert list(prepare_for_cpu([one], may_round=True)) == list(onednn_rows)
    assert len(one.memory()) == 1 + bool(onednn_rows)
    torch.testing.assert_close(one(rows, "gelu").double(), right, atol=2e-3, rtol=1e-3)


@pytest.mark.usefixtures("avx2")
def test_large_weights_are_not_held_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MAX_DUPLICATED_BYTES", 2 * 24 * 40 * 4 - 1)
    layers = [layer(), layer()]
    prepare_for_cpu(layers)
    assert [(one.onednn_rows_per_thread, one.weight.stride()) for one in layers] == [(0, (1, 40))] * 2


@needs_onednn
def test_where_onednn_loses_with_few_rows_too_pytorch_multiplies_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "autotune_products", lambda: timings(onednn=1.1))
    assert not prepare_for_cpu([layer()])


def test_without_onednn_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    one = layer()
    assert not prepare_for_cpu([one])
    assert one.onednn_rows_per_thread == 0


@pytest.mark.usefixtures("avx2")
def test_other_dtypes_and_devices_stay_as_they_are() -> None:
    for one in (layer().to(torch.bfloat16), layer().to("meta")):
        assert not prepare_for_cpu([one])
        assert (one.onednn_rows_per_thread, one.weight.stride()) == (0, (24, 1))


@needs_onednn
@pytest.mark.parametrize(
    ("tuned", "forms"), [(timings(onednn=0.9), 1), (replace(timings(onednn=1.1), onednn=ProductTimes(0.9, 1.1)), 2)]
)
def test_all_forms_of_the_weights_move_to_huge_pages(
    tuned: ProductAutotune, forms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr(linear, "autotune_products", lambda: tuned)
    monkeypatch.setattr(linear, "move_to_huge_pages", moved.extend)
    prepare_for_cpu([layer(), layer()])
    held = [(address, size) for address, size in moved if size]
    assert len({address for address, _ in held}) == 2 * forms
    assert all(address and size >= 24 * 40 * 4 for address, size in held)
