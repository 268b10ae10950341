"""Rows know their kind, and which texts count as the same."""

from __future__ import annotations

import pytest

from models.training.data.rows import TextRows, columns_of, group_keys, normalized


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("My card is LOST!", "my card is lost"),
        ("ﬁne  day", "fine day"),
        ("Straße", "STRASSE"),
        ("a\tb\n", "a b"),
        ("wait...", "wait"),
    ],
)
def test_case_punctuation_and_whitespace_do_not_make_another_text(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


def test_texts_without_words_are_still_told_apart() -> None:
    assert normalized("?!") != normalized("👍")
    assert normalized("漢字") != normalized("字漢")


def test_taking_rows_keeps_columns_together() -> None:
    rows = TextRows("scored", [["a", "b", "c"], ["x", "y", "z"]], None, [0.0, 0.5, 1.0], [2, 3, 4])
    taken = rows.take([2, 0])
    assert (taken.texts, taken.scores, taken.lines) == ([["c", "a"], ["z", "x"]], [1.0, 0.0], [4, 2])
    assert len(taken) == 2


def test_columns_that_do_not_fit_the_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 columns"):
        TextRows("pairs", [["a"]], None, None, [1])
    with pytest.raises(ValueError, match="do not fit"):
        TextRows("labelled", [["a"]], None, None, [1])
    with pytest.raises(ValueError, match="equal lengths"):
        TextRows("labelled", [["a", "b"]], ["x"], None, [1, 2])


def test_groups_are_the_query_the_anchor_or_both_sentences() -> None:
    scored = TextRows("scored", [["A", "b"], ["B", "a!"]], None, [1.0, 0.0], [1, 2])
    relevance = TextRows("relevance", [["Q", "q?"], ["d", "e"]], None, [1.0, 0.0], [1, 2])
    assert len(set(group_keys(scored))) == 1
    assert group_keys(relevance) == ["q", "q"]
    assert columns_of("relevance") == ("query", "document", "label")
