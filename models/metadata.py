"""A model's metadata: its identity, inputs and outputs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Task = Literal["embedding", "rerank", "classification", "anomaly", "forecast", "detection", "ocr", "inference"]
# Of an object in a row: score, label, and left, top, right and bottom of its box.
OBJECT_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class SensorSignature:
    """The inputs of a sensor model.

    `window` is the least number of readings of a call, `horizon` the most steps of a forecast, and `period_s` the
    usual seconds between readings, where known. A call may lack the share `max_missing` of its values.
    """

    kind: Literal["records", "series", "forecast"]
    columns: tuple[str, ...]
    window: int
    horizon: int = 0
    period_s: float | None = None
    max_missing: float = 0.0

    def signature(self) -> dict[str, Any]:
        """Shapes and dtypes, where n is the number of readings and h the number of steps."""
        d = len(self.columns)
        name = "records" if self.kind == "records" else "series"
        source = {
            "name": name,
            "dtype": "float64",
            "shape": ["n", d],
            "columns": list(self.columns),
            "minimum_rows": self.window,
            "max_missing": self.max_missing,
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
class ImageSignature:
    """The images that a network reads: their size, and how 8 bits become its numbers.

    Where the size `varies` with the image's sides, `height` and `width` are those for a picture of 640 x 480.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    varies: bool = False

    def source(self) -> dict[str, object]:
        """The input as callers see it: any image, which is scaled and cropped to the shape."""
        normalization = {"scale": self.scale, "mean": list(self.mean), "std": list(self.std)}
        sides: list[int | str] = ["height", "width"] if self.varies else [self.height, self.width]
        return {"name": "image", "dtype": "uint8", "shape": ["n", 3, *sides], **normalization}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's identity, place and shapes.

    `width` is the length of one output row: the embedding's dimensions, the number of labels, or 1. Sensor models have
    a `sensor` signature, models of images an `image` one, and programs that of their `tensors`; without texts,
    `max_tokens` and `vocabulary` are 0. A model `pads` when every text of a batch takes as long as the longest.
    `input_limits` are the most tokens of inputs by purpose, `query` or `document`. `batches` says what the check at
    load found, and `one_by_one` that inputs share no batch. `zero_shot` has scale and bias from cosines of texts and
    images to logits.
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
    input_limits: dict[str, int] = field(default_factory=dict)
    excludes_prompt: bool = False
    normalizes: bool = False
    forward: str = "general"
    batches: str = ""
    one_by_one: bool = False
    pads: bool = True
    notes: tuple[str, ...] = ()
    sensor: SensorSignature | None = None
    image: ImageSignature | None = None
    zero_shot: tuple[float, float] = (1.0, 0.0)
    tensors: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """Name and version, as in the header `x-sonde-model`."""
        return f"{self.name}:{self.version}"

    def signature(self) -> dict[str, Any]:
        """Shapes and dtypes of inputs and outputs, where n is the number of texts or images."""
        if self.sensor is not None:
            return self.sensor.signature()
        if self.tensors is not None:
            return deepcopy(self.tensors)
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
        texts = [] if self.image is not None and not self.max_tokens else pair if self.task == "rerank" else single
        images = [] if self.image is None else [self.image.source()]
        return {"inputs": [*map(dict, texts), *images], "outputs": self._outputs()}

    def _outputs(self) -> list[dict[str, Any]]:
        """The outputs of models of texts and images."""
        if self.task == "detection":
            objects = self.width // OBJECT_NUMBERS
            return [
                {"name": "score", "dtype": "float32", "shape": ["n", objects]},
                {"name": "label", "dtype": "string", "shape": ["n", objects]},
                {"name": "box", "dtype": "float32", "shape": ["n", objects, 4]},
            ]
        if self.task == "ocr":
            return [
                {"name": "text", "dtype": "string", "shape": ["n"]},
                {"name": "confidence", "dtype": "float32", "shape": ["n"]},
            ]
        name = {"embedding": "embedding", "rerank": "relevance_score", "classification": "scores", "anomaly": "score"}[
            self.task
        ]
        return [{"name": name, "dtype": "float32", "shape": ["n", self.width]}]


class Computable(Protocol):
    """The interface of all models."""

    @property
    def metadata(self) -> ModelMetadata: ...

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        ...
