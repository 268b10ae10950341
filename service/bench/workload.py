"""The workload: texts that no cache answers, their lengths, and requests as bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from service.errors import ConfigError

# Each is one token of BERT's English vocabulary.
_VOCABULARY = """
my card has not arrived yet and the app still says that it is on its way please tell me where order payment account
transfer bank money cash top up limit password reset phone number email address change close open new old lost stolen
fee charge exchange rate travel abroad weekend delivery parcel late broken wrong size colour return label shop store
manager receipt tax month year price plan upgrade cancel trial support agent chat wait minute hour day week tomorrow a
an any ask at back bad bill book box buy by call can cheap city clear clock code cost country credit customer date did
do does double down due early extra fast find first form found free from full get give good had hand help here hold
home hotel how if in into item job just keep know last law leave left less letter link list little live look made make
many map may member might mine more most much must name near need never next nice no none note now off offer office
often one only or other our out over own page pass past pay people person pick place point post pound press problem
proof pull push put quick rather read ready real reason record red report request right road room round run safe said
same save second see sell send sent service set she should show sign simple since sit six small so some soon speak
spend start state station stay stop street such sure switch system talk team ten test than thank their them then there
these they thing think this those three through time today together told too town train try turn two type under until
upon us use user very view visit want was watch web well went were what when which while who why will with within
without word work would write yes yesterday you your zone
"""
WORDS = tuple(_VOCABULARY.split())
# Longer texts differ by chance: there are 10^15 of six words.
_SURELY_DIFFERENT = 6
_TRIES = 20


class Texts:
    """An endless source of texts with a distribution of lengths, reproducible by its seed."""

    def __init__(self, lengths: Lengths, seed: int = 0, repeat_share: float = 0.0) -> None:
        """`repeat_share` of the texts repeat one of the last hundred."""
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
            words += tries % _TRIES == 0  # there are few texts of one word
        return text, words + 2


# Tokens of all-MiniLM-L6-v2, [CLS] and [SEP] included, of the 28,203 texts of Banking77 (train; CC BY 4.0) and CLINC150
# (train and val, out-of-scope ones included; CC BY 3.0): the percentiles from 0 to 100.
INTENTS = (
    3, 5, 6, 6, 6, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 9, 9,
    9, 9, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 14, 14, 14, 14, 14, 14, 15, 15,
    15, 15, 15, 15, 16, 16, 16, 16, 17, 17, 18, 18, 18, 19, 20, 21, 22, 23, 26, 30, 35, 43, 98,
)  # fmt: skip
SPECIAL = 2
Draw = Callable[[random.Random], int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of text lengths. `draw` gives words, one token each, without specials."""

    name: str
    draw: Draw


def intents() -> Lengths:
    """Lengths of questions to chatbots: the median is 11 tokens, the 99th percentile 43."""

    def draw(chance: random.Random) -> int:
        place = chance.random() * (len(INTENTS) - 1)
        low = int(place)
        return round(INTENTS[low] + (place - low) * (INTENTS[low + 1] - INTENTS[low])) - SPECIAL

    return Lengths("a chatbot's lengths", draw)


def between(low: int, high: int, name: str | None = None) -> Lengths:
    """Uniform between `low` and `high` words, both included."""
    label = name or (f"{low} words" if low == high else f"{low} to {high} words")
    return Lengths(label, (lambda chance: low) if low == high else lambda chance: chance.randint(low, high))


NAMED = {
    "intents": intents(),
    "short": between(10, 10, "12 tokens"),
    "long": between(118, 118, "120 tokens"),
    "mixed": between(3, 248, "5 to 250 tokens"),
}


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """One request's body, its texts and tokens, its part of the mix, and headers that belong to the body."""

    body: bytes
    kind: str
    inputs: int
    tokens: int
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class MixPart:
    """A part of a mix: its name, its share of the requests, and the texts of each request."""

    name: str
    share: float
    batch: int


class Requests:
    """An endless source of embedding requests."""

    def __init__(
        self, model: str, texts: Texts, mix: Sequence[MixPart], *, seed: int = 0, encoding_format: str | None = None
    ) -> None:
        self._texts = texts
        self._mix = list(mix)
        self._shares = [part.share for part in mix]
        self._chance = random.Random(seed)
        self._base: dict[str, object] = {"model": model}
        if encoding_format:
            self._base["encoding_format"] = encoding_format

    def __iter__(self) -> Iterator[PreparedRequest]:
        return self

    def __next__(self) -> PreparedRequest:
        part = self._mix[0] if len(self._mix) == 1 else self._chance.choices(self._mix, self._shares)[0]
        taken = [self._texts.take() for _ in range(part.batch)]
        texts = [text for text, _ in taken]
        body = orjson.dumps({**self._base, "input": texts[0] if part.batch == 1 else texts})
        return PreparedRequest(body, part.name, part.batch, sum(tokens for _, tokens in taken))


def parse_mix(mix: str | None, batch: int, bulk: int) -> list[MixPart]:
    """Parse `single:0.9,bulk:0.1`; `bulk` is the texts of a bulk request. Raises ConfigError.

    A part may also be a number of texts: `1:0.7,8:0.2,256:0.1`. Without a mix, every request has `batch` texts.
    """
    if mix is None:
        return [MixPart("single" if batch == 1 else f"batch {batch}", 1.0, batch)]
    return [_part(piece.strip(), bulk, mix) for piece in mix.split(",")]


def _part(piece: str, bulk: int, mix: str) -> MixPart:
    name, _, share = piece.partition(":")
    try:
        batch = {"single": 1, "bulk": bulk}.get(name) or int(name)
        part = MixPart(name if name in ("single", "bulk") else f"batch {batch}", float(share), batch)
    except ValueError as error:
        raise ConfigError(f"--mix: expected parts like 'single:0.9,bulk:0.1' or '1:0.5,32:0.5', got {mix!r}") from error
    if batch < 1 or not 0 < part.share < math.inf:
        raise ConfigError(f"--mix: a part needs one text or more and a finite share above 0, got {piece!r}")
    return part
