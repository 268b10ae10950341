"""Made-up texts, every one different, so that no cache can answer for the model."""

from __future__ import annotations

import random

from service.bench.lengths import Lengths

# Each is one token of BERT's English vocabulary.
_VOCABULARY = """
my card has not arrived yet and the app still says that it is on its way please tell me where order payment account transfer bank
money cash top up limit password reset phone number email address change close open new old lost stolen fee charge exchange rate
travel abroad weekend delivery parcel late broken wrong size colour return label shop store manager receipt tax month year price
plan upgrade cancel trial support agent chat wait minute hour day week tomorrow a an any ask at back bad bill book box buy by call
can cheap city clear clock code cost country credit customer date did do does double down due early extra fast find first form
found free from full get give good had hand help here hold home hotel how if in into item job just keep know last law leave left
less letter link list little live look made make many map may member might mine more most much must name near need never next nice
no none note now off offer office often one only or other our out over own page pass past pay people person pick place point post
pound press problem proof pull push put quick rather read ready real reason record red report request right road room round run
safe said same save second see sell send sent service set she should show sign simple since sit six small so some soon speak spend
start state station stay stop street such sure switch system talk team ten test than thank their them then there these they thing
think this those three through time today together told too town train try turn two type under until upon us use user very view
visit want was watch web well went were what when which while who why will with within without word work would write yes yesterday
you your zone
"""
WORDS = tuple(_VOCABULARY.split())
# Longer ones are different by chance: with six words there are 10^15 of them.
_SURELY_DIFFERENT = 6
_TRIES = 20


class Texts:
    """An endless source of texts of a distribution of lengths; the same seed gives the same texts."""

    def __init__(self, lengths: Lengths, seed: int = 0, repeat_share: float = 0.0) -> None:
        """`repeat_share` of the texts are one of the hundred that came last."""
        self._lengths = lengths
        self._chance = random.Random(seed)
        self._repeat_share = repeat_share
        self._recent: list[tuple[str, int]] = []
        self._given: set[str] = set()

    def take(self) -> tuple[str, int]:
        """The next text and its tokens."""
        if not self._repeat_share:
            return self._fresh()
        if self._recent and self._chance.random() < self._repeat_share:
            return self._chance.choice(self._recent)
        fresh = self._fresh()
        self._recent = [*self._recent[-99:], fresh]
        return fresh

    def _fresh(self) -> tuple[str, int]:
        words, tries = self._lengths.draw(self._chance), 0
        while True:
            text = " ".join(self._chance.choices(WORDS, k=words))
            if words >= _SURELY_DIFFERENT:
                break
            if text not in self._given:
                self._given.add(text)
                break
            tries += 1
            words += tries % _TRIES == 0  # there are only so many texts of one word
        return text, words + 2
