"""Tokenizers made to hang or to explode are refused in time; those of any known kind are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.processors import TemplateProcessing

from models import tokenizer_probe
from models.errors import ModelError, ModelSourceError
from models.source import locate
from models.text.tokenization import TextProcessor
from models.tokenizer_probe import require_quick_tokenizer
from tests.support import tiny_models

pytestmark = pytest.mark.slow

GPT = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def words() -> Tokenizer:
    return Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))


def split(pattern: str) -> Tokenizer:
    made = words()
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return made


def replace(pattern: str | Regex, content: str, times: int = 1) -> Tokenizer:
    made = words()
    made.normalizer = normalizers.Sequence([normalizers.Replace(pattern, content)] * times)
    return made


def template(special: int) -> Tokenizer:
    made = words()
    made.post_processor = TemplateProcessing(single="[UNK] " * special + "$A", special_tokens=[("[UNK]", 0)])
    return made


def long_words(most: int) -> Tokenizer:
    return Tokenizer(WordPiece({"[UNK]": 0, "a": 1, "##a": 2}, unk_token="[UNK]", max_input_chars_per_word=most))


BOMBS: dict[str, Callable[[], Tokenizer]] = {
    "a regular expression": lambda: split("(a+)+b"),
    "one of other letters": lambda: split("(xy|xyxy)+ü"),
    "one of a normalizer": lambda: replace(Regex("(k+)+b"), "x"),
    "replacements that multiply": lambda: replace("a", "a" * 10, times=9),
    "a template": lambda: template(100_000),
    "words without end": lambda: long_words(10**9),
}
HARMLESS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": lambda: tiny_models.tokenizer().backend_tokenizer,
    "bytes": lambda: tiny_models.tokenizer(sees_whitespace=True).backend_tokenizer,
    "a regular expression": lambda: split(GPT),
    "replacements": lambda: replace(" ", "▁"),
    "Unigram": lambda: Tokenizer(Unigram([("<unk>", 0.0), *(("a" * size, -1.0) for size in range(1, 17))], 0)),
    "BPE": lambda: Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_tokenizer_made_to_hang_or_explode_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_probe, "_TIMEOUT_S", 1.5)
    BOMBS[name]().save(str(tmp_path / "tokenizer.json"))
    began = time.monotonic()
    with pytest.raises(ModelSourceError, match=r"tokenizer\.json: expected a tokenizer that reads short texts"):
        require_quick_tokenizer(tmp_path)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("name", HARMLESS)
def test_a_tokenizer_of_a_known_kind_is_not(tmp_path: Path, name: str) -> None:
    HARMLESS[name]().save(str(tmp_path / "tokenizer.json"))
    require_quick_tokenizer(tmp_path)


def test_a_tokenizer_is_probed_again_where_its_bytes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[Path] = []
    monkeypatch.setattr(tokenizer_probe, "_probe", probed.append)
    monkeypatch.setattr(tokenizer_probe, "_passed", set())
    for number, content in enumerate(("{}", "{}", "{ }")):
        (path := tmp_path / str(number) / "tokenizer.json").parent.mkdir()
        path.write_text(content)
        require_quick_tokenizer(path.parent)
    assert [path.parent.name for path in probed] == ["0", "2"]


def test_a_tokenizer_that_was_refused_is_refused_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_probe, "_probe", lambda path: "this one fails")
    (tmp_path / "tokenizer.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(ModelSourceError, match="this one fails"):
            require_quick_tokenizer(tmp_path)


def test_a_hundred_thousand_added_tokens_are_read_in_time(tmp_path: Path) -> None:
    made = words()
    made.add_tokens([AddedToken(f"<token {number}>") for number in range(100_000)])
    made.save(str(tmp_path / "tokenizer.json"))
    require_quick_tokenizer(tmp_path)


def test_a_model_is_located_only_with_a_quick_tokenizer(tmp_path: Path) -> None:
    model = tiny_models.encoder(tmp_path / "model")
    locate(str(model))
    settings = json.loads((model / "tokenizer.json").read_text())
    settings["model"]["max_input_chars_per_word"] = 10**9
    (model / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ModelSourceError, match=r"max_input_chars_per_word is 1,000,000,000, 1,000 are allowed"):
        locate(str(model))


@pytest.mark.parametrize("texts", [["a" * 60], ["a" * 60, "b"], ["a" * 2000]])
def test_a_panic_of_the_tokenizer_is_an_error_of_the_model(texts: list[str]) -> None:
    text = TextProcessor(split("(a+)+c"), max_tokens=10)
    for read in (text.encode, lambda these: text.encode_pairs([(one, one) for one in these])):
        with pytest.raises(ModelError, match="the model's tokenizer failed"):
            read(texts)
    with pytest.raises(ModelError, match="the model's tokenizer failed"):
        text.explain(texts[0])
