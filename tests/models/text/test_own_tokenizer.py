"""Token for token the ids of the model's own tokenizer, whatever the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from tokenizers.models import Unigram
from tokenizers.normalizers import BertNormalizer, Normalizer
from tokenizers.pre_tokenizers import Metaspace
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models.source import DEFAULT_MODEL, locate
from models.text.tokenization import TextProcessor
from tests.support import tiny_models

# Surrogates are in no text: JSON cannot hold one alone.
CATEGORIES = [
    *("Cc", "Cf", "Cn", "Co", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No"),
    *("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"),
]
MANY = 10_000


def bert(*, cased: bool) -> PreTrainedTokenizerFast:
    words = tiny_models.tokenizer()
    words.backend_tokenizer.normalizer = BertNormalizer(lowercase=not cased, strip_accents=not cased)
    return words


def byte_level(normalizer: Normalizer | None) -> PreTrainedTokenizerFast:
    """As RoBERTa's, without a normalizer, or ModernBERT's, with one."""
    words = tiny_models.tokenizer(sees_whitespace=True)
    if normalizer is not None:
        words.backend_tokenizer.normalizer = normalizer
    return words


def pieces() -> PreTrainedTokenizerFast:
    """As XLM-RoBERTa's: SentencePiece's unigrams after NFKC, without special tokens."""
    vocabulary = [("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in "abcdefgé漢"), ("▁a", -1.0)]
    made = Tokenizer(Unigram(vocabulary, unk_id=0, byte_fallback=False))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")  # no password


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bert": lambda: bert(cased=False),
    "bert cased": lambda: bert(cased=True),
    "roberta": lambda: byte_level(None),
    "modernbert": lambda: byte_level(normalizers.NFC()),
    "xlm-roberta": pieces,
}
OWN = {name: make() for name, make in TOKENIZERS.items()}
OURS = {name: TextProcessor(make().backend_tokenizer, MANY) for name, make in TOKENIZERS.items()}


def of_category(name: str) -> st.SearchStrategy[str]:
    """Texts of a category's characters, and others between them."""
    characters = st.characters(categories=[name])  # type: ignore[list-item]  # one of CATEGORIES
    return st.text(characters | st.sampled_from("ae \u0301\n漢"), max_size=12)


TEXTS = {name: of_category(name) for name in CATEGORIES}  # a strategy takes longer to make than to draw from


@pytest.mark.parametrize("category", CATEGORIES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_category_of_unicode(category: str, data: st.DataObject) -> None:
    text, other = data.draw(TEXTS[category]), data.draw(TEXTS[category])
    for name, own in OWN.items():
        ours, expected = OURS[name], [own(one)["input_ids"] for one in (text, other)]
        assert [item.ids.tolist() for item in ours.encode([text, other])] == expected, name
        assert ours.encode([text])[0].ids.tolist() == ours.explain(text).ids == expected[0], name
        assert ours.encode_pairs([(text, other)])[0].ids.tolist() == own([(text, other)])["input_ids"][0], name


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "text", ["a\x1cb\x1db\x1eb\x1fb", "a\x85b", "e\u0301 cafe\u0301", "  a \t b\n\n", "\u3000a\u00a0b", "\u200b", "ﬁ Ⅳ"]
)
@pytest.mark.parametrize("prompt", ["", "ab: "])
def test_characters_that_were_read_otherwise(name: str, text: str, prompt: str) -> None:
    item = OURS[name].encode([text], prompt=prompt)[0]
    assert item.ids.tolist() == OWN[name](prompt + text)["input_ids"]


@pytest.fixture(scope="module")
def minilm() -> tuple[PreTrainedTokenizerFast, TextProcessor]:
    path: Path = locate(DEFAULT_MODEL).path
    return AutoTokenizer.from_pretrained(path), TextProcessor(Tokenizer.from_file(str(path / "tokenizer.json")), MANY)


@pytest.mark.real
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="a\x1cb\x85c e\u0301\u3000漢\u200b")
def test_minilm(minilm: tuple[PreTrainedTokenizerFast, TextProcessor], text: str) -> None:
    own, ours = minilm
    assert ours.encode([text])[0].ids.tolist() == own(text, truncation=False)["input_ids"]
