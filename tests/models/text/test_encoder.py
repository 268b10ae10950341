"""Encoders give sentence-transformers' vectors, whatever the architecture, and by either forward pass."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.device_names import DtypeName
from models.runtime.fbgemm import has_fbgemm
from models.runtime.placement import place
from models.runtime.product_autotune import ProductAutotune, ProductTimes
from models.source import DEFAULT_MODEL, ModelSource, locate
from models.text.batch_check import check_batches
from models.text.encoder import Encoder
from models.text.model import TextModel
from models.text.packed.encoder import PackedEncoder
from tests.support import tiny_models
from tests.support.preemption import Calling

pytestmark = pytest.mark.slow

TEXTS = ["a card", "the card is 12 days late, where is it?", "x", "ü " * 30, "the the the"]
CPU32 = place("cpu", "float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """For what does not depend on how a model is stored."""
    return locate(str(tiny_models.encoder(tmp_path_factory.mktemp("tiny") / "model")))


@pytest.fixture(scope="module")
def exact(tiny: ModelSource) -> PackedEncoder:
    return PackedEncoder(tiny, CPU32)


def expected(path: Path, texts: list[str], **how: str) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = SentenceTransformer(str(path), device="cpu").encode(texts, **how)
    return vectors


def encode(model: TextModel, texts: list[str], prompt: str = "") -> NDArray[np.float32]:
    return model.forward(model.text.encode(texts, prompt=prompt, exclude_prompt=model.metadata.excludes_prompt))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float((unit(a) * unit(b)).sum(axis=1).min())


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_every_architecture_equals_sentence_transformers(
    tmp_path: Path, architecture: tiny_models.Architecture
) -> None:
    path = tiny_models.encoder(tmp_path / "model", architecture, sees_whitespace=architecture == "modernbert")
    np.testing.assert_allclose(encode(load(locate(str(path)), CPU32), TEXTS), expected(path, TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", "weightedmean"])
def test_every_pooling_equals_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    path = tiny_models.encoder(tmp_path / "model", pooling=pooling)
    np.testing.assert_allclose(encode(load(locate(str(path)), CPU32), TEXTS), expected(path, TEXTS), atol=1e-5)


def test_a_dense_module_changes_the_width(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model", dense=12)
    model = load(locate(str(path)), CPU32)
    assert model.metadata.width == 12
    np.testing.assert_allclose(encode(model, TEXTS), expected(path, TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])  # the one is packed, the other is not
def test_vectors_come_before_normalization_and_the_metadata_says_that_there_is_one(
    tmp_path: Path, pooling: str
) -> None:
    path = tiny_models.encoder(tmp_path / "model", pooling=pooling, normalize=True)
    model = load(locate(str(path)), CPU32)
    raw = encode(model, TEXTS)
    assert model.metadata.normalizes
    assert abs(np.linalg.norm(raw[0]) - 1) > 0.01
    np.testing.assert_allclose(unit(raw), expected(path, TEXTS), atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
def test_prompts_are_read_before_the_text_and_pooled_only_if_the_model_says_so(tmp_path: Path, include: bool) -> None:
    path = tiny_models.encoder(tmp_path / "model", include_prompt=include, prompts={"query": "find: "})
    model = load(locate(str(path)), CPU32)
    assert model.metadata.prompts == {"query": "find: ", "document": ""}
    assert model.metadata.excludes_prompt is not include
    np.testing.assert_allclose(encode(model, TEXTS, "find: "), expected(path, TEXTS, prompt_name="query"), atol=1e-5)


def test_texts_with_and_without_prompt_may_share_a_batch(tmp_path: Path) -> None:
    model = load(locate(str(tiny_models.encoder(tmp_path / "model", include_prompt=False))), CPU32)
    plain, asked = model.text.encode(TEXTS), model.text.encode(TEXTS, prompt="find: ", exclude_prompt=True)
    together = model.forward([*plain, *asked])
    np.testing.assert_allclose(together, np.concatenate([model.forward(plain), model.forward(asked)]), atol=1e-5)


def test_a_plain_transformers_directory_gets_mean_pooling_and_a_note(tmp_path: Path) -> None:
    path = tiny_models.transformer(tmp_path / "model")
    model = load(locate(str(path)), CPU32)
    assert "mean pooling assumed" in model.metadata.notes[0]
    np.testing.assert_allclose(encode(model, TEXTS), expected(path, TEXTS), atol=1e-5)


def test_plain_encoders_are_packed_and_other_models_say_why_not(tmp_path: Path) -> None:
    packed = load(locate(str(tiny_models.encoder(tmp_path / "bert"))), CPU32)
    assert isinstance(packed, PackedEncoder)
    assert packed.metadata.forward.startswith("packed: least cosine")
    other = load(locate(str(tiny_models.encoder(tmp_path / "modernbert", "modernbert"))), CPU32)
    assert other.metadata.forward == "general: its architecture is modernbert"


def test_a_packed_pass_that_differs_is_not_used(tiny: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PackedEncoder.forward

    def wrong(self: PackedEncoder, batch: object) -> NDArray[np.float32]:
        return right(self, batch) + 1  # type: ignore[arg-type]

    monkeypatch.setattr(PackedEncoder, "forward", wrong)
    model = load(tiny, CPU32)
    assert isinstance(model, Encoder)
    assert "the packed forward pass differs" in model.metadata.forward


@pytest.mark.parametrize(("auto", "dtype", "forward"), [(True, "float32", "packed"), (False, "bfloat16", "general")])
def test_bfloat16_that_differs_too_much_is_replaced_by_float32_unless_asked_for(
    tiny: ModelSource, monkeypatch: pytest.MonkeyPatch, auto: bool, dtype: str, forward: str
) -> None:
    right = PackedEncoder.forward

    def wrong(self: PackedEncoder, batch: object) -> NDArray[np.float32]:
        return right(self, batch) + (self.metadata.dtype == "bfloat16")  # type: ignore[arg-type]

    monkeypatch.setattr(PackedEncoder, "forward", wrong)
    placement = replace(place("cpu", "bfloat16"), auto_dtype=auto)
    metadata = load(tiny, placement).metadata
    assert (metadata.dtype, metadata.forward.partition(":")[0]) == (dtype, forward)
    assert ("float32 since bfloat16 gave a least cosine of" in metadata.reason) is auto


@pytest.mark.skipif(not has_fbgemm(), reason="PyTorch has no FBGEMM here")
@pytest.mark.parametrize(
    ("auto", "allowed", "rounds"),
    [(True, 1e-3, True), (False, 1e-3, False), (True, 1e-6, False), (True, math.nan, False)],
)
def test_weights_of_few_rows_are_rounded_where_float32_was_not_asked_for_and_rows_stay_close(
    tiny: ModelSource, exact: PackedEncoder, monkeypatch: pytest.MonkeyPatch, auto: bool, allowed: float, rounds: bool
) -> None:
    monkeypatch.setattr("models.text.packed.linear.autotune_float16", lambda _: 24)
    monkeypatch.setattr("models.text.packed.encoder._MAX_ROUNDING", allowed)
    model = load(tiny, replace(CPU32, auto_dtype=auto))
    assert isinstance(model, PackedEncoder)
    assert model.rounds_few_rows is rounds
    assert ("up to 24 tokens at a time are multiplied by weights in float16" in model.metadata.notes) is rounds
    assert ("float32 since weights in float16 gave" in model.metadata.reason) is (auto and not rounds)
    for count in (1, 2, 9):
        texts = ["a few words"] * count
        few = sum(item.count for item in model.text.encode(texts)) <= 24
        rows, right = encode(model, texts), encode(exact, texts)
        assert least_cosine(rows, right) > 0.99999
        assert np.array_equal(rows, right) is not (rounds and few)


@pytest.mark.parametrize(
    ("fast", "dtype", "noted"), [(True, "float32", True), (True, "int8", False), (False, "float32", False)]
)
def test_int8_is_pointed_out_where_it_would_gain_much(
    tiny: ModelSource, monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: DtypeName, noted: bool
) -> None:
    one = ProductTimes(1.0, 1.0)
    tuned = ProductAutotune(one, one, one, ProductTimes(0.5, 0.5) if fast else one)
    monkeypatch.setattr("models.text.packed.encoder.autotune_products", lambda: tuned)
    model = load(tiny, place("cpu", dtype))
    assert ("int8 multiplies 2.0 times as fast as float32 here: try --dtype int8" in model.metadata.notes) is noted


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_nothing_keeps_gradients_and_the_model_is_in_eval_mode(
    tmp_path: Path, architecture: tiny_models.Architecture
) -> None:
    model = load(locate(str(tiny_models.encoder(tmp_path / "model", architecture))), CPU32)
    network = model._network if isinstance(model, PackedEncoder) else model._transformer  # type: ignore[attr-defined]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "distilbert", "modernbert", "xlm-roberta"])
def test_others_may_run_between_two_layers(tmp_path: Path, architecture: tiny_models.Architecture) -> None:
    model = load(locate(str(tiny_models.encoder(tmp_path / "model", architecture))), CPU32)
    batch, urgent = model.text.encode(TEXTS), model.text.encode(["a card"])
    inside: list[NDArray[np.float32]] = []
    rows = model.forward(batch, Calling(lambda: inside.append(model.forward(urgent))))
    assert len(inside) == (
        5 if isinstance(model, PackedEncoder) else 2
    )  # between any two parts of its layers, or before each layer
    np.testing.assert_allclose(inside[1], model.forward(urgent), atol=1e-6)
    np.testing.assert_allclose(rows, model.forward(batch), atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b'{"model_type": "no-such-thing"}'),
        ("model.safetensors", b"no weights"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_broken_directory_is_a_clear_error(
    tmp_path: Path, architecture: tiny_models.Architecture, file: str, content: bytes
) -> None:
    path = tiny_models.encoder(tmp_path / "model", architecture)
    (path / file).write_bytes(content)
    said = (
        r"model: not a .* that can be read|model/model\.safetensors: expected a header|model/tokenizer\.json: expected"
    )
    with pytest.raises(ModelSourceError, match=said):
        load(locate(str(path)), CPU32)


@pytest.fixture(scope="module")
def mixed_texts() -> list[str]:
    """Texts of 1 to 150 words, half of them of up to 12, in no order."""
    chance, words = random.Random(7), ["where", "is", "my", "card", "12", "arrived,", "help!", "naïve", "café"]
    return [" ".join(chance.choices(words, k=round(150 ** (place / 6)))) for place in chance.sample(range(7), 7)]


@pytest.fixture(scope="module")
def reference(mixed_texts: list[str]) -> NDArray[np.float32]:
    return expected(locate(DEFAULT_MODEL).path, mixed_texts)


@pytest.fixture(scope="module")
def minilm() -> TextModel:
    """Loaded without the general path, whose vectors ship with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.text.packed.encoder.Encoder", lambda *_: pytest.fail("the general path was loaded"))
        return load(locate(DEFAULT_MODEL), CPU32)


