"""Text to tokens: preprocessing and tokenisation as one object, saved with the model and used by every side of it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from models.errors import BadTokens, TextTooLong

Side = Literal["left", "right"]
_REPEATED_PUNCTUATION = re.compile(r"([^\w\s])\1+")
# Only this many characters a token are read of a long text before asking for more; English has about 4.
_CHARACTERS_PER_TOKEN = 16
_WIDER = 4  # times as many then
_WHITESPACE = re.compile(r"\s")
# One text of so few characters is tokenised without letting go of the GIL: getting it back can take longer than the
# text.
_BRIEF = 1_000


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to a text before its tokeniser sees it; the same in training and in serving."""

    nfc: bool = True
    collapse_whitespace: bool = True
    lower_case: bool = False
    squeeze_punctuation: bool = False

    def __call__(self, text: str) -> str:
        """The text as the tokeniser is to see it."""
        if self.nfc:
            text = unicodedata.normalize("NFC", text)
        if self.collapse_whitespace:
            text = " ".join(text.split())
        if self.lower_case:
            text = text.lower()
        if self.squeeze_punctuation:
            text = _REPEATED_PUNCTUATION.sub(r"\1", text)
        return text


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text, or pair of texts, ready for a model.

    `ids` is int32 [n]; `types` int32 [n] is there for pairs only. `prompt_tokens` is how many leading tokens a pooling
    that leaves the prompt out must skip. `available` is how many tokens the text would have had without truncation; for
    a very long text it is a lower bound.
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
    """What a text looks like to the model: after preprocessing, and token by token (offsets into that text)."""

    text: str
    ids: list[int]
    tokens: list[str]
    special: list[bool]
    offsets: list[tuple[int, int]]


