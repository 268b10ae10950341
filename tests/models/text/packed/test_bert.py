"""The packed forward pass: its layout, and the general path's vectors for any mix of lengths."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import ModelSourceError, Unsupported
from models.loader import load
from models.runtime.device import threads_set_to
from models.runtime.placement import place
from models.source import ModelSource, locate
from models.text.encoder import Encoder
from models.text.packed import attention
from models.text.packed.attention import explicit_attention
from models.text.packed.bert import PackedBert, _EncoderStack
from models.text.packed.encoder import PackedEncoder
from models.text.packed.linear import Linear
from models.text.packed.packed_batch import SHARED, PackedBatch, pad_rows
from models.text.tokenization import Tokens
from tests.support import tiny_models
from tests.support.preemption import Calling

pytestmark = pytest.mark.slow

CPU32 = place("cpu", "float32")
LONGEST = 80  # as many positions as the tiny models have
PACKED: tuple[tiny_models.Architecture, ...] = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
ALL = range(1, 2**62)
LENGTHS = st.lists(st.integers(1, SHARED) | st.integers(1, LONGEST), min_size=1, max_size=14)


def layout(*lengths: int, onednn_rows: range = range(0)) -> PackedBatch:
    """The layout of texts of so many tokens."""
    batch = [Tokens(np.full(length, number, dtype=np.int32), length) for number, length in enumerate(lengths)]
    return PackedBatch.of(batch, torch.device("cpu"), onednn_rows)


def test_tokens_are_counted_within_each_text() -> None:
    one = layout(2, 3, 1)
    assert one.ids.tolist() == one.owner.tolist() == [0, 0, 1, 1, 1, 2]
    assert one.positions.tolist() == [0, 1, 0, 1, 2, 0]
    assert one.lengths.tolist() == [2, 3, 1]
    assert {tensor.dtype for tensor in (one.ids, one.owner, one.positions, one.lengths)} == {torch.int64}


def test_texts_of_one_token_fill_up_the_rows_that_linear_layers_like() -> None:
    one = layout(3, 10, onednn_rows=ALL)
    assert (one.texts, one.lengths.tolist()) == (2, [3, 10, 1])
    assert one.owner.tolist() == [0] * 3 + [1] * 10 + [2]
    assert (one.ids[13:].tolist(), one.positions[13:].tolist(), one.positions_from(5)[13:].tolist()) == ([0], [0], [5])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("mean", [[1.0, 2.0], [5.0, 6.0]]), ("cls", [[0.0, 1.0], [4.0, 5.0]]), ("lasttoken", [[2.0, 3.0], [6.0, 7.0]])],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_takes_each_text_by_itself(mode: str, expected: list[list[float]], dtype: torch.dtype) -> None:
    rows = torch.arange(8, dtype=dtype).view(4, 2)
    pooled = layout(2, 2).pool(rows, mode)
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == expected


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_pooling_leaves_out_what_fills_up(mode: str) -> None:
    rows = torch.randn(64, 2)
    one = layout(30, 31, onednn_rows=ALL)
    assert torch.equal(one.pool(rows, mode), layout(30, 31).pool(rows[:61], mode))


def test_a_mean_of_bfloat16_is_taken_in_float32() -> None:
    rows = torch.tensor([[256.0]] + [[1.0]] * 255, dtype=torch.bfloat16)  # 256 + 1 is 256 in bfloat16
    assert layout(256).pool(rows, "mean").item() == pytest.approx(511 / 256)


@pytest.mark.parametrize(
    ("products", "amx", "explicit"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_attention_is_explicit_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, *, products: bool, amx: bool, explicit: bool
) -> None:
    monkeypatch.setattr(attention, "has_bfloat16_products", lambda: products)
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    assert attention.Attention(4).explicit == explicit


@pytest.mark.parametrize(
    ("threads", "size", "explicit"), [(1, 12, False), (2, 12, True), (2, 191, True), (2, 192, False)]
)
def test_attention_of_small_blocks_in_float32_is_explicit_with_several_threads(
    monkeypatch: pytest.MonkeyPatch, *, threads: int, size: int, explicit: bool
) -> None:
    calls: list[Tensor] = []

    def counted(qkv: Tensor, size: int, heads: int, mask: Tensor | None, most: int) -> Tensor:
        calls.append(qkv)
        return explicit_attention(qkv, size, heads, mask, most)

    qkv, blocks = torch.randn(2 * size, 3 * 8), layout(size, size).blocks
    expected = attention.Attention(2)(qkv, blocks)
    monkeypatch.setattr(attention, "explicit_attention", counted)
    torch.testing.assert_close(attention.Attention(2)(qkv, blocks, threads), expected)
    assert bool(calls) == explicit


@pytest.mark.parametrize("most", [1, 2 * 4 * 32 * 32, 2**20])  # one block at a time, two, all
@pytest.mark.parametrize("masked", ["not", "each block", "all alike"])
def test_explicit_attention_is_attention(most: int, masked: str) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(5 * 32, 3 * 4 * 8)
    query, key, value = qkv.view(5, 32, 3, 4, 8).permute(2, 0, 3, 1, 4)
    mask = torch.zeros(1 if masked == "all alike" else 5, 1, 32, 32)
    mask[..., 20:] = -torch.inf
    mask[-1, :, :, 10:] = -torch.inf
    given = None if masked == "not" else mask
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given)
    got = explicit_attention(qkv, 32, 4, given, most)
    torch.testing.assert_close(got.view(5, 32, 4, 8).transpose(1, 2), expected)


def change(path: Path, **values: object) -> Path:
    """Put other values into a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


