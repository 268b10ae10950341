"""Augmentation is seeded, and stays within its probabilities."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.training.errors import HyperparameterError
from models.training.tuning.text_augmentation import Augmenter

TEXTS = [f"please tell me where my card number {number} has gone" for number in range(200)]
ALL = {"typos": 0.3, "casing": 0.3, "word_dropout": 0.3}


def test_the_same_seed_gives_the_same_texts_and_another_gives_others() -> None:
    assert Augmenter(ALL, 1)(TEXTS) == Augmenter(dict(reversed(ALL.items())), 1)(TEXTS)
    assert Augmenter(ALL, 1)(TEXTS) != Augmenter(ALL, 2)(TEXTS)
    assert Augmenter(ALL, 1)(TEXTS, epoch=1) != Augmenter(ALL, 1)(TEXTS, epoch=2)


def test_nothing_asked_for_changes_nothing() -> None:
    assert Augmenter({}, 1)(TEXTS) == TEXTS
    assert Augmenter({"typos": 0.0, "casing": 0, "word_dropout": 0.0}, 1)(TEXTS) == TEXTS


def test_dropped_words_follow_their_probability_and_keep_their_order() -> None:
    made = Augmenter({"word_dropout": 0.25}, 1)(TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    assert 0.20 < 1 - sum(len(text.split()) for text in made) / words < 0.30
    assert made[0].split() == [word for word in TEXTS[0].split() if word in made[0].split()]
    assert all(Augmenter({"word_dropout": 1.0}, 1)(TEXTS))


def test_typos_follow_their_probability_and_change_one_slip_a_word() -> None:
    made = Augmenter({"typos": 0.2}, 1)(TEXTS)
    pairs = [
        (a, b) for one, other in zip(TEXTS, made, strict=True) for a, b in zip(one.split(), other.split(), strict=True)
    ]
    changed = [(a, b) for a, b in pairs if a != b]
    assert 0.1 < len(changed) / len(pairs) < 0.22
    assert all(abs(len(a) - len(b)) <= 1 for a, b in changed)


def test_typos_leave_whitespace_as_it_is() -> None:
    for seed in range(50):
        [made] = Augmenter({"typos": 1.0}, seed)(["3\x85\x1d  one two"])
        assert re.findall(r"\s+", made) == ["\x85\x1d  ", " "]


def test_casing_changes_nothing_but_case() -> None:
    made = Augmenter({"casing": 0.5}, 1)(TEXTS)
    assert [text.casefold() for text in made] == [text.casefold() for text in TEXTS]
    assert any(text.isupper() for text in made)


@example(["3\x85\x1d"], 4)
@given(st.lists(st.text(min_size=1).filter(lambda text: bool(text.strip())), max_size=5), st.integers())
def test_as_many_texts_come_back_and_none_is_empty(texts: list[str], seed: int) -> None:
    made = Augmenter({"typos": 1.0, "casing": 1.0, "word_dropout": 1.0}, seed)(texts)
    assert len(made) == len(texts)
    assert all(text.strip() for text in made)


@pytest.mark.parametrize(
    "settings", [{"synonyms": 0.1}, {"typos": 1.5}, {"typos": -0.1}, {"casing": float("nan")}, {"typos": True}]
)
def test_unknown_names_and_bad_probabilities_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(HyperparameterError, match="augmentation") as caught:
        Augmenter(settings, 1)
    assert caught.value.code == "invalid_hyperparameter"
    assert str(caught.value.param).startswith("method.supervised.hyperparameters.augmentation")
