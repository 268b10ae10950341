"""Tokenised texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import NoTokens, TextTooLong


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text, or pair of texts, ready for a model.

    `ids` is int32 [n]. Pairs have `types` int32 [n], too, and so have texts whose special tokens are of another type.
    Pooling that excludes the prompt skips the first `prompt_tokens` tokens. `available` is the number of tokens before
    truncation, for a very long text a lower bound.
    """

    ids: NDArray[np.int32]
    available: int
    types: NDArray[np.int32] | None = None
    prompt_tokens: int = 0
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        types = self.types.tobytes() if self.types is not None else b""
        object.__setattr__(self, "key", b"%d:%b:%b" % (self.prompt_tokens, self.ids.tobytes(), types))

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def truncated(self) -> bool:
        return self.available > len(self.ids)


@dataclass(frozen=True, slots=True)
class Explained:
    """A text with its prompt, and its tokens with their offsets in it."""

    text: str
    ids: list[int]
    tokens: list[str]
    special: list[bool]
    offsets: list[tuple[int, int]]


def require_tokens(tokens: Sequence[Tokens], named: Callable[[int], str] = "input[{}]".format) -> None:
    """Raise NoTokens for the first text without tokens; `named` gives the name for its index."""
    for index, item in enumerate(tokens):
        if not item.count:
            name = named(index)
            raise NoTokens(
                f"{name} has no tokens for this model: expected a text with characters that it reads", param=name
            )


def require_untruncated(tokens: Sequence[Tokens], named: Callable[[int], str] = "input[{}]".format) -> None:
    """Raise TextTooLong for the first truncated text; `named` gives the name for its index."""
    for index, item in enumerate(tokens):
        if item.truncated:
            name = named(index)
            raise TextTooLong(
                f"{name} has at least {item.available} tokens, the limit is {item.count}: shorten it, or let it "
                f"be cut (truncate)",
                param=name,
            )
