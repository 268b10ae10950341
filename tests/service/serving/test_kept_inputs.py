"""Kept texts: how many, whose, and in which order."""

from __future__ import annotations

from typing import Any

from service.serving.kept_inputs import MAX_CHARACTERS, KeptInputs


def answer(score: float, label: str = "a") -> dict[str, Any]:
    return {"labels": [{"label": label, "score": score, "score_in_scope": score}]}


def texts(kept: KeptInputs, owner: str | None = None) -> list[str]:
    return [one.text for one in kept.least_certain(owner)]


def test_nothing_is_kept_unless_asked_for() -> None:
    kept = KeptInputs(0)
    kept.add("key-1", "m:v1", ["a"], [answer(0.5)])
    assert texts(kept) == []


def test_the_least_certain_come_first_and_the_newest_stay() -> None:
    kept = KeptInputs(3)
    kept.add("key-1", "m:v1", ["old", "sure", "unsure"], [answer(0.1), answer(0.9), answer(0.4)])
    kept.add("key-1", "m:v1", ["new"], [answer(0.6)])
    assert texts(kept) == ["unsure", "new", "sure"]


def test_a_text_that_comes_again_has_its_newest_answer() -> None:
    kept = KeptInputs(2)
    kept.add("key-1", "m:v1", ["a", "b"], [answer(0.9), answer(0.5)])
    kept.add("key-1", "m:v1", ["a"], [answer(0.2, "other")])
    assert [(one.text, one.labels[0]["label"]) for one in kept.least_certain("key-1")] == [("a", "other"), ("b", "a")]


def test_each_key_has_its_own() -> None:
    kept = KeptInputs(1)
    kept.add("key-1", "m:v1", ["a"], [answer(0.5)])
    kept.add("key-2", "m:v1", ["b"], [answer(0.4)])
    assert (texts(kept, "key-1"), texts(kept, "key-2"), texts(kept, "key-3")) == (["a"], ["b"], [])
    assert texts(kept, None) == ["b", "a"]
    kept.forget("key-2", "a")
    assert texts(kept, None) == ["b", "a"]
    kept.forget("key-1", "a")
    assert texts(kept, None) == ["b"]
    kept.forget(None, "b")
    assert texts(kept, None) == []


def test_long_texts_are_counted_alone() -> None:
    kept = KeptInputs(5)
    kept.add("key-1", "m:v1", ["x" * (MAX_CHARACTERS + 1), "short"], [answer(0.5), answer(0.5)])
    assert (texts(kept), kept.skipped) == (["short"], 1)