@pytest.fixture(scope="module", params=PACKED)
def rough(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """One random model of each architecture that is packed."""
    path = tiny_models.roughen(tiny_models.encoder(tmp_path_factory.mktemp("packed") / "model", request.param))
    change(path / "sentence_bert_config.json", max_seq_length=LONGEST)
    return locate(str(path))


@pytest.fixture(scope="module")
def both(rough: ModelSource) -> tuple[PackedEncoder, Encoder]:
    """It by both forward passes."""
    return PackedEncoder(rough, CPU32), Encoder(rough, CPU32)


def texts(lengths: list[int], seed: int, vocabulary: int) -> list[Tokens]:
    """Random texts of so many tokens."""
    chance = np.random.default_rng(seed)
    return [Tokens(chance.integers(5, vocabulary, length, dtype=np.int32), length) for length in lengths]


@settings(max_examples=12, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 2))
@example(lengths=[1], seed=0, threads=2)
@example(lengths=[1, 1, 1], seed=0, threads=2)
@example(lengths=[10_000], seed=0, threads=2)
@example(lengths=[10_000, 1, 10_000, 48, 10_000], seed=0, threads=1)
@example(lengths=[*range(1, 60)] * 3, seed=0, threads=1)
@example(lengths=[*range(1, 60)] * 3, seed=0, threads=2)
def test_any_mix_of_lengths_equals_the_general_path(
    both: tuple[PackedEncoder, Encoder], lengths: list[int], seed: int, threads: int
) -> None:
    packed, general = both
    batch = texts([min(length, packed.metadata.max_tokens) for length in lengths], seed, packed.metadata.vocabulary)
    with threads_set_to(threads):
        np.testing.assert_allclose(packed.forward(batch), general.forward(batch), atol=5e-5)


