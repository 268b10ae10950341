"""Trained classifier heads: linear layers on embeddings, saved as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.errors import ModelSourceError
from models.text.confidence import Confidence
from models.text.tokenization import Tokens

WEIGHTS, SETTINGS = "head.safetensors", "head.json"
UNCALIBRATED = Confidence()


class LinearHead(nn.Module):
    """logits = (x @ weight.T + bias) / temperature.

    `weight` is float32 [labels, d], `bias` float32 [labels]; x is float32 [n, d], embeddings of length 1 as the
    encoder gives them after L2 normalization. `confidence` calibrates the softmax of the logits (Guo et al., 2017).
    """

    kind: ClassVar[str] = "linear"
    parts: ClassVar[tuple[str, ...]] = ("weight", "bias")

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, labels: tuple[str, ...], confidence: Confidence = UNCALIBRATED
    ) -> None:
        super().__init__()
        if weight.ndim != 2 or bias.ndim != 1 or not len(weight) == len(bias) == len(labels) >= 2:
            raise ValueError(
                f"expected weight [labels, d], bias [labels] and 2 labels or more, "
                f"got {list(weight.shape)}, {list(bias.shape)} and {len(labels)} labels"
            )
        if not 0 < confidence.temperature < float("inf"):
            raise ValueError(f"temperature: expected a positive number, got {confidence.temperature}")
        if not 0 <= confidence.ceiling <= 1:
            raise ValueError(f"ceiling: expected a probability, got {confidence.ceiling}")
        self.labels = labels
        self.confidence = confidence
        self.register_buffer("weight", weight.float().contiguous())
        self.register_buffer("bias", bias.float().contiguous())

    @property
    def width(self) -> int:
        """The length of one embedding, d."""
        return int(self.weight.shape[1])

    def forward(self, x: Tensor, tokens: Sequence[Tokens] | None = None) -> Tensor:
        """Logits float32 [n, labels] of embeddings [n, d]; this kind of head ignores `tokens`."""
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(f"expected embeddings [n, {self.width}], got {list(x.shape)}")
        return (x.float() @ self.weight.T + self.bias) / self.confidence.temperature

    def probabilities(self, x: Tensor, tokens: Sequence[Tokens] | None = None) -> Tensor:
        """Probabilities float32 [n, labels] of embeddings [n, d] and tokens; rows sum to 1."""
        return self.confidence.probabilities(self.forward(x, tokens))

    def at(self, confidence: Confidence) -> LinearHead:
        """The same head with another confidence."""
        return LinearHead(self.weight, self.bias, self.labels, confidence)

    def save(self, directory: Path) -> None:
        """Write `head.safetensors` and `head.json` into `directory`; equal heads give equal bytes."""
        save_file(self.tensors(), directory / WEIGHTS)
        settings = {"kind": self.kind, "labels": list(self.labels), **asdict(self.confidence)}
        (directory / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def tensors(self) -> dict[str, Tensor]:
        """The saved tensors, by the names in `parts`."""
        return {"weight": self.weight.cpu(), "bias": self.bias.cpu()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], labels: tuple[str, ...], confidence: Confidence) -> Self:
        """A head of saved tensors. Raises ValueError for tensors that do not fit together."""
        return cls(tensors["weight"], tensors["bias"], labels, confidence)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote. Raises ModelSourceError for anything else."""
        try:
            settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
            tensors = load_file(directory / WEIGHTS)
            if settings["kind"] != cls.kind or set(tensors) != set(cls.parts):
                raise ValueError(
                    f"expected kind {cls.kind!r} with {list(cls.parts)}, got {settings['kind']!r} with "
                    f"{sorted(tensors)}"
                )
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
                raise ValueError("weight or bias is not finite")
            # Heads of version 0.1.0 have no ceiling.
            confidence = Confidence(float(settings["temperature"]), float(settings.get("ceiling", 1.0)))
            return cls.of(tensors, tuple(map(str, settings["labels"])), confidence)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ModelSourceError(
                f"{directory.name}: not a classifier head that can be read: {error}", param="model"
            ) from error
