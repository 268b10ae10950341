"""One model of texts in service: texts in, rows out, by way of admission, tokenisers, queue and deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import SondeError
from models.text.base import TextModel
from models.text.tokenization import Side, TextProcessor
from models.text.tokens import Explained, Tokens, require_untruncated
from service.engine.cache import Sized, content_key
from service.engine.engine import Engine
from service.errors import DeadlineExceeded, InvalidRequest
from service.serving.servable import Caller, Servable

Inputs = Sequence[str] | Sequence[Sequence[int]] | Sequence[tuple[str, str]]
T = TypeVar("T")
FittedT = TypeVar("FittedT", bound=Sized)

# A request with fewer characters is tokenised at once: handing it to a thread would take longer.
_INLINE_CHARACTERS = 2_000
# Texts a tokenising thread takes at a time, so that a short request does not wait for a long one's last text.
_CHUNK = 64
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TokenizeOptions:
    """How texts are read: the prompt before each, whether and from which side they may be cut, and after how many
    tokens of their own (for pairs: of the second text).

    `param` is the parameter that they came in, `name` what the caller calls the one of an index, if not `param[index]`.
    """

    prompt: str = ""
    truncate: bool = True
    side: Side = "right"
    max_tokens: int | None = None
    param: str = "input"
    name: Callable[[int], str] | None = None

    def named(self, index: int) -> str:
        """What the caller calls the input of that index."""
        return self.name(index) if self.name is not None else f"{self.param}[{index}]"


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The model's rows, float32 [n, width], with the tokens they came from and the seconds they took."""

    values: NDArray[np.float32]
    tokens: list[Tokens]
    tokenize_s: float
    queue_s: float
    inference_s: float

    @property
    def inputs(self) -> int:
        return len(self.tokens)

    @property
    def token_count(self) -> int:
        return sum(item.count for item in self.tokens)

    @property
    def truncated(self) -> int:
        return sum(item.truncated for item in self.tokens)


