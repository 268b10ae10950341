"""An encoder on the packed forward pass, taken only where it gives the general path's vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.card import Between, ModelCard, nothing
from models.device import Placement
from models.encoder import Encoder
from models.guard import inference, reading
from models.packed import Layout, PackedBert
from models.pipeline import Unsupported, read_pipeline
from models.source import ModelSource
from models.text import TextProcessor, Tokens
from models.vectors import normalize

# Texts of several lengths, scripts and oddities; the general path's vectors of them are what the packed ones must equal.
PROBES = (
    "hello",
    "Where is my card? I ordered it two weeks ago.",
    "Ünïcödé — “quotes”, 漢字, emoji 🙂 and\ttabs",
    "the quick brown fox jumps over the lazy dog " * 12,
    "a" * 300,
)
_LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}


class PackedEncoder:
    """An encoder of BERT's family with plain pooling. Vectors are not normalised here, as with `Encoder`."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        with reading(source.name, "a BERT-like encoder"):
            pipeline = read_pipeline(source.path)
            network = PackedBert.load(source.path, pipeline.config)
            tokenizer = _tokenizer(source.path / "tokenizer.json")
        self._network = network.placed(placement.device, placement.dtype)
        self._placement = placement
        self._pooling = pipeline.pooling
        self._text = TextProcessor(tokenizer, pipeline.max_tokens)
        self._card = ModelCard(
            name=source.name,
            version=source.version,
            task="embedding",
            origin=source.origin,
            architecture=str(pipeline.config["model_type"]),
            width=network.shape.width,
            max_tokens=pipeline.max_tokens,
            vocabulary=self._text.vocabulary,
            device=str(placement.device),
            dtype=placement.dtype_name,
            reason=placement.reason,
            prompts=pipeline.prompts,
            default_prompt=pipeline.default_prompt,
            normalizes=pipeline.normalizes,
        )

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def text(self) -> TextProcessor:
        return self._text

    def explain(self, forward: str) -> None:
        """Put on the card why this forward pass was chosen."""
        self._card = replace(self._card, forward=forward)

    def forward(self, batch: Sequence[Tokens], between: Between = nothing) -> NDArray[np.float32]:
        """Vectors float32 [n, width], as the model makes them before any final normalisation."""
        with inference(self._placement):
            layout = Layout.of(batch, self._placement.device, self._placement.dtype)
            rows: NDArray[np.float32] = layout.pool(self._network(layout, between), self._pooling).cpu().numpy()
            return rows

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def packed_or_general(source: ModelSource, placement: Placement) -> PackedEncoder | Encoder:
    """The packed encoder where it can do this model and agrees with the general path, else the general one; its card says why.

    For the model that ships with Sonde the general path's vectors ship too; for others it is loaded for the comparison.
    """
    try:
        packed = PackedEncoder(source, placement)
    except Unsupported as reason:
        return Encoder(source, placement, forward=f"general: {reason}")
    expected = _golden(source)
    if expected is None:
        general = Encoder(source, placement)
        expected = general.forward(general.text.encode(PROBES))
    least = float(_cosines(packed.forward(packed.text.encode(PROBES)), expected).min())
    if least < _LEAST_COSINE[placement.dtype_name]:
        return Encoder(source, placement, forward=f"general: the packed forward pass differs, least cosine {least:.6f}")
    packed.explain(f"packed: least cosine to the general forward pass {least:.6f}")
    return packed


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise Unsupported("it has no tokenizer.json")
    return Tokenizer.from_file(str(path))


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (normalize(a) * normalize(b)).sum(axis=1)
    return result


def _golden(source: ModelSource) -> NDArray[np.float32] | None:
    """The vectors of PROBES that ship with Sonde, if there are any of this very model (benchmarks/golden.py wrote them)."""
    shipped: dict[str, list[list[float]]] = json.loads((files("models") / "golden.json").read_text(encoding="utf-8"))
    return np.array(shipped[source.version], dtype=np.float32) if source.version in shipped else None