@pytest.mark.parametrize("lengths", [[1], [13], [3, 30, 6], [29, 29, 29], [70] * 3, [*range(1, 60)]])
def test_rows_are_filled_up_and_texts_keep_their_vectors(
    both: tuple[PackedEncoder, Encoder], lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, general = both
    batch, network, seen = texts(lengths, 0, packed.metadata.vocabulary), packed._network, set[int]()
    monkeypatch.setattr(network, "onednn_rows", ALL)
    unscripted = _EncoderStack(network.word_embeddings, network.position_embeddings, network.norm, network.layers)
    monkeypatch.setattr(network, "_stack", [unscripted])
    hooks = [
        one.register_forward_pre_hook(lambda _, rows: seen.add(len(rows[0])))
        for one in network.modules()
        if isinstance(one, Linear)
    ]
    np.testing.assert_allclose(packed.forward(batch), general.forward(batch), atol=5e-5)
    for hook in hooks:
        hook.remove()
    assert seen == {pad_rows(sum(lengths), ALL)} != {sum(lengths)}


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no TorchScript")
def test_the_scripted_pass_runs_as_it_is_written_and_other_modules_as_pytorch_likes(
    both: tuple[PackedEncoder, Encoder],
) -> None:
    packed, _ = both
    for _ in range(3):
        packed.forward(texts([3, 5], 0, packed.metadata.vocabulary))
    stack: Any = packed._network._stack[0]
    with pytest.raises(RuntimeError, match="optimized_plan_"):
        stack.get_debug_state()
    assert torch._C._get_graph_executor_optimize()


@settings(max_examples=8, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 2**32 - 1))
def test_a_texts_vector_does_not_depend_on_its_neighbours(
    both: tuple[PackedEncoder, Encoder], lengths: list[int], seed: int
) -> None:
    packed, _ = both
    batch = texts([min(length, packed.metadata.max_tokens) for length in lengths], seed, packed.metadata.vocabulary)
    alone = np.concatenate([packed.forward([item]) for item in batch])
    np.testing.assert_allclose(packed.forward(batch), alone, atol=5e-5)


@pytest.mark.parametrize("number", [1, 40])
def test_a_pass_is_preempted_after_each_step_but_the_last(both: tuple[PackedEncoder, Encoder], number: int) -> None:
    packed, general = both
    batch = texts([7] * number, 0, packed.metadata.vocabulary)
    calls: list[None] = []
    rows = packed.forward(batch, Calling(lambda: calls.append(None)))
    assert len(calls) == 3 * packed._network.shape.layers - 1
    np.testing.assert_allclose(rows, general.forward(batch), atol=5e-5)
    np.testing.assert_array_equal(rows, packed.forward(batch))


def test_nothing_is_called_while_all_flags_are_down(both: tuple[PackedEncoder, Encoder]) -> None:
    packed, _ = both
    calls: list[None] = []
    preempt = Calling(lambda: calls.append(None))
    preempt.flags = (np.array([False]), np.array([False]))
    packed.forward(texts([7, 60], 0, packed.metadata.vocabulary), preempt)
    assert not calls


def test_a_lowered_flag_calls_nothing_again(both: tuple[PackedEncoder, Encoder]) -> None:
    packed, _ = both
    calls: list[None] = []

    def enter() -> None:
        calls.append(None)
        preempt.flags[1][0] = False

    preempt = Calling(enter)
    preempt.flags = (np.array([False]), np.array([True]))
    packed.forward(texts([7, 60], 0, packed.metadata.vocabulary), preempt)
    assert len(calls) == 1


def test_a_flag_that_goes_up_during_a_pass_is_seen(tmp_path: Path) -> None:
    """It goes up from another thread, while the pass holds no lock: a flag read once for all parts would never be
    seen.
    """
    model = PackedEncoder(locate(str(tiny_models.encoder(tmp_path / "model"))), CPU32)
    batch = texts([48] * 300, 0, model.metadata.vocabulary)
    model.forward(batch)
    steps, calls = 3 * model._network.shape.layers, list[None]()
    for _ in range(100):  # on a busy machine a pass may end before the flag goes up, or begin after
        began = time.perf_counter()
        model.forward(batch)
        preempt = Calling(lambda: calls.append(None))
        preempt.flags = (late := np.array([False]),)
        timer = threading.Timer((time.perf_counter() - began) / 2, late.fill, [True])
        timer.start()
        calls.clear()
        model.forward(batch, preempt)
        timer.join()
        if 0 < len(calls) < steps - 1:
            return
    pytest.fail(f"the flag was seen {len(calls)} times in a pass of {steps} steps")


