"""Texts to tokens, by the model's own tokenizer: token for token what it gives, cut at the model's limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from models.errors import BadTokens, ModelError, NoTokens, TextTooLong

Side = Literal["left", "right"]
# Of a very long text this many characters a token are read at first; English has about 4.
_CHARACTERS_PER_TOKEN = 16
_WIDENING = 4  # times as many when these were too few
# More of a text is not read: one word of 16 MB would take seconds and a gigabyte to become one unknown token.
_MOST_CHARACTERS_PER_TOKEN = 256
# Every tokenizer splits at these. BERT's drops other characters that Python calls whitespace, and joins the words.
_WHITESPACE = re.compile(r"[ \t\n\r]")
# A single text of up to this many characters is tokenized under the GIL: winning it back can take longer than the text.
_SHORT_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized text, or pair of texts, ready for a model.

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


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn a panic of the tokenizers library into a ModelError.

    Its regular expressions panic where they backtrack too often. A panic is no Exception, so that no other handler
    would see it.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"the model's tokenizer failed at a text: {error}", param="model") from None


class TextProcessor:
    """The tokenizer of one model. Texts reach it unchanged.

    Thread-safe, because it does not change after construction. `max_tokens` counts the special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        self._prefix, self._suffix = _special_tokens(tokenizer)
        self._types = _frame_types(tokenizer, len(self._prefix))

    @classmethod
    def from_json(cls, text: str, max_tokens: int) -> TextProcessor:
        """The tokenizer that `to_json` wrote, perhaps in another process."""
        return cls(Tokenizer.from_str(text), max_tokens)

    def to_json(self) -> str:
        """The tokenizer in the format of tokenizer.json; `max_tokens` is not in it."""
        return self._tokenizer.to_str()

    @property
    def special_tokens(self) -> int:
        """The number of special tokens that a text gets."""
        return len(self._prefix) + len(self._suffix)

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown token; None where the vocabulary can spell every text."""
        token = getattr(self._tokenizer.model, "unk_token", None)
        return self._tokenizer.token_to_id(token) if isinstance(token, str) else None

    @_panics_as_errors()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        exclude_prompt: bool = False,
        side: Side = "right",
        max_tokens: int | None = None,
        max_input_tokens: int | None = None,
    ) -> list[Tokens]:
        """Tokenize texts after `prompt`, truncated on `side` to `max_tokens` and the model's limit.

        `max_tokens` counts the text's own tokens, `max_input_tokens` also prompt and special tokens.
        """
        limit = min(self.max_tokens, max_input_tokens or self.max_tokens)
        if max_tokens is not None:
            limit = min(limit, self._prompt_tokens(prompt) + max_tokens + len(self._suffix))
        parts = [self._read(text, limit, side) for text in texts]
        read = [prompt + part for part, _ in parts]
        skip = self._prompt_tokens(prompt) if exclude_prompt and prompt else 0
        if len(read) == 1 and len(read[0]) <= _SHORT_CHARACTERS:
            encodings = [self._tokenizer.encode(read[0], add_special_tokens=True)]
        else:
            encodings = self._tokenizer.encode_batch_fast(read, add_special_tokens=True)
        return [
            _to_tokens(encoding, _available(encoding, limit, is_whole), skip, with_types=self._types is not None)
            if len(encoding) <= limit
            else self._encode_truncated(text, limit, side, prompt, skip)
            for encoding, text, (_, is_whole) in zip(encodings, read, parts, strict=True)
        ]

    @_panics_as_errors()
    def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], *, side: Side = "right", max_tokens: int | None = None
    ) -> list[Tokens]:
        """Tokenize pairs as one input each, as a cross-encoder reads them.

        The second text is truncated first, and to `max_tokens` tokens; both are truncated on `side`.
        """
        limit = self.max_tokens
        max_second = limit if max_tokens is None else max_tokens
        parts = [(self._read(a, limit, side), self._read(b, limit, side)) for a, b in pairs]
        read = [(first, second) for (first, _), (second, _) in parts]
        encodings = self._tokenizer.encode_batch_fast(read, add_special_tokens=True)
        return [
            _to_tokens(encoding, _available(encoding, limit, first_whole and second_whole), with_types=True)
            if len(encoding) <= limit and encoding.sequence_ids.count(1) <= max_second
            else self._encode_truncated_pair(pair, limit, max_second, side)
            for encoding, pair, ((_, first_whole), (_, second_whole)) in zip(encodings, read, parts, strict=True)
        ]

    def from_ids(self, ids: Sequence[int]) -> Tokens:
        """Tokens of a caller's own ids; adds special tokens unless they surround the ids already."""
        self._require_known(ids)
        row = list(ids)
        prefix, suffix = self._prefix, self._suffix
        framed = row[: len(prefix)] == prefix and row[len(row) - len(suffix) :] == suffix
        if framed and len(row) >= self.special_tokens:
            row = row[len(prefix) : len(row) - len(suffix)]
        room = max(self.max_tokens - self.special_tokens, 0)
        return self._add_special_tokens(row[:room], available=len(row) + self.special_tokens)

    @_panics_as_errors()
    def explain(self, text: str, *, add_special_tokens: bool = True, prompt: str = "") -> Explained:
        """The text with its prompt and its tokens, without truncation."""
        read = prompt + text
        (encoding,) = self._tokenizer.encode_batch([read], add_special_tokens=add_special_tokens)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        return Explained(read, encoding.ids, encoding.tokens, special, encoding.offsets)

    @_panics_as_errors()
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text from token ids."""
        self._require_known(ids)
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _require_known(self, ids: Sequence[int]) -> None:
        for extreme in (max(ids, default=0), min(ids, default=0)):
            if not 0 <= extreme < self.vocabulary:
                raise BadTokens(f"token ids must be 0 to {self.vocabulary - 1} for this model, got {extreme}")

    def _read(self, text: str, limit: int, side: Side = "right") -> tuple[str, bool]:
        """The part of a text that is tokenized for `limit` tokens, and whether it was short enough to be read whole."""
        most = limit * _MOST_CHARACTERS_PER_TOKEN
        if len(text) <= most:
            return self._shorten(text, limit, side), True
        text = text.strip()
        part = text[:most] if side == "right" else text[-most:]
        return self._shorten(part, limit, side), len(text) <= most

    def _shorten(self, text: str, limit: int, side: Side = "right") -> str:
        """The part of a very long text that gives at least its first (or last) `limit` tokens.

        Cuts at whitespace where there is any, because no token crosses it. Tokenizing a megabyte to keep 256 tokens
        would take a second of a core. The part has more than `limit` tokens, so that it still counts as truncated.
        """
        window = limit * _CHARACTERS_PER_TOKEN
        while len(text) > window:
            part = _beginning(text, window) if side == "right" else _beginning(text[::-1], window)[::-1]
            if len(part) == len(text) or len(self._encode_plain(part)) > limit:
                return part
            window *= _WIDENING
        return text

    def _encode_plain(self, text: str) -> Encoding:
        """Encode without special tokens, and without the GIL, which `Tokenizer.encode` would hold."""
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]

    def _encode_truncated(self, text: str, limit: int, side: Side, prompt: str, skip: int) -> Tokens:
        """Tokens of a text truncated on `side` to `limit`; the prompt at its beginning stays."""
        ids, room = self._encode_plain(text).ids, max(limit - self.special_tokens, 0)
        head = min(self._prompt_tokens(prompt) - len(self._prefix), room) if side == "left" else room
        return self._add_special_tokens(
            ids[:head] + ids[len(ids) - room + head :], len(ids) + self.special_tokens, skip
        )

    def _add_special_tokens(self, ids: list[int], available: int, prompt_tokens: int = 0) -> Tokens:
        framed = self._prefix + ids + self._suffix
        types = None
        if self._types is not None:
            before, own, after = self._types
            types = np.array([*before, *(own for _ in ids), *after], dtype=np.int32)
        return Tokens(np.array(framed, dtype=np.int32), available, types, min(prompt_tokens, len(framed)))

    def _encode_truncated_pair(self, pair: tuple[str, str], limit: int, max_second: int, side: Side) -> Tokens:
        """Tokens of a pair truncated on `side` to `limit`; the second text keeps at most half of the room."""
        first, second = (self._encode_plain(text) for text in pair)
        special = self._tokenizer.num_special_tokens_to_add(True)
        available, room = len(first) + len(second) + special, limit - special
        second.truncate(min(len(second), max_second), direction=side)
        first.truncate(min(len(first), max(room - min(len(second), room // 2), 0)), direction=side)
        second.truncate(max(room - len(first), 0), direction=side)
        return _to_tokens(self._tokenizer.post_process(first, second), available, with_types=True)

    def _prompt_tokens(self, prompt: str) -> int:
        """The leading tokens of a prompt, with the special ones before it."""
        return len(self._prefix) + len(self._tokenizer.encode(prompt, add_special_tokens=False))


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


def _available(encoding: Encoding, limit: int, is_whole: bool) -> int:
    """The tokens of a text that fits `limit`; one too many where the text has more that was not read."""
    return len(encoding) if is_whole else limit + 1


def _to_tokens(encoding: Encoding, available: int, prompt_tokens: int = 0, *, with_types: bool = False) -> Tokens:
    types = np.array(encoding.type_ids, dtype=np.int32) if with_types else None
    return Tokens(np.array(encoding.ids, dtype=np.int32), available, types, min(prompt_tokens, len(encoding)))


def _beginning(text: str, least: int) -> str:
    """`text` up to the first whitespace after `least` characters, at most 4 · `least`."""
    found = _WHITESPACE.search(text, least, least * _WIDENING)
    return text[: found.start() if found else least * _WIDENING]


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    encoding = tokenizer.encode("a", add_special_tokens=True)
    mask = encoding.special_tokens_mask
    if 0 not in mask:
        return [], []
    start, stop = mask.index(0), len(mask) - mask[::-1].index(0)
    return encoding.ids[:start], encoding.ids[stop:]


def _frame_types(tokenizer: Tokenizer, prefix: int) -> tuple[list[int], int, list[int]] | None:
    """Token types before a text, of its own tokens and after it; None where all are 0.

    XLNet's [CLS] has a type of its own.
    """
    types = tokenizer.encode("a", add_special_tokens=True).type_ids
    if not any(types):
        return None
    own = len(tokenizer.encode("a", add_special_tokens=False))
    return types[:prefix], types[prefix], types[prefix + own :]
