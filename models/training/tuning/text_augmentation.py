"""Augmentation of training texts: typos, casing and dropped words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from models.training.errors import HyperparameterError
from models.training.hyperparameters import PARAM

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: [row[place] for place in (index - 1, index + 1) if 0 <= place < len(row)]
    for row in _KEYBOARD
    for index, key in enumerate(row)
}
_Change = Callable[[str, float, random.Random], str]


class Augmenter:
    """Changes texts at random; the same seed, epoch, position and text give the same change.

    `settings` maps names to probabilities. "typos" swaps two letters of a word, or drops, doubles or replaces one by
    its neighbour on the keyboard. "casing" makes a text lower case, upper case, or only its first letter upper.
    "word_dropout" drops a word; one always stays. Raises HyperparameterError for another name, or a probability outside
    0 to 1.
    """

    def __init__(self, settings: Mapping[str, float], seed: int) -> None:
        for name, probability in settings.items():
            _require_probability(name, probability)
        # In the order of CHANGES, so that the order of the settings does not matter.
        self._settings = {name: float(settings[name]) for name in CHANGES if settings.get(name)}
        self._seed = seed

    def __call__(self, texts: Sequence[str], *, epoch: int = 0) -> list[str]:
        """Each text, changed or as it was; never empty."""
        return [self._change(text, index, epoch) for index, text in enumerate(texts)]

    def _change(self, text: str, index: int, epoch: int) -> str:
        rng = random.Random(f"{self._seed}\n{epoch}\n{index}\n{text}")
        for name, probability in self._settings.items():
            text = CHANGES[name](text, probability, rng)
        return text


def _require_probability(name: str, probability: object) -> None:
    param = f"{PARAM}.augmentation"
    if name not in CHANGES:
        message = f"augmentation: expected {', '.join(CHANGES)}, got {name[:60]!r}"
        raise HyperparameterError("invalid_hyperparameter", message, param)
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        message = f"augmentation.{name}: expected a probability from 0 to 1, got {str(probability)[:60]}"
        raise HyperparameterError("invalid_hyperparameter", message, f"{param}.{name}")


def _add_typos(text: str, probability: float, rng: random.Random) -> str:
    return re.sub(r"\S+", lambda word: _mistype(word[0], rng) if rng.random() < probability else word[0], text)


def _mistype(word: str, rng: random.Random) -> str:
    """One typo; words of fewer than three letters would become unreadable."""
    if len(word) < 3:
        return word
    place = rng.randrange(len(word) - 1)
    letter, following = word[place], word[place + 1]
    neighbour = rng.choice(_NEIGHBOURS.get(letter.lower(), [letter]))
    slips = (following + letter, following, letter + letter + following, neighbour + following)
    return word[:place] + rng.choice(slips) + word[place + 2 :]


def _change_case(text: str, probability: float, rng: random.Random) -> str:
    if rng.random() >= probability:
        return text
    return rng.choice((str.lower, str.upper, str.capitalize))(text)


def _drop_words(text: str, probability: float, rng: random.Random) -> str:
    words = text.split()
    kept = [word for word in words if rng.random() >= probability] or [rng.choice(words or [text])]
    return " ".join(kept) if len(kept) < len(words) else text


CHANGES: dict[str, _Change] = {"word_dropout": _drop_words, "typos": _add_typos, "casing": _change_case}
