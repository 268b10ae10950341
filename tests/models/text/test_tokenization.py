"""Tokenization: the tokenizer's own ids, cut where the model ends, never in silence."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from models.errors import BadTokens, TextTooLong
from models.text.tokenization import Side, TextProcessor, require_untruncated
from tests.support import tiny_models

SIDES: tuple[Side, ...] = ("left", "right")


@pytest.fixture
def text() -> TextProcessor:
    return TextProcessor(tiny_models.tokenizer().backend_tokenizer, max_tokens=10)


def test_ids_are_the_tokenizers_own(text: TextProcessor) -> None:
    texts = ["a card", "the café", "?"]
    expected = [tiny_models.tokenizer()(one)["input_ids"] for one in texts]
    assert [item.ids.tolist() for item in text.encode(texts)] == expected


def test_a_text_alone_has_the_tokens_it_has_among_others(text: TextProcessor) -> None:
    texts = ["a card", "the café", "?", "a b c d e f g h i j k l"]
    alone = [text.encode([one])[0] for one in texts]
    assert [(one.key, one.available) for one in alone] == [(one.key, one.available) for one in text.encode(texts)]


@pytest.mark.parametrize(("side", "kept"), [("right", "abcdefgh"), ("left", "efghijkl")])
def test_truncation_keeps_the_special_tokens_and_says_so(text: TextProcessor, side: str, kept: str) -> None:
    item = text.encode(["a b c d e f g h i j k l"], side=side)[0]  # type: ignore[arg-type]
    seen = text.explain(" ".join(kept))
    assert item.ids.tolist() == seen.ids
    assert (item.count, item.available, item.truncated) == (10, 14, True)


def test_a_text_that_just_fits_is_not_truncated(text: TextProcessor) -> None:
    item = text.encode(["a b c d e f g h"])[0]
    assert (item.count, item.truncated) == (10, False)


def test_a_caller_may_ask_for_fewer_tokens_but_not_for_more(text: TextProcessor) -> None:
    assert text.encode(["a b c d"], max_tokens=3)[0].count == 5, "three, and the two special ones"
    assert text.encode(["a b c d"], max_tokens=3, prompt="e f ")[0].count == 7, "the prompt is not the caller's text"
    assert text.encode(["a b c d e f g h i j k l"], max_tokens=99)[0].count == 10


def test_a_megabyte_is_read_no_further_than_needed_and_gives_the_same_ids(text: TextProcessor) -> None:
    long = "the card is lost and so on " * 40_000
    began = time.process_time()
    item = text.encode([long])[0]
    assert time.process_time() - began < 0.25
    assert item.truncated
    assert item.ids.tolist() == text.encode([long[:200]])[0].ids.tolist()
    assert text.encode([long], side="left")[0].ids.tolist() == text.encode([long[-200:]], side="left")[0].ids.tolist()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("sign", ["!", "漢", "a?"])
def test_neither_is_one_without_whitespace(text: TextProcessor, side: Side, sign: str) -> None:
    began = time.process_time()
    item = text.encode([sign * 1_000_000], side=side)[0]
    assert time.process_time() - began < 0.25
    assert item.truncated
    assert item.ids.tolist() == text.encode([sign * 20], side=side)[0].ids.tolist()


@pytest.mark.parametrize("words", [12, 100_000])
def test_the_prompt_stays_where_a_text_is_cut_from_the_left(text: TextProcessor, words: int) -> None:
    item = text.encode(["the card is lost " * words + "a b c"], prompt="b c ", exclude_prompt=True, side="left")[0]
    whole = text.explain("the card is lost " * 3 + "a b c", prompt="b c ").ids
    assert item.ids.tolist() == whole[:3] + whole[-7:]
    assert (item.count, item.prompt_tokens, item.truncated) == (10, 3, True)


def test_a_prompt_longer_than_the_limit_is_cut_as_well(text: TextProcessor) -> None:
    left, right = (text.encode(["a"], prompt="b " * 20, side=side)[0] for side in SIDES)
    assert left.ids.tolist() == right.ids.tolist() == text.encode(["b " * 8])[0].ids.tolist()


@pytest.mark.parametrize("unit", ["漢a", "\u0315\u0327", "QUFB"])
def test_of_a_word_without_end_only_a_part_is_read(text: TextProcessor, unit: str) -> None:
    endless = unit * 2_000_000
    began = time.thread_time()
    tracemalloc.start()
    right, left = (text.encode([endless if side == "left" else f"card {endless}", "a"], side=side)[0] for side in SIDES)
    (pair,) = text.encode_pairs([("card", endless)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [right.truncated, left.truncated, pair.truncated] == [True] * 3
    assert time.thread_time() - began < 1
    assert peak < 50_000_000
    with pytest.raises(TextTooLong, match="at least 11 tokens, the limit is"):
        require_untruncated(text.encode([f"card {'a' * 1_000_000}"]))


def test_whitespace_around_a_text_is_not_what_is_read_of_it(text: TextProcessor) -> None:
    for around in (" ", "\n\t"):
        item = text.encode([around * 1_000_000 + "card" + around * 1_000_000])[0]
        assert item.ids.tolist() == text.encode(["card"])[0].ids.tolist()
        assert not item.truncated


def test_words_longer_than_the_window_are_read_whole(text: TextProcessor) -> None:
    # One unknown token each, so that the first window alone would look like a text that fits.
    long = " ".join("a" * 300 for _ in range(30))
    assert text.encode([long])[0].truncated


def test_a_prompt_is_part_of_the_text(text: TextProcessor) -> None:
    item = text.encode(["a"], prompt="the card ")[0]
    assert item.ids.tolist() == text.encode(["the card a"])[0].ids.tolist()
    assert item.prompt_tokens == 0


def test_a_prompt_left_out_of_pooling_is_counted(text: TextProcessor) -> None:
    skipped, plain = text.encode(["a"], prompt="the ", exclude_prompt=True)[0], text.encode(["the a"])[0]
    assert skipped.prompt_tokens == 2  # [CLS] and "the"
    assert skipped.key != plain.key


def test_pairs_are_one_input_with_types(text: TextProcessor) -> None:
    item = text.encode_pairs([("a b", "c")])[0]
    expected = tiny_models.tokenizer()("a b", "c", return_token_type_ids=True)
    assert item.ids.tolist() == expected["input_ids"]
    assert item.types is not None
    assert item.types.tolist() == expected["token_type_ids"]


def test_long_pairs_keep_some_of_both_texts(text: TextProcessor) -> None:
    item = text.encode_pairs([("a b c d e f", "g h i j k l")])[0]
    assert (item.count, item.available, item.truncated) == (10, 15, True)
    assert item.types is not None
    assert item.types.tolist() == [0] * 6 + [1] * 4
    short = text.encode_pairs([("a", "g h i j k l m n o p")])[0]
    assert short.types is not None
    assert (short.count, short.types.tolist().count(0)) == (10, 3)


def test_ids_with_and_without_special_tokens_mean_the_same(text: TextProcessor) -> None:
    whole = text.encode(["a card"])[0]
    assert text.from_ids(whole.ids.tolist()).key == whole.key
    assert text.from_ids(whole.ids.tolist()[1:-1]).key == whole.key


def test_too_many_ids_are_cut(text: TextProcessor) -> None:
    item = text.from_ids([6] * 20)
    assert (item.count, item.available, item.ids.tolist()[-1]) == (10, 22, 3)


@pytest.mark.parametrize("wrong", [10_000_000, -1])
def test_ids_outside_the_vocabulary_are_refused(text: TextProcessor, wrong: int) -> None:
    with pytest.raises(BadTokens, match=f"0 to {text.vocabulary - 1}.*{wrong}"):
        text.from_ids([5, wrong])
    with pytest.raises(BadTokens):
        text.decode([wrong])


def test_explain_shows_what_the_model_sees(text: TextProcessor) -> None:
    seen = text.explain("  A   card ", prompt="the ")
    assert seen.text == "the   A   card "
    assert seen.tokens == ["[CLS]", "the", "a", "card", "[SEP]"]
    assert seen.special == [True, False, False, False, True]
    assert [seen.text[start:stop] for start, stop in seen.offsets[1:-1]] == ["the", "A", "card"]


def test_decode_reverses_encode(text: TextProcessor) -> None:
    assert text.decode(text.encode(["the card"])[0].ids.tolist()) == "the card"


def test_require_untruncated_names_the_text_its_tokens_and_the_limit(text: TextProcessor) -> None:
    items = text.encode(["a", "a b c d e f g h i j"])
    with pytest.raises(TextTooLong, match=r"input\[1\] has at least 12 tokens, the limit is 10") as caught:
        require_untruncated(items)
    assert caught.value.param == "input[1]"
    require_untruncated(items[:1])


def test_keys_differ_between_a_pair_and_a_text_of_the_same_ids(text: TextProcessor) -> None:
    pair = text.encode_pairs([("a", "b")])[0]
    assert text.from_ids(pair.ids.tolist()).key != pair.key
