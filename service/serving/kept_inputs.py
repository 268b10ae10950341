"""A bounded sample of classified texts and images, kept in memory for review where the operator asks for it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Longer texts are counted alone: few people read them, and they would take the memory of many others.
MAX_CHARACTERS = 4096
_MAX_LABELS = 20


@dataclass(frozen=True, slots=True)
class KeptInput:
    """A text with its answer: the best labels with scores, best first. `owner` is the id of the key that sent it.

    An image is a data URI.
    """

    id: str
    owner: str
    model: str
    text: str
    is_image: bool
    labels: tuple[Mapping[str, Any], ...]
    at: float

    @property
    def score(self) -> float:
        """The probability of the best label; small where the model is least certain."""
        return float(self.labels[0]["score"])


class KeptInputs:
    """The newest `limit` texts of each key; a text that comes again replaces its earlier answer. 0 keeps none.

    Safe between threads. Nothing is written to disk, so a restart forgets all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.skipped = 0
        self._kept: dict[str, OrderedDict[tuple[str, str], KeptInput]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        owner: str,
        model: str,
        texts: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
        *,
        are_images: bool = False,
    ) -> None:
        """Keep texts, or images as data URIs, with their answers, one each, as `POST /v1/classify` gives them."""
        if not self.limit:
            return
        with self._lock:
            kept = self._kept.setdefault(owner, OrderedDict())
            for text, answer in zip(texts, answers, strict=True):
                if len(text) > MAX_CHARACTERS and not are_images:
                    self.skipped += 1
                    continue
                labels = tuple(answer["labels"][:_MAX_LABELS])
                kept.pop((model, text), None)
                kept[model, text] = KeptInput(secrets.token_hex(8), owner, model, text, are_images, labels, time.time())
            while len(kept) > self.limit:
                kept.popitem(last=False)

    def least_certain(self, owner: str | None) -> list[KeptInput]:
        """The texts of a key, or of all keys for None, with the least certain first."""
        with self._lock:
            owners = self._kept if owner is None else {owner}
            found = [one for name in owners for one in self._kept.get(name, {}).values()]
        return sorted(found, key=lambda one: one.score)

    def forget(self, owner: str | None, text: str) -> None:
        """Forget a text of a key, or of all keys for None: a person has said what its label should be."""
        with self._lock:
            for name, kept in self._kept.items():
                for place in [place for place in kept if owner in {None, name} and place[1] == text]:
                    del kept[place]
