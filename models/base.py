"""What a model tells about itself: its contract, before anyone calls it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Task = Literal["embedding", "rerank", "classification", "anomaly", "forecast"]


@dataclass(frozen=True, slots=True)
class SensorSignature:
    """What a model of numbers reads. `window` is how many readings a call needs at least, `horizon` the most steps
    that a forecaster looks ahead, `period_s` the usual seconds between readings where they are known.
    """

    kind: Literal["records", "series", "forecast"]
    columns: tuple[str, ...]
    window: int
    horizon: int = 0
    period_s: float | None = None

    def signature(self) -> dict[str, Any]:
        """Shapes and dtypes; `n` is the number of readings of a request, `h` of the steps asked for."""
        d = len(self.columns)
        name = "records" if self.kind == "records" else "series"
        source = {
            "name": name,
            "dtype": "float64",
            "shape": ["n", d],
            "columns": list(self.columns),
            "minimum_rows": self.window,
        }
        if self.kind == "forecast":
            outputs = [{"name": name, "dtype": "float32", "shape": ["h", d]} for name in ("mean", "quantiles")]
        else:
            outputs = [
                {"name": "score", "dtype": "float32", "shape": ["n"]},
                {"name": "p_value", "dtype": "float64", "shape": ["n"]},
                {"name": "contributions", "dtype": "float32", "shape": ["n", d]},
            ]
        limits = {"kind": self.kind, "window": self.window, "horizon": self.horizon or None, "period_s": self.period_s}
        return {"inputs": [source], "outputs": outputs, **limits}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's identity, place and shapes.

    `width` is the length of one output row: the embedding's dimensions, the number of labels, or 1. `numbers` is
    there where it reads numbers instead of texts; `max_tokens` and `vocabulary` are then 0. It `pads` where all
    texts of a batch take as long as the longest.
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
    pads: bool = True
    notes: tuple[str, ...] = ()
    numbers: SensorSignature | None = None

    def signature(self) -> dict[str, Any]:
        """Shapes and dtypes of what goes in and what comes out; `n` is the number of texts of a request."""
        if self.numbers is not None:
            return self.numbers.signature()
        output = {
            "embedding": "embedding",
            "rerank": "relevance_score",
            "classification": "scores",
            "anomaly": "score",
        }[self.task]
        pair = [{"name": "pair", "dtype": "string", "shape": ["n", 2]}]
        single: list[dict[str, object]] = [
            {"name": "text", "dtype": "string", "shape": ["n"]},
            {
                "name": "token_ids",
                "dtype": "int32",
                "shape": ["n", f"1..{self.max_tokens}"],
                "minimum": 0,
                "maximum": self.vocabulary - 1,
            },
        ]
        return {
            "inputs": [dict(item) for item in pair] if self.task == "rerank" else single,
            "outputs": [{"name": output, "dtype": "float32", "shape": ["n", self.width]}],
        }


class Computable(Protocol):
    """What serving asks of any model, whatever it reads."""

    @property
    def card(self) -> ModelMetadata: ...

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        ...
