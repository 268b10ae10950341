"""Requests as bytes, made before they are sent: single texts, bulk ones, or a mix."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from service.bench.texts import Texts
from service.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Request:
    """One request's body, how many texts and tokens are in it, and which part of the mix it is of."""

    body: bytes
    kind: str
    inputs: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a mix: its name, its share of the requests, and how many texts each of them carries."""

    name: str
    share: float
    batch: int


class Requests:
    """An endless source of embedding requests."""

    def __init__(self, model: str, texts: Texts, mix: Sequence[Part], *, seed: int = 0, encoding_format: str | None = None) -> None:
        self._texts = texts
        self._mix = list(mix)
        self._shares = [part.share for part in mix]
        self._chance = random.Random(seed)
        self._base: dict[str, object] = {"model": model}
        if encoding_format:
            self._base["encoding_format"] = encoding_format

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        part = self._mix[0] if len(self._mix) == 1 else self._chance.choices(self._mix, self._shares)[0]
        taken = [self._texts.take() for _ in range(part.batch)]
        texts = [text for text, _ in taken]
        body = orjson.dumps({**self._base, "input": texts[0] if part.batch == 1 else texts})
        return Request(body, part.name, part.batch, sum(tokens for _, tokens in taken))


def parse_mix(mix: str | None, batch: int, bulk: int) -> list[Part]:
    """`single:0.9,bulk:0.1` as parts, `bulk` being of so many texts; without a mix, every request carries `batch` texts.

    A part may also be a number of texts: `1:0.7,8:0.2,256:0.1`. Raises ConfigError.
    """
    if mix is None:
        return [Part("single" if batch == 1 else f"batch {batch}", 1.0, batch)]
    return [_part(piece.strip(), bulk, mix) for piece in mix.split(",")]


def _part(piece: str, bulk: int, mix: str) -> Part:
    name, _, share = piece.partition(":")
    try:
        batch = {"single": 1, "bulk": bulk}.get(name) or int(name)
        part = Part(name if name in ("single", "bulk") else f"batch {batch}", float(share), batch)
    except ValueError as error:
        raise ConfigError(f"--mix: expected parts like 'single:0.9,bulk:0.1' or '1:0.5,32:0.5', got {mix!r}") from error
    if batch < 1 or not 0 < part.share < math.inf:
        raise ConfigError(f"--mix: a part needs one text or more and a finite share above 0, got {piece!r}")
    return part
