"""A text model in service: texts in, rows out, by way of admission, tokenizers and queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import SondeError
from models.metadata import ModelMetadata
from models.text.model import DescribedTextModel
from models.text.tokenization import Explained, Side, Tokens, require_tokens, require_untruncated
from service.engine.cache import Sized, content_key
from service.engine.row_engine import RowEngine
from service.errors import DeadlineExceeded, InvalidRequest
from service.serving.servable import Caller, Servable, ServingContext, Timings

Purpose = Literal["query", "document", "classification", "clustering"]
# What models call the prompts for a purpose, by convention.
_PROMPT_NAMES: dict[Purpose, tuple[str, ...]] = {
    "query": ("query", "search_query"),
    "document": ("document", "passage", "corpus", "search_document"),
    "classification": ("classification",),
    "clustering": ("clustering",),
}
# Without a prompt for these, a model reads the text as it is, as sentence-transformers' encode_query does.
_ROLES: tuple[Purpose, ...] = ("query", "document")
Inputs = Sequence[str] | Sequence[Sequence[int]] | Sequence[tuple[str, str]]
T = TypeVar("T")
FittedT = TypeVar("FittedT", bound=Sized)

# A request with fewer characters is tokenized on the event loop: a thread would take longer.
_INLINE_CHARACTERS = 2_000
# Texts that a thread tokenizes at a time, so that a short request need not wait for all of a long one.
_CHUNK = 64
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TokenizeOptions:
    """How to tokenize texts: the prompt before each, and how to cut them.

    `max_tokens` limits a text's own tokens (of a pair: those of the second text), `max_input_tokens` those of the text
    with prompt and special tokens. `param` is the request's parameter with the texts; `name` gives the caller's name of
    the text at an index, by default `param[index]`.
    """

    prompt: str = ""
    truncate: bool = True
    side: Side = "right"
    max_tokens: int | None = None
    max_input_tokens: int | None = None
    param: str = "input"
    name: Callable[[int], str] | None = None

    def named(self, index: int) -> str:
        """The caller's name of the input at an index."""
        return self.name(index) if self.name is not None else f"{self.param}[{index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput(Timings):
    """The model's rows, float32 [n, width], their tokens, and the seconds they took."""

    values: NDArray[np.float32]
    tokens: list[Tokens]