class TextProcessor:
    """Preprocessing and tokeniser of one model.

    Thread-safe: nothing changes after construction. `max_tokens` counts the special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, preprocessing: Preprocessing | None = None) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.preprocessing = preprocessing or Preprocessing(collapse_whitespace=not _sees_whitespace(tokenizer))
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        self._prefix, self._suffix = self._special_edges()

    @property
    def added(self) -> int:
        """How many special tokens a text is given."""
        return len(self._prefix) + len(self._suffix)

    @property
    def unknown_id(self) -> int | None:
        """The token that stands for what the vocabulary does not have; None where every text can be spelled."""
        token = getattr(self._tokenizer.model, "unk_token", None)
        return self._tokenizer.token_to_id(token) if isinstance(token, str) else None

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        exclude_prompt: bool = False,
        side: Side = "right",
        max_tokens: int | None = None,
    ) -> list[Tokens]:
        """Tokenise texts, each with `prompt` before it, cut from `side` after `max_tokens` tokens of its own and at
        the model's limit.
        """
        limit = self.max_tokens
        if max_tokens is not None:
            limit = min(limit, self._prompt_tokens(prompt) + max_tokens + len(self._suffix))
        read = [prompt + self._readable(self.preprocessing(text), limit, side) for text in texts]
        skip = self._prompt_tokens(prompt) if exclude_prompt and prompt else 0
        if len(read) == 1 and len(read[0]) <= _BRIEF:
            encodings = [self._tokenizer.encode(read[0], add_special_tokens=True)]
        else:
            encodings = self._tokenizer.encode_batch_fast(read, add_special_tokens=True)
        return [
            _tokens(encoding, len(encoding), skip)
            if len(encoding) <= limit
            else self._cut(text, limit, side, prompt, skip)
            for encoding, text in zip(encodings, read, strict=True)
        ]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], *, max_tokens: int | None = None) -> list[Tokens]:
        """Tokenise pairs as one input each, as a cross-encoder reads them; the second is cut first, and after
        `max_tokens` tokens.
        """
        limit, most = self.max_tokens, self.max_tokens if max_tokens is None else max_tokens
        clean = [
            (self._readable(self.preprocessing(a), limit), self._readable(self.preprocessing(b), limit))
            for a, b in pairs
        ]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=True)
        return [
            _tokens(encoding, len(encoding), paired=True)
            if len(encoding) <= limit and encoding.sequence_ids.count(1) <= most
            else self._cut_pair(pair, limit, most)
            for encoding, pair in zip(encodings, clean, strict=True)
        ]

    def from_ids(self, ids: Sequence[int]) -> Tokens:
        """Tokens from a caller's own ids; the model's special tokens are added unless they are already at the edges."""
        self._require_known(ids)
        row = list(ids)
        head, tail = self._prefix, self._suffix
        if row[: len(head)] == head and row[len(row) - len(tail) :] == tail and len(row) >= len(head) + len(tail):
            row = row[len(head) : len(row) - len(tail)]
        return self._framed(row[: max(self.max_tokens - self.added, 0)], available=len(row) + self.added)

    def explain(self, text: str, *, add_special_tokens: bool = True, prompt: str = "") -> Explained:
        """The text after preprocessing and its tokens, uncut."""
        clean = prompt + self.preprocessing(text)
        (encoding,) = self._tokenizer.encode_batch([clean], add_special_tokens=add_special_tokens)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        return Explained(clean, encoding.ids, encoding.tokens, special, encoding.offsets)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text from token ids."""
        self._require_known(ids)
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _require_known(self, ids: Sequence[int]) -> None:
        strangers = [worst for worst in (max(ids, default=0), min(ids, default=0)) if not 0 <= worst < self.vocabulary]
        if strangers:
            raise BadTokens(f"token ids must be 0 to {self.vocabulary - 1} for this model, got {strangers[0]}")

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` and `text.json` into `directory`."""
        self._tokenizer.save(str(directory / "tokenizer.json"))
        settings = {"max_tokens": self.max_tokens, "preprocessing": asdict(self.preprocessing)}
        (directory / "text.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> TextProcessor:
        """Read what `save` wrote."""
        settings = json.loads((directory / "text.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return cls(tokenizer, settings["max_tokens"], Preprocessing(**settings["preprocessing"]))

    def _readable(self, text: str, limit: int, side: Side = "right") -> str:
        """The part of a very long text that can matter: cut at whitespace, where no token crosses, if there is any.

        Reading a megabyte to keep 256 tokens would cost a second of a core; whoever sends one still learns of the cut.
        """
        window = limit * _CHARACTERS_PER_TOKEN
        while len(text) > window:
            part = _beginning(text, window) if side == "right" else _beginning(text[::-1], window)[::-1]
            if len(part) == len(text) or len(self._plain(part)) > limit:
                return part
            window *= _WIDER
        return text

    def _plain(self, text: str) -> Encoding:
        """A text without special tokens. `Tokenizer.encode` would keep the GIL meanwhile."""
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]

    def _cut(self, text: str, limit: int, side: Side, prompt: str, skip: int) -> Tokens:
        """A text of more than `limit` tokens, cut from `side`; the prompt that it begins with stays."""
        ids, room = self._plain(text).ids, max(limit - self.added, 0)
        kept = min(self._prompt_tokens(prompt) - len(self._prefix), room) if side == "left" else room
        return self._framed(ids[:kept] + ids[len(ids) - room + kept :], len(ids) + self.added, skip)

    def _framed(self, ids: list[int], available: int, prompt_tokens: int = 0) -> Tokens:
        """Ids with the special tokens around them."""
        whole = self._prefix + ids + self._suffix
        return Tokens(np.array(whole, dtype=np.int32), available, prompt_tokens=min(prompt_tokens, len(whole)))

    def _cut_pair(self, pair: tuple[str, str], limit: int, most: int) -> Tokens:
        first, second = (self._plain(text) for text in pair)
        whole = len(first) + len(second) + self._tokenizer.num_special_tokens_to_add(True)
        second.truncate(min(len(second), most))
        room = limit - self._tokenizer.num_special_tokens_to_add(True)
        first.truncate(min(len(first), max(room - min(len(second), room // 2), 0)))
        second.truncate(max(room - len(first), 0))
        return _tokens(self._tokenizer.post_process(first, second), whole, paired=True)

    def _prompt_tokens(self, prompt: str) -> int:
        """Leading tokens that a prompt makes, the special ones before it included."""
        return len(self._prefix) + len(self._tokenizer.encode(prompt, add_special_tokens=False))

    def _special_edges(self) -> tuple[list[int], list[int]]:
        """The special tokens put before and after a text."""
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        mask = encoding.special_tokens_mask
        if 0 not in mask:
            return [], []
        start, stop = mask.index(0), len(mask) - mask[::-1].index(0)
        return encoding.ids[:start], encoding.ids[stop:]


def require_whole(tokens: Sequence[Tokens], named: Callable[[int], str] = "input[{}]".format) -> None:
    """Raise TextTooLong for the first text that was cut, by the name that `named` gives for its index."""
    for index, item in enumerate(tokens):
        if item.truncated:
            name = named(index)
            raise TextTooLong(
                f"{name} has at least {item.available} tokens, the limit is {item.count}: shorten it or set "
                f"truncate=true",
                param=name,
            )


def _tokens(encoding: Encoding, available: int, prompt_tokens: int = 0, *, paired: bool = False) -> Tokens:
    types = np.array(encoding.type_ids, dtype=np.int32) if paired else None
    return Tokens(np.array(encoding.ids, dtype=np.int32), available, types, min(prompt_tokens, len(encoding)))


def _beginning(text: str, least: int) -> str:
    """The beginning of `text` up to the first whitespace after `least` characters; where there is none for long, up
    to there.
    """
    found = _WHITESPACE.search(text, least, least * _WIDER)
    return text[: found.start() if found else least * _WIDER]


def _sees_whitespace(tokenizer: Tokenizer) -> bool:
    """Whether runs of whitespace change the tokens; collapsing them must not change a pretrained model's results."""
    return (
        tokenizer.encode("a \n\t b", add_special_tokens=False).ids
        != tokenizer.encode("a b", add_special_tokens=False).ids
    )