@pytest.mark.real
def test_the_shipped_model_is_checked_against_the_vectors_that_ship_with_it(minilm: TextModel) -> None:
    assert isinstance(minilm, PackedEncoder)
    assert float(minilm.metadata.forward.removeprefix("packed: least cosine to the general forward pass ")) > 0.99999


@pytest.mark.real
@pytest.mark.parametrize(("dtype", "least", "least_alone"), [("float32", 0.9999, 0.9999), ("bfloat16", 0.999, 0.9995)])
def test_minilm_equals_sentence_transformers_on_mixed_lengths(
    mixed_texts: list[str],
    reference: NDArray[np.float32],
    minilm: TextModel,
    dtype: DtypeName,
    least: float,
    least_alone: float,
) -> None:
    model = minilm
    if dtype != "float32":
        model = check_batches(PackedEncoder(locate(DEFAULT_MODEL), place("cpu", dtype)))
    assert not model.metadata.one_by_one
    rows = encode(model, mixed_texts)
    assert least_cosine(rows, reference) >= least
    alone = np.concatenate([encode(model, [text]) for text in mixed_texts[::2]])
    assert least_cosine(rows[::2], alone) >= least_alone


@pytest.mark.real
def test_minilm_by_the_general_path_equals_the_packed_one(minilm: TextModel) -> None:
    general = Encoder(locate(DEFAULT_MODEL), CPU32)
    assert least_cosine(encode(general, TEXTS), encode(minilm, TEXTS)) > 0.999999
    assert (minilm.metadata.width, minilm.metadata.max_tokens, minilm.metadata.normalizes) == (384, 256, True)


def test_no_autograd_graph_is_made(exact: PackedEncoder) -> None:
    seen: list[bool] = []
    exact.forward(exact.text.encode(["x"]), Calling(lambda: seen.append(torch.is_inference_mode_enabled())))
    assert seen == [True] * 5
