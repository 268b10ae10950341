"""A model without weights, for tests of everything around one: predictable rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from models.metadata import ModelMetadata, Task
from models.preemption import NO_PREEMPTION, Preemption
from models.text.tokenization import TextProcessor, Tokens

_GATE_S = 60.0  # a test that fails before it opens the gate would otherwise never end


class FakeModel:
    """A text's row is the normalized sum of a random vector per token, fixed by `seed`, so similar texts are near.

    `fault` may raise for a batch. While `gate` is unset, batches wait in it; `entered` is set when one has come.
    `batches` records what was computed.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        task: Task = "embedding",
        labels: tuple[str, ...] = (),
        width: int = 16,
        max_tokens: int = 32,
        fault: Callable[[Sequence[Tokens]], None] | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt: str | None = None,
        version: str = "0",
        seed: int = 0,
        special_tokens: bool = True,
    ) -> None:
        self._text = TextProcessor(_word_tokenizer(special_tokens=special_tokens), max_tokens)
        self._fault = fault
        self.entered = threading.Event()
        self._seed = seed
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[Tokens]] = []
        self._metadata = ModelMetadata(
            name=name,
            version=version,
            task=task,
            origin="fake",
            architecture="fake",
            width=len(labels) if task == "classification" else 1 if task == "rerank" else width,
            max_tokens=max_tokens,
            vocabulary=self._text.vocabulary,
            device="cpu",
            dtype="float32",
            reason="a fake computes on the CPU",
            labels=labels,
            prompts=prompts or {},
            default_prompt=default_prompt,
        )

    @property
    def metadata(self) -> ModelMetadata:
        return self._metadata

    @property
    def text(self) -> TextProcessor:
        return self._text

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Wait for the gate, record the batch, let others in between, raise the fault or give rows."""
        self.entered.set()
        if not self.gate.wait(_GATE_S):
            raise TimeoutError(f"the test did not open the gate within {_GATE_S:g} s")
        self.batches.append(list(batch))
        preempt()
        if self._fault is not None:
            self._fault(batch)
        return np.stack([_row(item, self._metadata.width, self._seed) for item in batch])

    def memory_bytes(self) -> int:
        """Nothing: it computes on the CPU."""
        return 0


def _row(item: Tokens, width: int, seed: int) -> NDArray[np.float32]:
    total = sum((_token_vector(int(token), width, seed) for token in item.ids[1:-1]), np.zeros(width, dtype=np.float32))
    length = float(np.linalg.norm(total))
    return (total / length if length else _token_vector(0, width, seed)).astype(np.float32)


@cache
def _token_vector(token: int, width: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(token + 1 + 1_000_003 * seed).standard_normal(width).astype(np.float32)


def _word_tokenizer(words: int = 1024, *, special_tokens: bool = True) -> Tokenizer:
    """Words by themselves; unknown ones share an id. [CLS] and [SEP] around, as BERT has, unless without."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"w{n}" for n in range(words))]
    known = [
        "the",
        "is",
        "my",
        "card",
        "lost",
        "refund",
        "order",
        "hello",
        "world",
        "where",
        "please",
        "help",
        "weather",
        "rain",
        "pizza",
        "reset",
        "password",
    ]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys([*names, *known]))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # no password
    tokenizer.pre_tokenizer = Whitespace()
    if not special_tokens:
        return tokenizer
    specials = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=specials
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return tokenizer
