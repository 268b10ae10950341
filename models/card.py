"""What a model tells about itself: its contract, before anyone calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.text import TextProcessor, Tokens

Task = Literal["embedding", "rerank", "classification", "anomaly"]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model's identity, place and shapes.

    `width` is the length of one output row: the embedding's dimensions, the number of labels, or 1.
    """

    name: str
    version: str
    task: Task
    origin: str
    architecture: str
    width: int
    max_tokens: int
    vocabulary: int
    device: str
    dtype: str
    reason: str
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    excludes_prompt: bool = False
    normalizes: bool = False
    forward: str = "general"
    notes: tuple[str, ...] = ()

    def signature(self) -> dict[str, list[dict[str, object]]]:
        """Shapes and dtypes of what goes in and what comes out; `n` is the number of texts of a request."""
        output = {"embedding": "embedding", "rerank": "relevance_score", "classification": "scores", "anomaly": "score"}[self.task]
        pair = [{"name": "pair", "dtype": "string", "shape": ["n", 2]}]
        single: list[dict[str, object]] = [
            {"name": "text", "dtype": "string", "shape": ["n"]},
            {"name": "token_ids", "dtype": "int32", "shape": ["n", f"1..{self.max_tokens}"], "minimum": 0, "maximum": self.vocabulary - 1},
        ]
        return {
            "inputs": [dict(item) for item in pair] if self.task == "rerank" else single,
            "outputs": [{"name": output, "dtype": "float32", "shape": ["n", self.width]}],
        }


Between = Callable[[], None]


def nothing() -> None:
    """What happens between two layers where nobody has anything more urgent."""


class Computes(Protocol):
    """What serving asks of any model, whatever it reads."""

    @property
    def card(self) -> ModelCard: ...

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        ...


class Model(Computes, Protocol):
    """The seam between the engine and torch: tokens in, rows of numbers out."""

    @property
    def text(self) -> TextProcessor: ...

    def forward(self, batch: Sequence[Tokens], between: Between = nothing) -> NDArray[np.float32]:
        """One float32 row [card.width] per item, in order. `between` is called between layers and may run another batch.

        Raises ModelOutOfMemory when the batch does not fit and DeviceLost when the device is gone.
        """
        ...