class ServedText(Servable):
    """A model that reads texts."""

    def __init__(self, model: TextModel, engine: Engine[Tokens], **resources: Any) -> None:
        super().__init__(model, engine, **resources)
        self._model = model

    @property
    def model(self) -> TextModel:
        return self._model

    @property
    def text(self) -> TextProcessor:
        return self._model.text

    async def rows(
        self, inputs: Inputs, caller: Caller, task: str, reading: TokenizeOptions = TokenizeOptions()
    ) -> ModelOutput:
        """Tokenise the inputs (texts, token ids or pairs), queue them and wait for their rows.

        Raises Overloaded before any work, TextTooLong when texts may not be cut, DeadlineExceeded when time runs out.
        """
        with self._admit(inputs, self.card.max_tokens):
            began = time.perf_counter()
            tokens = await self._tokenize(inputs, reading)
            tokenized_s = time.perf_counter() - began
            self._check(tokens, reading)
            self._count(tokens, task, tokenized_s)
            return await self._compute(tokens, caller, tokenized_s)

    def prompt(self, name: str | None) -> str:
        """The prompt of that name, or the model's default. Raises InvalidRequest when the model has no such prompt."""
        prompts = self.card.prompts
        if name is None:
            return prompts.get(self.card.default_prompt or "", "")
        if name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise InvalidRequest(f"{self.card.name} has no prompt {name[:80]!r}; it has: {known}", param="prompt_name")
        return prompts[name]

    async def fitted(
        self,
        kind: type[FittedT],
        content: object,
        texts: list[str],
        caller: Caller,
        task: str,
        reading: TokenizeOptions,
        fit: Callable[[ModelOutput], FittedT],
    ) -> tuple[FittedT, list[ModelOutput]]:
        """What `fit` makes of the rows of `texts`, kept by `content`; the second value is what had to be computed
        for it.
        """
        key = content_key(f"{kind.__name__} {self.label} {reading.truncate}", content)
        found = self._fitted.get(key)
        if isinstance(found, kind):
            self._metrics.fitted_hits.labels(self.card.name).inc()
            return found, []
        self._metrics.fitted_misses.labels(self.card.name).inc()
        rows = await self.rows(texts, caller, task, reading)
        made = await self.run_in_pool(lambda: fit(rows))
        self._fitted.put(key, made, made.size_bytes)
        return made, [rows]

    async def explain(
        self, texts: Sequence[str], caller: Caller, param: str, *, prompt: str, special: bool
    ) -> list[Explained]:
        """Each text as the model sees it, uncut. Raises InvalidRequest for more tokens than a request may have."""

        def read() -> list[Explained]:
            total, seen = 0, []
            for text in texts:
                seen.append(self.text.explain(text, add_special_tokens=special, prompt=prompt))
                total += len(seen[-1].ids)
                self._require_room(total, param)
                _require_time(caller)
            return seen

        self._require_room(sum(map(_size, texts)) // _CHARACTERS_PER_TOKEN, param)
        with self._admit(texts, self._max_request_tokens):
            return await self.run_in_pool(read)

    async def decode(
        self,
        ids: Sequence[list[int]],
        caller: Caller,
        *,
        skip_special_tokens: bool = True,
        named: Callable[[int], str] = "ids[{}]".format,
    ) -> list[str]:
        """The text of each list of token ids. Raises BadTokens naming the one that has a stranger in it, and
        DeadlineExceeded.
        """
        decoded = partial(self.text.decode, skip_special_tokens=skip_special_tokens)

        def read() -> list[str]:
            texts: list[str] = []
            for index, one in enumerate(ids):
                _require_time(caller)
                texts.append(_naming(index, named, decoded, one))
            return texts

        self._require_room(sum(map(len, ids)), "ids")
        with self._admit(ids, self._max_request_tokens):
            return await self.run_in_pool(read)

    def _admit(self, inputs: Inputs, most_tokens: int) -> AbstractContextManager[None]:
        """Room for inputs of which no more than `most_tokens` each are read."""
        estimate = sum(min(_size(item) // _CHARACTERS_PER_TOKEN + 2, most_tokens) for item in inputs)
        return self._admission.admit(len(inputs), estimate, lambda: self.engine.tokens_per_s)

    async def _tokenize(self, inputs: Inputs, reading: TokenizeOptions) -> list[Tokens]:
        if sum(_size(item) for item in inputs) <= _INLINE_CHARACTERS:
            return self._read(inputs, reading, 0)
        loop = asyncio.get_running_loop()
        parts = [
            loop.run_in_executor(self._pool, self._read, inputs[at : at + _CHUNK], reading, at)
            for at in range(0, len(inputs), _CHUNK)
        ]
        return [item for part in await asyncio.gather(*parts) for item in part]

    def _read(self, inputs: Inputs, reading: TokenizeOptions, offset: int) -> list[Tokens]:
        """Tokenise one part of a request, whose first input is its `offset`-th."""
        text = self.text
        if not isinstance(inputs[0], str):
            if isinstance(inputs[0], tuple):
                return text.encode_pairs(inputs, max_tokens=reading.max_tokens)  # type: ignore[arg-type]  # pairs throughout
            return [_naming(index, reading.named, text.from_ids, ids) for index, ids in enumerate(inputs, start=offset)]  # type: ignore[arg-type]
        return text.encode(
            inputs,  # type: ignore[arg-type]
            prompt=reading.prompt,
            exclude_prompt=self.card.excludes_prompt,
            side=reading.side,
            max_tokens=reading.max_tokens,
        )

    def _count(self, tokens: list[Tokens], task: str, seconds: float) -> None:
        name = self.card.name
        self._metrics.inputs.labels(name, task).inc(len(tokens))
        self._metrics.truncated.labels(name, task).inc(sum(item.truncated for item in tokens))
        self._metrics.tokenize.labels(name).observe(seconds)

    def _check(self, tokens: list[Tokens], reading: TokenizeOptions) -> None:
        if not reading.truncate:
            require_untruncated(tokens, reading.named)
        self._require_room(sum(item.count for item in tokens), reading.param)

    async def _compute(self, tokens: list[Tokens], caller: Caller, tokenize_s: float) -> ModelOutput:
        values, queue_s, inference_s = await self._queued(tokens, caller)
        return ModelOutput(values, tokens, tokenize_s, queue_s, inference_s)


def _require_time(caller: Caller) -> None:
    if caller.deadline is not None and time.monotonic() > caller.deadline:
        raise DeadlineExceeded("the request's time ran out before its answer was there")


def _naming(index: int, named: Callable[[int], str], read: Callable[[Sequence[int]], T], ids: Sequence[int]) -> T:
    """`read(ids)`, where an error says which input it is about."""
    try:
        return read(ids)
    except SondeError as error:
        error.param = named(index)
        raise


def _size(item: str | Sequence[int] | tuple[str, str]) -> int:
    """Characters of an input, or what so many tokens would have had."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, tuple):
        return sum(len(text) for text in item)
    return len(item) * _CHARACTERS_PER_TOKEN
