"""What is no dense encoder and no sequence classifier is refused by the name of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from models.errors import ModelSourceError
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU32 = place("cpu", "float32")
CROSS_ENCODER = "a cross-encoder without a classification head"
SPARSE, MULTI_VECTOR, CAUSAL = "a sparse encoder", "a multi-vector encoder", "a causal language model"


def causal_model(path: Path) -> Path:
    words = tiny_models.tokenizer()
    AutoModelForCausalLM.from_config(tiny_models.decoder_config(len(words))).save_pretrained(path)
    words.save_pretrained(path)
    return path


def logit_score(path: Path) -> Path:
    modules = [Transformer(str(causal_model(path / "plain")), transformer_task="text-generation"), LogitScore(5, 6)]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(path / "model"))
    return path / "model"


def splade(path: Path) -> Path:
    words, plain = tiny_models.tokenizer(), path / "plain"
    AutoModelForMaskedLM.from_config(tiny_models.config("bert", len(words))).save_pretrained(plain)
    words.save_pretrained(plain)
    modules = [Transformer(str(plain), transformer_task="fill-mask"), SpladePooling()]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(path / "model"))
    return path / "model"


def multi_vector(path: Path) -> Path:
    MultiVectorEncoder(str(tiny_models.transformer(path / "plain")), device="cpu").save_pretrained(str(path / "model"))
    return path / "model"


@pytest.mark.parametrize(
    ("make", "kind"),
    [(causal_model, CAUSAL), (logit_score, CROSS_ENCODER), (splade, SPARSE), (multi_vector, MULTI_VECTOR)],
)
def test_other_kinds_as_their_libraries_save_them(tmp_path: Path, make: Callable[[Path], Path], kind: str) -> None:
    path = make(tmp_path / "there")
    with pytest.raises(ModelSourceError, match=f"{path.name}: expected a dense encoder.*, got {kind}"):
        locate(str(path))


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("CrossEncoder", CROSS_ENCODER),
        ("SparseEncoder", SPARSE),
        ("MultiVectorEncoder", MULTI_VECTOR),
        ("ColBERT", MULTI_VECTOR),
    ],
)
def test_sentence_transformers_configuration_says_the_kind(tmp_path: Path, model_type: str, kind: str) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    about = path / "config_sentence_transformers.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "model_type": model_type}))
    with pytest.raises(ModelSourceError, match=kind):
        locate(str(path))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("HF_ColBERT", MULTI_VECTOR),
        ("LlamaForCausalLM", CAUSAL),
        ("GPT2LMHeadModel", CAUSAL),
        ("T5ForConditionalGeneration", "a generating language model"),
        ("BertForTokenClassification", "a token classifier"),
        ("BertForQuestionAnswering", "a model for question answering"),
    ],
)
def test_the_architecture_of_a_plain_directory_says_the_kind(tmp_path: Path, architecture: str, kind: str) -> None:
    path = tiny_models.transformer(tmp_path / "model")
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": [architecture]}))
    with pytest.raises(ModelSourceError, match=kind):
        locate(str(path))


def test_a_timm_checkpoint_is_refused_with_what_to_take_instead(tmp_path: Path) -> None:
    about = {"architecture": "vit_small_patch14_dinov2.lvd142m", "num_classes": 0}
    (tmp_path / "config.json").write_text(json.dumps(about))
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelSourceError, match=r"got a timm checkpoint .*transformers directory.*sonde export"):
        locate(str(tmp_path))


def test_a_language_model_with_pooling_is_a_dense_encoder(tmp_path: Path) -> None:
    path = tiny_models.encoder(tmp_path / "model")
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["Qwen3ForCausalLM"]}))
    assert load(locate(str(path)), CPU32).metadata.task == "embedding"


def test_a_cross_encoder_with_a_classification_head_reranks(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    CrossEncoder(str(tiny_models.cross_encoder(tmp_path / "model")), device="cpu").save_pretrained(str(path))
    assert json.loads((path / "config_sentence_transformers.json").read_text())["model_type"] == "CrossEncoder"
    assert load(locate(str(path)), CPU32).metadata.task == "rerank"


def test_a_cross_encoder_with_a_default_prompt_is_refused(tmp_path: Path) -> None:
    path, plain = tmp_path / "saved", tiny_models.cross_encoder(tmp_path / "model")
    CrossEncoder(
        str(plain), device="cpu", prompts={"query": "find: ", "none": ""}, default_prompt_name="query"
    ).save_pretrained(str(path))
    with pytest.raises(ModelSourceError, match="got a cross-encoder with a default prompt"):
        locate(str(path))
    about = path / "config_sentence_transformers.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "default_prompt_name": "none"}))
    assert load(locate(str(path)), CPU32).metadata.task == "rerank"
