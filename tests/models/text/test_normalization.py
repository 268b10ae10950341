"""Normalization: unicodedata's own results, in linear time for any text."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text import normalization
from models.text.normalization import Form, normalize
from models.text.tokenization import TextProcessor
from models.training.data.rows import normalized
from tests.support import tiny_models

TEXT = TextProcessor(tiny_models.tokenizer().backend_tokenizer, 10**6)  # reads all of a text
FORMS: tuple[Form, ...] = get_args(Form)
# Marks of several classes; characters that decompose to marks, in every form or in NFKC alone; letters between them.
_MARKS = "\u0300\u0301\u0315\u0327\u0345\u05b0\u0344\u0f73\u0f81\uff9e\uff9f\u3099\U0001d165\U0001e8d0"
_TEXTS = st.text() | st.text(st.sampled_from(_MARKS), min_size=25, max_size=80)
_HOSTILE = {
    "two classes": "a" + "\u0315" * 37_500 + "\u0327" * 37_500,
    "two classes by turns": "a" + "\u0315\u0327" * 37_500,
    "without a letter": "\u0315" * 37_500 + "\u0327" * 37_500,
    "marks that decompose": "a" + "\u0f73" * 50_000,
    "marks in NFKC alone": "a" + "\uff9e\u0327" * 37_500,
    "marks that compose": "a" + "\u0301\u0327" * 37_500,
    "beyond the basic plane": "a" + "\U0001d165\U0001e8d0" * 18_750,
    "just long enough": ("a" + "\u0315" * 15 + "\u0327" * 15) * 2_400,
    "just not long enough": ("a" + "\u0315" * 15 + "\u0327" * 14) * 2_500,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@given(texts=st.lists(_TEXTS | st.sampled_from(["a", "\u1100", "か", "\U0001f600" * 40])))
def test_the_result_is_unicodedatas_own(form: Form, texts: list[str]) -> None:
    text = "".join(texts)
    assert normalize(form, text) == unicodedata.normalize(form, text)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_character_before_and_after_marks(form: Form) -> None:
    marks, characters = "\u0315\u0327\u0f73" * 10, list(filter(_stands_for_itself, range(normalization._NO_MARKS)))
    for start in range(0, len(characters), 64):
        text = "".join(f"{chr(code)}{marks}" for code in characters[start : start + 64])
        assert normalize(form, text) == unicodedata.normalize(form, text), hex(characters[start])


def _stands_for_itself(code: int) -> bool:
    """Whether it is a character; of 39,000 ideographs and syllables of Hangul, which are alike, one in 16."""
    name = unicodedata.name(chr(code), "")
    return bool(name) and (code % 16 == 0 or not name.startswith(("CJK UNIFIED", "HANGUL SYLLABLE")))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_no_marks_are_overlooked_beyond_the_planes_read(form: Form) -> None:
    beyond = "".join(map(chr, range(normalization._NO_MARKS, sys.maxunicode + 1)))
    assert not any(map(unicodedata.combining, unicodedata.normalize(form, beyond)))


def _seconds(call: Callable[[str], object], text: str) -> float:
    """The processor time of the best of three, so that other work on the machine does not count."""
    times = []
    for _ in range(3):
        began = time.process_time()
        call(text)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("call", [lambda text: TEXT.encode([text]), normalized], ids=["serving", "training"])
@pytest.mark.parametrize("text", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_texts_take_linear_time(call: Callable[[str], object], text: str) -> None:
    call("é")
    half, whole = _seconds(call, text[: len(text) // 2]), _seconds(call, text)
    assert whole < 0.25
    assert whole < 2.5 * half + 0.02
