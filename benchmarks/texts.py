"""Made-up texts of a wanted length, all different, so that no cache can answer for the model."""

from __future__ import annotations

import random
from collections.abc import Iterator

_VOCABULARY = """
my card has not arrived yet and the app still says that it is on its way please tell me where order refund payment account
transfer bank money cash top up limit password reset phone number email address change close open new old lost stolen fee
charge exchange rate travel abroad weekend delivery parcel late broken wrong size colour return label shop store manager
invoice receipt tax month year price plan upgrade cancel trial support agent chat wait minute hour day week tomorrow
"""


def texts(words: int, seed: int = 0) -> Iterator[str]:
    """Endless texts of so many words; a word is about one token of MiniLM's."""
    chance = random.Random(seed)
    vocabulary = _VOCABULARY.split()
    while True:
        yield " ".join(chance.choices(vocabulary, k=words))
