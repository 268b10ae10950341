"""Tiny random models, made by the tests: every architecture and pooling that matters, none of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import CNN, Pooling
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    MobileBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

Architecture = Literal["bert", "mpnet", "roberta", "xlm-roberta", "distilbert", "modernbert"]
ARCHITECTURES: tuple[Architecture, ...] = ("bert", "mpnet", "xlm-roberta", "distilbert", "modernbert")
WIDTH = 32
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'éüß漢字"


def tokenizer(*, sees_whitespace: bool = False) -> PreTrainedTokenizerFast:
    """Word pieces of single letters, as BERT's; or bytes, to which whitespace matters, as ModernBERT's."""
    if sees_whitespace:
        vocabulary = {name: index for index, name in enumerate([*_SPECIAL, *sorted(ByteLevel.alphabet())])}
        made = Tokenizer(BPE(vocabulary, [], unk_token="[UNK]"))
        made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    else:
        pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), "the", "card", "##ing"]
        made = Tokenizer(WordPiece({name: index for index, name in enumerate([*_SPECIAL, *pieces])}, unk_token="[UNK]"))
        made.normalizer = BertNormalizer(lowercase=True)
        made.pre_tokenizer = BertPreTokenizer()
    ids = [(name, _SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


def config(architecture: Architecture, vocabulary: int, **more: Any) -> Any:
    """Two small layers of an architecture."""
    common = {"vocab_size": vocabulary, "pad_token_id": 0, "max_position_embeddings": 80, **more}
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if architecture == "distilbert":
        return DistilBertConfig(dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=64, **common)
    if architecture == "modernbert":
        local = {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3}
        return ModernBertConfig(**shape, **local, **common)
    kinds: dict[str, Any] = {
        "bert": BertConfig,
        "mpnet": MPNetConfig,
        "roberta": RobertaConfig,
        "xlm-roberta": XLMRobertaConfig,
    }
    return kinds[architecture](**shape, **common)


def transformer(path: Path, architecture: Architecture = "bert", *, sees_whitespace: bool = False, **more: Any) -> Path:
    """A plain transformers directory, without sentence-transformers' files."""
    torch.manual_seed(0)
    words = tokenizer(sees_whitespace=sees_whitespace)
    AutoModel.from_config(config(architecture, len(words), **more)).save_pretrained(path)
    words.save_pretrained(path)
    return path


def encoder(
    path: Path,
    architecture: Architecture = "bert",
    *,
    pooling: str = "mean",
    dense: int = 0,
    normalize: bool = False,
    include_prompt: bool = True,
    prompts: dict[str, str] | None = None,
    default_prompt: str | None = None,
    sees_whitespace: bool = False,
) -> Path:
    """A sentence-transformers directory."""
    plain = transformer(path.parent / f"{path.name}-plain", architecture, sees_whitespace=sees_whitespace)
    modules: list[torch.nn.Module] = [Transformer(str(plain), max_seq_length=48)]
    modules.append(Pooling(WIDTH, pooling_mode=pooling, include_prompt=include_prompt))
    if dense:
        modules.append(Dense(WIDTH, dense))
    if normalize:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, prompts=prompts or {}, default_prompt_name=default_prompt).save_pretrained(
        str(path), create_model_card=False
    )
    return path


def roughen(path: Path, gain: float = 8) -> Path:
    """Give a model weights as unequal as trained ones: fresh ones attend to all alike, and their biases are 0 and
    their norms 1.
    """
    chance = torch.Generator().manual_seed(1)
    weights = load_file(path / "model.safetensors")
    rough = {
        name: gain * old if old.dim() > 1 else old + 0.2 * torch.randn(old.shape, generator=chance)
        for name, old in weights.items()
    }
    save_file(rough, path / "model.safetensors", {"format": "pt"})
    return path


def classifier(
    path: Path, labels: tuple[str, ...] = ("good", "bad", "odd"), *, spread: float = 1.0, **more: Any
) -> Path:
    """A sequence classifier; with one label, a cross-encoder. `spread` is that of its weights: 1 gives different
    texts clearly different scores, and is too much to be trained."""
    torch.manual_seed(0)
    words = tokenizer()
    names = dict(enumerate(labels))
    made = config("bert", len(words), id2label=names, label2id={name: index for index, name in names.items()}, **more)
    made.initializer_range = spread
    AutoModelForSequenceClassification.from_config(made).save_pretrained(path)
    words.save_pretrained(path)
    return path


def cross_encoder(path: Path, *, spread: float = 1.0) -> Path:
    """A reranker."""
    return classifier(path, ("relevance",), spread=spread)


def decoder_config(vocabulary: int, **more: Any) -> GPT2Config:
    """Two small layers of a decoder, with weights that give different texts different answers."""
    shape = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 80, "initializer_range": 0.5}
    return GPT2Config(vocab_size=vocabulary, bos_token_id=2, eos_token_id=3, **shape, **more)


def decoder_classifier(path: Path, *, pad_token_id: int | None, tokenizer_pads: bool = False) -> Path:
    """A decoder that classifies by a text's last token, with a padding token in its configuration alone."""
    torch.manual_seed(0)
    words = tokenizer()
    if not tokenizer_pads:
        words.pad_token = None
    made = decoder_config(len(words), num_labels=3, pad_token_id=pad_token_id)
    AutoModelForSequenceClassification.from_config(made).save_pretrained(path)
    words.save_pretrained(path)
    return path


def mobilebert(path: Path) -> Path:
    """An encoder that reads each token with its neighbours, padding included."""
    torch.manual_seed(0)
    words = tokenizer()
    made = MobileBertConfig(
        vocab_size=len(words), hidden_size=WIDTH, embedding_size=WIDTH, intra_bottleneck_size=WIDTH,
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=80, pad_token_id=0,
    )  # fmt: skip
    network = AutoModel.from_config(made)
    # Trained models have one, too; a fresh one has zeros.
    torch.nn.init.normal_(network.embeddings.word_embeddings.weight, std=0.5)
    network.save_pretrained(path / "plain")
    words.save_pretrained(path / "plain")
    modules = [Transformer(str(path / "plain"), max_seq_length=48), Pooling(WIDTH, pooling_mode="mean")]
    SentenceTransformer(modules=modules).save_pretrained(str(path / "model"), create_model_card=False)
    return path / "model"


def convolution(path: Path) -> Path:
    """An encoder with a convolution over tokens, padding included."""
    plain = transformer(path / "plain")
    modules = [Transformer(str(plain), max_seq_length=48), CNN(WIDTH, 8, [1, 3]), Pooling(16, pooling_mode="mean")]
    SentenceTransformer(modules=modules).save_pretrained(str(path / "model"), create_model_card=False)
    return path / "model"
