"""Settings and weights under the names that older libraries wrote are read as those libraries read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    NomicBertConfig,
    XLNetConfig,
    XLNetTokenizer,
    pipeline,
)

from models.errors import ModelSourceError, UnsafeModelError
from models.loader import load
from models.probabilities import probabilities
from models.runtime.placement import place
from models.source import locate
from models.text.encoder import Encoder
from models.text.model import TextModel
from models.text.packed.encoder import PackedEncoder
from tests.support import tiny_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("layers_in_python")]

CPU32 = place("cpu", "float32")
LONG = "the card is 12 days late, where is it? " * 3
TEXTS = ["a card", LONG]
SETTINGS = "sentence_bert_config.json"
BOTH: dict[str, Callable[[Path], TextModel]] = {
    "as loaded": lambda path: load(locate(str(path)), CPU32),
    "general": lambda path: Encoder(locate(str(path)), CPU32),
}


def change(path: Path, **values: object) -> Path:
    """Put other values into a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


def rows(model: TextModel, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    return np.concatenate([model.forward([item]) for item in model.text.encode(texts)])


def expected(path: Path, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = SentenceTransformer(str(path), device="cpu").encode(texts)
    return vectors


def long_encoder(path: Path, architecture: tiny_models.Architecture = "bert") -> Path:
    """An encoder of 512 tokens."""
    plain = tiny_models.transformer(path / "plain", architecture, max_position_embeddings=512)
    modules = [Transformer(str(plain), max_seq_length=512), Pooling(tiny_models.WIDTH, pooling_mode="mean")]
    SentenceTransformer(modules=modules).save_pretrained(str(path / "model"), create_model_card=False)
    return path / "model"


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of 512 tokens, without settings of its own."""
    path = long_encoder(tmp_path_factory.mktemp("distilbert"), "distilbert")
    (path / SETTINGS).unlink()
    return path


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_settings_of_a_transformer_by_any_of_their_names(distilbert: Path, tmp_path: Path, kind: str) -> None:
    path = shutil.copytree(distilbert, tmp_path / "model")
    # Longer than the probes of the packed pass, which would tell shorter limits apart.
    (path / f"sentence_{kind}_config.json").write_text('{"max_seq_length": 450, "do_lower_case": false}')
    wanted = expected(path, [LONG * 8])
    for way in BOTH.values():
        model = way(path)
        assert model.text.max_tokens == 450
        np.testing.assert_allclose(rows(model, [LONG * 8]), wanted, atol=1e-5)


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    "options",
    [
        {"text": {"max_length": 12}},
        {"common": {"max_length": 12}, "text": {"max_length": 20}},
        {"text": {"max_length": 12, "padding": True, "truncation": True}, "image": {"size": 3}},
    ],
)
def test_processing_options_may_shorten_texts(tmp_path: Path, options: dict[str, Any], way: str) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    change(path / SETTINGS, processing_kwargs=options)
    model = BOTH[way](path)
    assert model.text.max_tokens == 12
    np.testing.assert_allclose(rows(model), expected(path), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "add_special_tokens"),
        ({"processing_kwargs": {"common": {"truncation_side": "left"}}}, "truncation_side"),
        ({"modality_config": {"message": {"method": "forward"}}}, "a chat template around them"),
    ],
)
@pytest.mark.parametrize("make", [tiny_models.encoder, tiny_models.classifier])
def test_settings_that_read_texts_otherwise_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], settings: dict[str, Any], got: str
) -> None:
    path = make(tmp_path / "mine")
    (path / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ModelSourceError, match=f"mine: expected .*, got {got}"):
        load(locate(str(path)), CPU32)


def test_the_limits_of_queries_and_documents_are_read(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    change(path / SETTINGS, query_length=8, document_length=20)
    assert [way(path).metadata.input_limits for way in BOTH.values()] == [{"query": 8, "document": 20}] * 2


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "modernbert"])
def test_norms_under_their_first_names(tmp_path: Path, architecture: tiny_models.Architecture) -> None:
    path = tiny_models.roughen(tiny_models.encoder(tmp_path / "model", architecture), gain=2)
    before = load(locate(str(path)), CPU32)
    file = path / "model.safetensors"
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})
    after = load(locate(str(path)), CPU32)
    assert type(after) is type(before)
    np.testing.assert_allclose(rows(after), rows(before), atol=1e-5)


def nomic(path: Path) -> Path:
    """An encoder whose files name code that transformers has itself."""
    words = tiny_models.tokenizer()
    made = NomicBertConfig(
        vocab_size=len(words), hidden_size=tiny_models.WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=80, pad_token_id=0,
    )  # fmt: skip
    AutoModel.from_config(made).save_pretrained(path / "plain")
    words.save_pretrained(path / "plain")
    modules = [Transformer(str(path / "plain"), max_seq_length=48), Pooling(tiny_models.WIDTH, pooling_mode="mean")]
    SentenceTransformer(modules=modules).save_pretrained(str(path / "model"), create_model_card=False)
    change(path / "model" / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (path / "model" / "evil.py").write_text("raise SystemExit('code of a model was run')")
    return path / "model"


def test_code_that_transformers_has_itself_is_not_needed(tmp_path: Path) -> None:
    path = nomic(tmp_path)
    model = load(locate(str(path)), CPU32)
    assert model.metadata.architecture == "nomic_bert"
    reference = SentenceTransformer(str(path), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(rows(model), reference.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(("file", "kind"), [("config.json", "unheard-of"), ("tokenizer_config.json", "nomic_bert")])
def test_other_code_is_refused(tmp_path: Path, file: str, kind: str) -> None:
    path = nomic(tmp_path)
    change(path / file, auto_map={"AutoModel": "evil.Model"}, **({"model_type": kind} if file == "config.json" else {}))
    with pytest.raises(UnsafeModelError, match="auto_map"):
        locate(str(path))


def xlnet_tokenizer(path: Path) -> XLNetTokenizer:
    """XLNet's tokenizer: special tokens at the end with types of their own, padding on the left."""
    special = [(name, 0.0) for name in ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>")]
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.?"]
    made = XLNetTokenizer(vocab=[*special, ("▁", -2.0), *letters, ("▁the", -1.0), ("▁a", -1.0)])
    made.model_max_length = 64
    made.save_pretrained(path)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    change(path / "tokenizer_config.json", model_input_names=names)
    return made


def xlnet_config(words: XLNetTokenizer, **more: Any) -> XLNetConfig:
    shape = {"d_model": tiny_models.WIDTH, "n_layer": 2, "n_head": 4, "d_inner": 64, "initializer_range": 0.5}
    return XLNetConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, **shape, **more)


def test_xlnets_token_types_reach_the_model(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    words = xlnet_tokenizer(plain)
    AutoModel.from_config(xlnet_config(words)).save_pretrained(plain)
    modules = [Transformer(str(plain), max_seq_length=48), Pooling(tiny_models.WIDTH, pooling_mode="mean")]
    SentenceTransformer(modules=modules).save_pretrained(str(tmp_path / "model"), create_model_card=False)
    model = load(locate(str(tmp_path / "model")), CPU32)
    own = SentenceTransformer(str(tmp_path / "model"), device="cpu").tokenizer
    for item, text in zip(model.text.encode(TEXTS), TEXTS, strict=True):
        assert item.types is not None
        assert item.types.tolist() == own(text, truncation=True, max_length=48)["token_type_ids"]
    np.testing.assert_allclose(rows(model), expected(tmp_path / "model"), atol=1e-5)
    ids = model.text.encode(TEXTS)[0]
    assert model.text.from_ids(ids.ids.tolist()).key == ids.key


def test_an_xlnet_that_classifies_is_padded_on_the_left(tmp_path: Path) -> None:
    path = tmp_path / "model"
    words = xlnet_tokenizer(path)
    AutoModelForSequenceClassification.from_config(xlnet_config(words, num_labels=3)).save_pretrained(path)
    model = load(locate(str(path)), CPU32)
    assert not model.metadata.one_by_one
    together = probabilities(model.forward(model.text.encode(TEXTS)), multi_label=False)
    library = pipeline("text-classification", str(path), device="cpu")
    for line, text in zip(together, TEXTS, strict=True):
        wanted = {entry["label"]: entry["score"] for entry in library(text, top_k=None, truncation=True)}
        np.testing.assert_allclose(line, [wanted[label] for label in model.metadata.labels], atol=1e-4)


def test_the_packed_pass_is_compared_at_the_models_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = long_encoder(tmp_path)
    right = PackedEncoder.forward

    def wrong_for_long_texts(self: PackedEncoder, batch: Any) -> NDArray[np.float32]:
        vectors = right(self, batch)
        return vectors + 10 if max(item.count for item in batch) == 512 else vectors

    monkeypatch.setattr(PackedEncoder, "forward", wrong_for_long_texts)
    model = load(locate(str(path)), CPU32)
    assert "the packed forward pass differs" in model.metadata.forward
