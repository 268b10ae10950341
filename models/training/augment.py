"""Augmentation of training texts: typos, casing and dropped words. Held-out rows are never touched, nor ever made."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence

from models.training.errors import HyperparameterError
from models.training.hyperparameters import PARAM
from models.training.rows import Rows, normalised

# Neighbours on a QWERTY keyboard: how fingers slip.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEAR = {key: [row[place] for place in (index - 1, index + 1) if 0 <= place < len(row)] for row in _ROWS for index, key in enumerate(row)}
_Change = Callable[[str, float, random.Random], str]


class Augmenter:
    """Changes texts at random, the same way for the same seed, epoch, position and text.

    `settings` maps names to probabilities: "typos" (per word: two letters swapped, one dropped, doubled or replaced by its neighbour on the
    keyboard), "casing" (per text: lower case, upper case, or only the first letter upper), "word_dropout" (per word; one word always
    stays). HyperparameterError for another name or a probability outside 0 to 1.
    """

    def __init__(self, settings: Mapping[str, float], seed: int) -> None:
        for name, probability in settings.items():
            if name not in CHANGES:
                raise HyperparameterError(
                    "invalid_hyperparameter", f"augmentation: expected {', '.join(CHANGES)}, got {name[:60]!r}", f"{PARAM}.augmentation"
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

    def extend(self, train: Rows, *, copies: int = 1, held_out: Rows | None = None) -> Rows:
        """The training rows followed by up to `copies` changed copies of each; their `lines` are those of the originals.

        A copy that repeats its original, or whose text the held-out part has, is left out: augmentation must not make a leak.
        """
        kept = {normalised(text) for column in held_out.texts for text in column} if held_out is not None else set()
        made = train
        for copy in range(1, copies + 1):
            columns = [self(column, epoch=copy) for column in train.texts]
            made = _joined(made, _useful(train, columns, kept))
        return made

    def _changed(self, text: str, index: int, epoch: int) -> str:
        rng = random.Random(f"{self._seed}\n{epoch}\n{index}\n{text}")
        for name, probability in self._settings.items():
            text = CHANGES[name](text, probability, rng)
        return text


def _useful(train: Rows, columns: list[list[str]], kept: Collection[str]) -> Rows:
    changed = Rows(train.kind, columns, train.labels, train.scores, train.lines, train.notes)
    originals, copies = list(zip(*train.texts, strict=True)), list(zip(*columns, strict=True))
    return changed.take(
        [
            index
            for index, copy in enumerate(copies)
            if copy != originals[index] and not any(normalised(text) in kept for text in copy if kept)
        ]
    )


def _joined(one: Rows, other: Rows) -> Rows:
    return Rows(
        kind=one.kind,
        texts=[[*first, *second] for first, second in zip(one.texts, other.texts, strict=True)],
        labels=[*one.labels, *other.labels] if one.labels is not None and other.labels is not None else None,
        scores=[*one.scores, *other.scores] if one.scores is not None and other.scores is not None else None,
        lines=[*one.lines, *other.lines],
        notes=one.notes,
    )


def _typos(text: str, probability: float, rng: random.Random) -> str:
    return " ".join(_mistyped(word, rng) if rng.random() < probability else word for word in text.split(" "))


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
