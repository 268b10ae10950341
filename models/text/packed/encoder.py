"""An encoder on the packed forward pass, taken only where it gives the general path's vectors."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.base import ModelMetadata
from models.errors import ModelError, Unsupported
from models.linalg import normalize
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.inference import inference_mode, loading
from models.runtime.placement import Placement, place
from models.source import ModelSource
from models.text.encoder import Encoder
from models.text.model_config import read_pipeline
from models.text.packed.bert import Layout, PackedBert
from models.text.packed.int8 import quantise
from models.text.tokenization import TextProcessor, Tokens

log = logging.getLogger(__name__)

# Texts of several lengths, scripts and oddities; the general path's vectors of them are what the packed ones must
# equal.
PROBES = (
    "hello",
    "Where is my card? I ordered it two weeks ago.",
    "Ünïcödé — “quotes”, 漢字, emoji 🙂 and\ttabs",
    "the quick brown fox jumps over the lazy dog " * 12,
    "a" * 300,
)
_LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.99}


class PackedEncoder:
    """An encoder of BERT's family with plain pooling. Vectors are not normalised here, as with `Encoder`."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        with loading(source.name, "a BERT-like encoder"):
            pipeline = read_pipeline(source.path)
            network = PackedBert.load(source.path, pipeline.config)
            tokenizer = _tokenizer(source.path / "tokenizer.json")
        self._placement = placement
        self._pooling = pipeline.pooling
        self._text = TextProcessor(tokenizer, pipeline.max_tokens)
        notes = (_to_int8(network, self._text.encode(PROBES)),) if placement.int8 else ()
        self._network = network.placed(placement.device, placement.dtype)
        self._card = ModelMetadata(
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
            pads=placement.device.type != "cpu",  # on a GPU attention's blocks do
            notes=notes,
        )

    @property
    def card(self) -> ModelMetadata:
        return self._card

    @property
    def text(self) -> TextProcessor:
        return self._text

    def explain(self, forward: str) -> None:
        """Put on the card why this forward pass was chosen."""
        self._card = replace(self._card, forward=forward)

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Vectors float32 [n, width], as the model makes them before any final normalisation."""
        with inference_mode(self._placement):
            layout = Layout.of(batch, self._placement.device, self._placement.dtype, self._network.onednn_max_rows)
            rows: NDArray[np.float32] = layout.pool(self._network(layout, preempt), self._pooling).cpu().numpy()
            return rows

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def packed_or_general(source: ModelSource, placement: Placement) -> PackedEncoder | Encoder:
    """The packed encoder where it can do this model and agrees with the general path, else the general one; its card
    says why.

    For the model that ships with Sonde the general path's vectors ship too; for others it is loaded for the
    comparison. Raises ModelError where int8 is asked for and the packed encoder cannot be taken: there is no other.
    """
    try:
        packed = PackedEncoder(source, placement)
    except Unsupported as reason:
        return _general(source, placement, str(reason))
    expected = _golden(source)
    if expected is None:
        general = Encoder(source, placement.unrounded)
        expected = general.forward(general.text.encode(PROBES))
    least = float(_cosines(packed.forward(packed.text.encode(PROBES)), expected).min())
    if not least >= _LEAST_COSINE[placement.dtype_name]:  # so that NaN is refused, too
        return _general(source, placement, f"the packed forward pass differs, least cosine {least:.6f}")
    packed.explain(f"packed: least cosine to the general forward pass {least:.6f}")
    return packed


def _to_int8(network: PackedBert, batch: Sequence[Tokens]) -> str:
    """Make a network int8, and say what that gains over the dtype that this machine would take otherwise."""
    cpu, rival = torch.device("cpu"), place("cpu").dtype
    exact = copy.deepcopy(network.requires_grad_(False)).placed(cpu, rival)
    before = _seconds(exact, Layout.of(batch, cpu, rival))
    layout = Layout.of(batch, cpu, torch.float32)
    quantise(network, layout)
    share = _seconds(network, layout) / before
    note = (
        f"int8 takes {share:.2f} of the time of {str(rival).removeprefix('torch.')} for {len(layout.ids)} tokens, "
        f"timed at load"
    )
    if share >= 1:
        log.warning("%s: it gains nothing here", note)
    return note


@torch.inference_mode()
def _seconds(network: PackedBert, layout: Layout) -> float:
    """The least time of three."""
    least = math.inf
    for _ in range(3):
        began = time.perf_counter()
        network(layout)
        least = min(least, time.perf_counter() - began)
    return least


def _general(source: ModelSource, placement: Placement, why: str) -> Encoder:
    if placement.int8:
        raise ModelError(
            f"{source.name}: int8 is for encoders with a packed forward pass, and {why}: set another dtype",
            param="dtype",
        )
    return Encoder(source, placement, forward=f"general: {why}")


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise Unsupported("it has no tokenizer.json")
    return Tokenizer.from_file(str(path))


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (normalize(a) * normalize(b)).sum(axis=1)
    return result


def _golden(source: ModelSource) -> NDArray[np.float32] | None:
    """The vectors of PROBES that ship with Sonde, if there are any of this very model (benchmarks/parity_vectors.py
    wrote them).
    """
    shipped: dict[str, list[list[float]]] = json.loads(
        (files("models.text.packed") / "parity.json").read_text(encoding="utf-8")
    )
    return np.array(shipped[source.version], dtype=np.float32) if source.version in shipped else None