class ServedText(Servable):
    """A model that reads texts."""

    reads = "texts"

    def __init__(
        self,
        model: DescribedTextModel,
        engine: RowEngine[Tokens],
        context: ServingContext,
        metadata: ModelMetadata | None = None,
    ) -> None:
        super().__init__(model, engine, context, metadata)
        self.model = model
        self.text = model.text

    async def rows(
        self, inputs: Inputs, caller: Caller, task: str, options: TokenizeOptions = TokenizeOptions()
    ) -> ModelOutput:
        """Tokenize the inputs (texts, token ids or pairs), queue them and wait for their rows.

        Raises Overloaded before any work, NoTokens for a text without any, TextTooLong for one that may not be cut,
        and DeadlineExceeded.
        """
        with self._admit(inputs, self.metadata.max_tokens):
            began = time.perf_counter()
            tokens = await self._tokenize(inputs, options)
            tokenized_s = time.perf_counter() - began
            require_tokens(tokens, options.named)
            if not options.truncate:
                require_untruncated(tokens, options.named)
            token_count, truncated = sum(item.count for item in tokens), sum(item.truncated for item in tokens)
            self._require_room(token_count, options.param)
            self._count(len(tokens), truncated, task, tokenized_s)
            values, queue_s, inference_s = await self._compute_rows(tokens, caller)
            return ModelOutput(
                inputs=len(tokens),
                token_count=token_count,
                truncated=truncated,
                tokenize_s=tokenized_s,
                queue_s=queue_s,
                inference_s=inference_s,
                values=values,
                tokens=tokens,
            )

    def prompt(self, name: str | None) -> str:
        """The prompt of a name, or the model's default. Raises InvalidRequest for an unknown name.

        Every model knows the usual names for queries and documents.
        """
        prompts = self.metadata.prompts
        if name is None:
            return prompts.get(self.metadata.default_prompt or "", "")
        if name in prompts:
            return prompts[name]
        for role in _ROLES:
            if name in _PROMPT_NAMES[role]:
                return self.prompt_for(role)
        known = ", ".join(sorted(prompts)) or "none"
        raise InvalidRequest(f"{self.metadata.name} has no prompt {name[:80]!r}; it has: {known}", param="prompt_name")

    def prompt_for(self, purpose: Purpose | None) -> str:
        """The model's prompt for a purpose, else none for queries and documents, else its default."""
        names = _PROMPT_NAMES[purpose] if purpose else ()
        found = next((self.metadata.prompts[name] for name in names if self.metadata.prompts.get(name)), None)
        return found or ("" if purpose in _ROLES else self.prompt(None))

    async def fitted(
        self,
        kind: type[FittedT],
        content: object,
        texts: list[str],
        caller: Caller,
        task: str,
        options: TokenizeOptions,
        fit: Callable[[ModelOutput], FittedT],
    ) -> tuple[FittedT, list[ModelOutput]]:
        """Fit an object to the rows of `texts`, or take it from the cache by `content`.

        Returns the object and the outputs computed for it, none if it was in the cache.
        """
        key = content_key(f"{kind.__name__} {self.label} {options.truncate}", content)
        found = self._fitted.get(key)
        if isinstance(found, kind):
            self._metrics.fitted_hits.labels(self.metadata.name).inc()
            return found, []
        self._metrics.fitted_misses.labels(self.metadata.name).inc()
        rows = await self.rows(texts, caller, task, options)
        made = await self.run_in_pool(lambda: fit(rows))
        self._fitted.put(key, made, made.size_bytes)
        return made, [rows]

    async def explain(
        self, texts: Sequence[str], caller: Caller, param: str, *, prompt: str, special: bool
    ) -> list[Explained]:
        """Each text as the model reads it, uncut. Raises InvalidRequest for too many tokens."""

        def tokenize() -> list[Explained]:
            total, explained = 0, []
            for text in texts:
                explained.append(self.text.explain(text, add_special_tokens=special, prompt=prompt))
                total += len(explained[-1].ids)
                self._require_room(total, param)
                _require_time(caller)
            return explained

        self._require_room(sum(map(_characters, texts)) // _CHARACTERS_PER_TOKEN, param)
        with self._admit(texts, self._max_request_tokens):
            return await self.run_in_pool(tokenize)

    async def decode(
        self,
        ids: Sequence[list[int]],
        caller: Caller,
        *,
        skip_special_tokens: bool = True,
        named: Callable[[int], str] = "ids[{}]".format,
    ) -> list[str]:
        """Decode lists of token ids. Raises BadTokens naming a list, and DeadlineExceeded."""
        decode_one = partial(self.text.decode, skip_special_tokens=skip_special_tokens)

        def decode_all() -> list[str]:
            texts: list[str] = []
            for index, one in enumerate(ids):
                _require_time(caller)
                texts.append(_with_param(index, named, decode_one, one))
            return texts

        self._require_room(sum(map(len, ids)), "ids")
        with self._admit(ids, self._max_request_tokens):
            return await self.run_in_pool(decode_all)

    def _admit(self, inputs: Inputs, most_tokens: int) -> AbstractContextManager[None]:
        """Admit inputs of at most `most_tokens` each, by an estimate of their tokens."""
        estimate = sum(min(_characters(item) // _CHARACTERS_PER_TOKEN + 2, most_tokens) for item in inputs)
        return self._admission.admit(len(inputs), estimate, lambda: self.engine.tokens_per_s)

    async def _tokenize(self, inputs: Inputs, options: TokenizeOptions) -> list[Tokens]:
        if sum(map(_characters, inputs)) <= _INLINE_CHARACTERS:
            return self._tokenize_chunk(inputs, options, 0)
        loop = asyncio.get_running_loop()
        chunks = [
            loop.run_in_executor(self._pool, self._tokenize_chunk, inputs[at : at + _CHUNK], options, at)
            for at in range(0, len(inputs), _CHUNK)
        ]
        return [item for chunk in await asyncio.gather(*chunks) for item in chunk]

    def _tokenize_chunk(self, inputs: Inputs, options: TokenizeOptions, offset: int) -> list[Tokens]:
        """Tokenize a part of a request that begins at its input `offset`."""
        text = self.text
        if isinstance(inputs[0], tuple):
            return text.encode_pairs(inputs, side=options.side, max_tokens=options.max_tokens)  # type: ignore[arg-type]  # all are pairs
        if not isinstance(inputs[0], str):
            numbered = enumerate(inputs, start=offset)
            return [_with_param(index, options.named, text.from_ids, ids) for index, ids in numbered]  # type: ignore[arg-type]
        return text.encode(
            inputs,  # type: ignore[arg-type]
            prompt=options.prompt,
            exclude_prompt=self.metadata.excludes_prompt,
            side=options.side,
            max_tokens=options.max_tokens,
            max_input_tokens=options.max_input_tokens,
        )

    def _count(self, inputs: int, truncated: int, task: str, seconds: float) -> None:
        name = self.metadata.name
        self._metrics.inputs.labels(name, task).inc(inputs)
        self._metrics.truncated.labels(name, task).inc(truncated)
        self._metrics.tokenize.labels(name).observe(seconds)


def _require_time(caller: Caller) -> None:
    if caller.is_late():
        raise DeadlineExceeded("the request's time ran out before its answer was there")


def _with_param(index: int, named: Callable[[int], str], read: Callable[[Sequence[int]], T], ids: Sequence[int]) -> T:
    """Call `read(ids)`; an error names the input at `index` as its parameter."""
    try:
        return read(ids)
    except SondeError as error:
        error.param = named(index)
        raise


def _characters(item: str | Sequence[int] | tuple[str, str]) -> int:
    """Characters of an input; of token ids, an estimate."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, tuple):
        return sum(len(text) for text in item)
    return len(item) * _CHARACTERS_PER_TOKEN
