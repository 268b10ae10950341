"""int8: near float32, alike in every company, and refused where it cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.loader import load
from models.runtime import product_autotune
from models.runtime.fbgemm import FBGEMM, has_fbgemm
from models.runtime.placement import Placement, place
from models.runtime.product_autotune import ProductAutotune, ProductTimes
from models.source import DEFAULT_MODEL, ModelSource, locate
from models.text.packed import int8 as quantized
from models.text.packed.attention import NO_SIZE
from models.text.packed.bert import PackedBert
from models.text.packed.encoder import PROBES, PackedEncoder
from models.text.packed.int8 import Int8AfterGelu, Int8Linear, quantize
from models.text.packed.packed_batch import SHARED, PackedBatch
from models.text.tokenization import Tokens
from tests.support import tiny_models
from tests.support.preemption import Calling

CPU32 = place("cpu", "float32")
pytestmark = pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here")


def int8() -> Placement:
    return place("cpu", "int8")


OTHERS = [pytest.param(architecture, marks=pytest.mark.slow) for architecture in ("distilbert", "mpnet")]


def rough_model(path: Path, architecture: tiny_models.Architecture) -> ModelSource:
    return locate(str(tiny_models.roughen(tiny_models.encoder(path, architecture), gain=4)))


@pytest.fixture(scope="module", params=["bert", *OTHERS])
def rough(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """One random model of each kind of architecture."""
    return rough_model(tmp_path_factory.mktemp("int8") / "model", request.param)


@pytest.fixture(scope="module")
def exact(rough: ModelSource) -> PackedEncoder:
    return PackedEncoder(rough, CPU32)


@pytest.fixture(scope="module")
def rounded(rough: ModelSource) -> PackedEncoder:
    return PackedEncoder(rough, int8())


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return result


def texts(lengths: list[int], vocabulary: int) -> list[Tokens]:
    chance = np.random.default_rng(3)
    return [Tokens(chance.integers(5, vocabulary, length, dtype=np.int32), length) for length in lengths]


def test_vectors_stay_near_those_of_float32(exact: PackedEncoder, rounded: PackedEncoder) -> None:
    batch = texts([1, 40, 7, 48, 13, 2, 30], exact.metadata.vocabulary)
    found = cosines(exact.forward(batch), rounded.forward(batch))
    assert found.mean() > 0.99
    assert found.min() > 0.98
    assert found.max() < 0.9999999, "nothing was rounded"


def test_a_texts_vector_hardly_depends_on_its_neighbours(rounded: PackedEncoder) -> None:
    batch = texts([1, 40, 7, 48, 13], rounded.metadata.vocabulary)
    alone = np.concatenate([rounded.forward([item]) for item in batch])
    assert cosines(rounded.forward(batch), alone).min() > 0.999


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_vnni"), reason="oneDNN's sums overflow without VNNI")
def test_both_libraries_give_the_same_vectors(rough: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    one, half = ProductTimes(1.0, 1.0), ProductTimes(0.5, 0.5)
    models = []
    for onednn in (half, one):
        tuned = ProductAutotune(one, one, one, ProductTimes(0.8, 0.8), onednn)
        monkeypatch.setattr(quantized, "autotune_products", lambda tuned=tuned: tuned)
        models.append(PackedEncoder(rough, int8()))
    assert [model._network.onednn_rows for model in models] == [range(65, 2**62), range(0)]
    batch = texts([1, 40, 7, 48], models[0].metadata.vocabulary)  # 96 rows
    by_onednn, by_fbgemm = (model.forward(batch) for model in models)
    assert not np.array_equal(by_onednn, by_fbgemm), "oneDNN multiplied nothing"
    assert cosines(by_onednn, by_fbgemm).min() > 0.9999
    few = texts([3, 20, 41], models[0].metadata.vocabulary)
    np.testing.assert_array_equal(models[0].forward(few), models[1].forward(few))


class Unrounded(nn.Module):
    """What Int8Linear and Int8AfterGelu do, with float32 products."""

    def __init__(self, weight: Tensor, bias: Tensor, factors: Tensor) -> None:
        super().__init__()
        self._weight, self._bias, self._factors = weight, bias, factors

    def forward(
        self, rows: Tensor, activation: str = "none", residual: Tensor | None = None, threads: int = 1
    ) -> Tensor:
        result = functional.linear(rows, self._weight, self._bias)
        if activation == "gelu":
            return functional.gelu(result)
        return result if residual is None else result + residual * self._factors


def test_what_is_moved_into_the_weights_changes_nothing_but_the_rounding(
    rough: ModelSource, exact: PackedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linear(weight: Tensor, bias: Tensor, input_scale: float, factors: Tensor | None = None) -> Unrounded:
        return Unrounded(weight, bias, torch.ones(()) if factors is None else factors)

    monkeypatch.setattr(quantized, "Int8Linear", linear)
    monkeypatch.setattr(quantized, "Int8AfterGelu", Unrounded)
    monkeypatch.setattr(product_autotune, "MIN_BFLOAT16_GAIN", math.inf)
    unrounded = PackedEncoder(rough, int8())
    batch = texts([1, 40, 7, 48], exact.metadata.vocabulary)
    np.testing.assert_allclose(unrounded.forward(batch), exact.forward(batch), atol=5e-5)


def test_attention_is_bfloat16_in_long_blocks_alone(rough: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "has_amx", lambda: False)
    monkeypatch.setattr(quantized, "_BFLOAT16_MIN_SIZE", 48)
    models = []
    for needed in (0.0, math.inf):
        monkeypatch.setattr(product_autotune, "MIN_BFLOAT16_GAIN", needed)
        models.append(PackedEncoder(rough, int8()))
    for length in (47, 48):
        with_bfloat16, without = (model.forward(texts([length], model.metadata.vocabulary)) for model in models)
        assert np.array_equal(with_bfloat16, without) == (length < 48)
        assert cosines(with_bfloat16, without).min() > 0.999


@pytest.mark.parametrize(
    ("needed", "amx", "least"), [(0.0, False, 128), (0.0, True, SHARED), (math.inf, True, NO_SIZE)]
)
def test_the_least_block_in_bfloat16_follows_the_processor(
    needed: float, amx: bool, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_autotune, "MIN_BFLOAT16_GAIN", needed)
    monkeypatch.setattr(quantized, "has_amx", lambda: amx)
    assert quantized._bfloat16_min_size() == least


def test_large_channels_are_divided_and_their_weights_multiplied() -> None:
    factors = quantized._smoothing_factors(torch.tensor([100.0, 1.0]), torch.ones(3, 2))
    assert factors.tolist() == pytest.approx([2 * 10 / 11, 2 * 1 / 11])


def test_a_product_after_gelu_holds_its_outliers_and_what_is_below_zero() -> None:
    torch.manual_seed(0)
    rows = functional.gelu(torch.randn(50, 64))
    rows[3, 5], rows[4] = 30.0, -0.17
    weight, bias, plus = torch.randn(24, 64), torch.randn(24), torch.randn(50, 24)
    right = functional.linear(rows, weight, bias) + 2 * plus
    got = Int8AfterGelu(weight, bias, torch.full((24,), 2.0))(rows.clone(), "none", plus)
    errors = (got - right).norm(dim=1) / right.norm(dim=1)
    assert float(errors.mean()) < 0.02
    assert float(errors.max()) < 0.1


@pytest.mark.parametrize("gelu", [False, True])
def test_an_input_that_is_larger_than_any_seen_is_cut_off(gelu: bool) -> None:
    one = Int8Linear(torch.eye(4), torch.zeros(4), 1 / 127)
    got = one(torch.tensor([[0.5, -0.5, 5.0, -5.0]]), "gelu" if gelu else "none")
    right = torch.tensor([[0.5, -0.5, 1.0, -128 / 127]])
    torch.testing.assert_close(got, functional.gelu(right) if gelu else right, atol=0.01, rtol=0)


def test_pytorchs_engine_stays_as_it_was() -> None:
    before = torch.backends.quantized.engine
    other = next(name for name in torch.backends.quantized.supported_engines if name not in ("none", FBGEMM))
    try:
        torch.backends.quantized.engine = other
        Int8Linear(torch.eye(4), torch.zeros(4), 1.0)
        assert torch.backends.quantized.engine == other
    finally:
        torch.backends.quantized.engine = before


def test_all_linear_layers_are_replaced_and_others_get_their_turns(rounded: PackedEncoder) -> None:
    kinds = [type(module).__name__ for module in rounded._network.layers.modules() if "Linear" in type(module).__name__]
    assert kinds == ["Int8Linear"] * 6
    turns: list[bool] = []
    rounded.forward(texts([3], rounded.metadata.vocabulary), Calling(lambda: turns.append(True)))
    assert len(turns) == 5


@pytest.mark.real
def test_minilm_keeps_its_directions() -> None:
    source = locate(DEFAULT_MODEL)
    exact, rounded = PackedEncoder(source, CPU32), load(source, int8())
    assert not rounded.metadata.one_by_one
    asked = [*PROBES, "I lost my card", "what's the exchange rate?", "a", "SELECT * FROM t;", "Thẻ của tôi ở đâu?"]
    found = cosines(exact.forward(exact.text.encode(asked)), rounded.forward(rounded.text.encode(asked)))
    assert found.mean() > 0.995
    assert found.min() > 0.99


def test_the_float32_weights_are_given_up(rough: ModelSource) -> None:
    network = PackedBert.load(rough.path, json.loads((rough.path / "config.json").read_text()))
    quantize(network, PackedBatch.of(texts([5, 9], 90), torch.device("cpu")))
    left = {name for layer in network.layers for name, _ in layer.named_parameters()}
    assert left == {"attention_norm.weight", "attention_norm.bias", "norm.weight", "norm.bias"}
