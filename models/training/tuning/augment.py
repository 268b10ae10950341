"""Augmentation of training texts: typos, casing and dropped words. Held-out rows are never touched."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from models.training.errors import HyperparameterError
from models.training.hyperparameters import PARAM

# Neighbours on a QWERTY keyboard: how fingers slip.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEAR = {
    key: [row[place] for place in (index - 1, index + 1) if 0 <= place < len(row)]
    for row in _ROWS
    for index, key in enumerate(row)
}
_Change = Callable[[str, float, random.Random], str]


class Augmenter:
    """Changes texts at random, the same way for the same seed, epoch, position and text.

    `settings` maps names to probabilities: "typos" (per word: two letters swapped, one dropped, doubled or replaced
    by its neighbour on the keyboard), "casing" (per text: lower case, upper case, or only the first letter upper),
    "word_dropout" (per word; one word always stays). HyperparameterError for another name or a probability outside 0
    to 1.
    """

    def __init__(self, settings: Mapping[str, float], seed: int) -> None:
        for name, probability in settings.items():
            if name not in CHANGES:
                raise HyperparameterError(
                    "invalid_hyperparameter",
                    f"augmentation: expected {', '.join(CHANGES)}, got {name[:60]!r}",
                    f"{PARAM}.augmentation",
                )
            if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
                message = f"augmentation.{name}: expected a probability from 0 to 1, got {str(probability)[:60]}"
                raise HyperparameterError("invalid_hyperparameter", message, f"{PARAM}.augmentation.{name}")
        # In the order of CHANGES, so that the order of the settings does not matter.
        self._settings = {name: float(settings[name]) for name in CHANGES if settings.get(name)}
        self._seed = seed

    def __call__(self, texts: Sequence[str], *, epoch: int = 0) -> list[str]:
        """As many texts as came, each changed or left as it was; never empty."""
        return [self._changed(text, index, epoch) for index, text in enumerate(texts)]

    def _changed(self, text: str, index: int, epoch: int) -> str:
        rng = random.Random(f"{self._seed}\n{epoch}\n{index}\n{text}")
        for name, probability in self._settings.items():
            text = CHANGES[name](text, probability, rng)
        return text


def _typos(text: str, probability: float, rng: random.Random) -> str:
    return re.sub(r"\S+", lambda word: _mistyped(word[0], rng) if rng.random() < probability else word[0], text)


def _mistyped(word: str, rng: random.Random) -> str:
    """One slip of a finger; words of fewer than three letters would lose their sense."""
    if len(word) < 3:
        return word
    place = rng.randrange(len(word) - 1)
    here, after = word[place], word[place + 1]
    replaced = rng.choice(_NEAR.get(here.lower(), [here]))
    return word[:place] + rng.choice((after + here, after, here + here + after, replaced + after)) + word[place + 2 :]


def _casing(text: str, probability: float, rng: random.Random) -> str:
    if rng.random() >= probability:
        return text
    return rng.choice((str.lower, str.upper, str.capitalize))(text)


def _word_dropout(text: str, probability: float, rng: random.Random) -> str:
    words = text.split()
    kept = [word for word in words if rng.random() >= probability] or [rng.choice(words or [text])]
    return " ".join(kept) if len(kept) < len(words) else text


CHANGES: dict[str, _Change] = {"word_dropout": _word_dropout, "typos": _typos, "casing": _casing}