def test_special_tokens_inside_a_text_have_the_positions_that_the_general_path_gives_them(
    both: tuple[PackedEncoder, Encoder],
) -> None:
    packed, general = both
    batch = [Tokens(np.array(ids, dtype=np.int32), len(ids)) for ids in ([2, 7, 0, 8, 3], [1, 1, 0, 9], [0], [2, 9, 3])]
    for part in (batch, *([item] for item in batch)):
        np.testing.assert_allclose(packed.forward(part), general.forward(part), atol=5e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("onednn_rows", [range(0), ALL])
def test_one_short_text_gets_the_vector_that_a_layout_gives(
    both: tuple[PackedEncoder, Encoder], pooling: str, onednn_rows: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, _ = both
    network, calls = packed._network, list[None]()
    monkeypatch.setattr(network, "onednn_rows", onednn_rows)
    for batch in (texts([count], count, packed.metadata.vocabulary) for count in (1, 6, 13, SHARED)):
        one = PackedBatch.of(batch, torch.device("cpu"), onednn_rows)
        by_layout = one.pool(network(one), pooling)
        if not network.takes_alone(batch):
            assert packed.metadata.architecture == "mpnet"  # its relative positions need a layout
            continue
        torch.testing.assert_close(network.embed_one(batch[0].ids, pooling), by_layout, atol=1e-5, rtol=1e-5)
        calls.clear()
        preempted = network.embed_one(batch[0].ids, pooling, Calling(lambda: calls.append(None)))
        torch.testing.assert_close(preempted, by_layout, atol=1e-5, rtol=1e-5)
        assert len(calls) == 3 * network.shape.layers - 1


def test_only_one_short_text_goes_without_a_layout(tmp_path: Path) -> None:
    network = PackedEncoder(locate(str(tiny_models.encoder(tmp_path / "model"))), CPU32)._network
    for lengths, alone in (([1], True), ([SHARED], True), ([SHARED + 1], False), ([1, 1], False)):
        assert network.takes_alone(texts(lengths, 0, 30)) is alone
    few_positions = PackedBert(replace(network.shape, positions=SHARED - 1)).placed(CPU32.device, CPU32.dtype)
    assert not few_positions.takes_alone(texts([1], 0, 30))


def test_bfloat16_differs_from_float32_no_more_than_by_the_general_path(rough: ModelSource) -> None:
    bfloat16 = place("cpu", "bfloat16")
    packed, general, exact = PackedEncoder(rough, bfloat16), Encoder(rough, bfloat16), Encoder(rough, CPU32)
    batch = texts([1, 30, packed.metadata.max_tokens, 7, 48], 0, packed.metadata.vocabulary)
    right = exact.forward(batch)
    assert least_cosine(packed.forward(batch), right) > 0.999
    assert least_cosine(packed.forward(batch), right) > least_cosine(general.forward(batch), right) - 0.0005


def test_each_architecture_is_packed_at_load(rough: ModelSource) -> None:
    model = load(rough, CPU32)
    assert isinstance(model, PackedEncoder)
    assert float(model.metadata.forward.removeprefix("packed: least cosine to the general forward pass ")) > 0.99999


def least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def test_two_texts_of_the_same_words_in_another_order_differ(both: tuple[PackedEncoder, Encoder]) -> None:
    packed, _ = both
    one, other = packed.forward(packed.text.encode(["the card", "card the"]))
    assert np.abs(one - other).max() > 1e-3


def test_both_passes_have_the_same_card(both: tuple[PackedEncoder, Encoder]) -> None:
    packed, general = both
    assert packed.metadata == replace(general.metadata, pads=False)
    assert packed.metadata.max_tokens == LONGEST - {"roberta": 1, "xlm-roberta": 1, "mpnet": 2}.get(
        packed.metadata.architecture, 0
    )


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16"])  # attention by PyTorch's kernel, and as products
def test_bfloat16_stays_near_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, feature: str
) -> None:
    source = locate(str(tiny_models.encoder(tmp_path / "model", pooling=pooling)))
    for module in ("attention", "packed_batch"):
        monkeypatch.setattr(f"models.text.packed.{module}.has_amx", lambda: feature == "amx_bf16")
    monkeypatch.setattr("models.text.packed.attention.has_bfloat16_products", lambda: True)
    exact, rounded = PackedEncoder(source, CPU32), PackedEncoder(source, place("cpu", "bfloat16"))
    batch = texts([3, 20, 48, 7, 33], 0, exact.metadata.vocabulary)
    a, b = exact.forward(batch), rounded.forward(batch)
    assert b.dtype == np.float32
    assert least_cosine(a, b) > 0.999


def network(path: Path, **changes: object) -> PackedBert:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return PackedBert.load(path, {**config, **changes})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "modernbert"}, "its architecture is modernbert"),
        ({"model_type": "roberta", "pad_token_id": 0, "is_decoder": True}, "its architecture is roberta"),
        ({"model_type": "distilbert", "activation": "relu"}, "its activation is relu"),
        ({"model_type": "distilbert", "activation": "gelu"}, "does not say dim"),
        ({"model_type": None}, "its architecture is None"),
        ({"is_decoder": True}, "its architecture"),
        ({"add_cross_attention": True}, "its architecture"),
        ({"hidden_act": "relu"}, "its activation is relu"),
        ({"hidden_act": "gelu_new"}, "its activation is gelu_new"),
        ({"position_embedding_type": "relative_key"}, "its positions are relative_key"),
    ],
)
def test_only_plain_encoders_are_packed(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    path = tiny_models.transformer(tmp_path / "model")
    with pytest.raises(Unsupported, match=why):
        network(path, **changes)


def test_weights_in_several_files_are_left_to_the_general_path(tmp_path: Path) -> None:
    path = tiny_models.transformer(tmp_path / "model")
    (path / "model.safetensors").rename(path / "model-00001-of-00001.safetensors")
    with pytest.raises(Unsupported, match="several files"):
        network(path)


@pytest.mark.parametrize("immutable", [False, True])
def test_word_embeddings_stay_in_files_that_nothing_writes_into(tmp_path: Path, immutable: bool) -> None:
    source = replace(locate(str(tiny_models.encoder(tmp_path / "model"))), immutable=immutable)
    encoder = PackedEncoder(source, CPU32)
    before = encoder.forward(texts([3, 20], 0, 30))
    file = source.path / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.write(bytes(size))
    words = encoder._network.word_embeddings.weight
    assert bool((words == 0).all()) is immutable
    assert bool((encoder.forward(texts([3, 20], 0, 30)) == before).all()) is not immutable


def run(one: PackedBert) -> Tensor:
    with torch.inference_mode():
        return one(layout(3, 5))  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", PACKED)
def test_weights_may_have_their_architectures_prefix(tmp_path: Path, architecture: tiny_models.Architecture) -> None:
    path = tiny_models.transformer(tmp_path / "model", architecture)
    plain = run(network(path))
    weights = load_file(path / "model.safetensors")
    prefix = architecture.removeprefix("xlm-")
    save_file(
        {f"{prefix}.{name}": tensor for name, tensor in weights.items()}, path / "model.safetensors", {"format": "pt"}
    )
    assert torch.equal(run(network(path)), plain)


def test_a_pass_is_preempted_within_each_layer(tmp_path: Path) -> None:
    turns: list[bool] = []
    with torch.inference_mode():
        network(tiny_models.transformer(tmp_path / "model"))(layout(3), Calling(lambda: turns.append(True)))
    assert len(turns) == 5


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        ("1_Pooling/config.json", {"include_prompt": False}, "its pooling leaves the prompt out"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "its pooling is max"),
        ("config.json", {"hidden_act": "relu"}, "its activation is relu"),
    ],
)
def test_what_cannot_be_packed_goes_the_general_way_and_says_why(
    tmp_path: Path, file: str, changes: dict[str, object], why: str
) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    change(path / file, **changes)
    model = load(locate(str(path)), CPU32)
    assert isinstance(model, Encoder)
    assert model.metadata.forward == f"general: {why}"


def test_without_a_tokenizer_file_there_is_no_packing(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    (path / "tokenizer.json").unlink()
    with pytest.raises(Unsupported, match=r"no tokenizer\.json"):
        PackedEncoder(locate(str(path)), CPU32)


def test_a_model_without_some_weights_is_a_clear_error(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelSourceError, match="not a BERT-like encoder that can be read"):
        load(locate(str(path)), CPU32)


def test_a_model_reads_no_more_tokens_than_it_has_positions(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    change(path / "sentence_bert_config.json", max_seq_length=512)
    source = locate(str(path))
    packed = PackedEncoder(source, CPU32)
    assert packed.metadata.max_tokens == LONGEST
    [item] = packed.text.encode(["card " * 600])
    np.testing.assert_allclose(packed.forward([item]), Encoder(source, CPU32).forward([item]), atol=1e-4)
