"""An encoder on the packed forward pass, where it gives the general path's vectors."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.errors import ModelError, Unsupported
from models.linalg import normalize
from models.preemption import NO_PREEMPTION, Preemption
from models.runtime.device import Checking, inference_mode
from models.runtime.placement import Placement, place
from models.runtime.product_autotune import autotune_products
from models.source import ModelSource
from models.text.encoder import Encoder
from models.text.model import TextModel, text_metadata
from models.text.model_config import read_pipeline
from models.text.packed.bert import PackedBert
from models.text.packed.int8 import quantize
from models.text.packed.packed_batch import PackedBatch
from models.text.tokenization import TextProcessor, Tokens

log = logging.getLogger(__name__)

# Texts of several lengths, scripts and oddities, for which the packed vectors must equal the general path's.
PROBES = (
    "hello",
    "Where is my card? I ordered it two weeks ago.",
    "Ünïcödé — “quotes”, 漢字, emoji 🙂 and\ttabs",
    "the quick brown fox jumps over the lazy dog " * 12,
    "a" * 300,
)
# A text at the model's limit is compared, too, up to this many tokens.
_LONGEST_PROBE = 512
# Rounded weights may change a row by this share of its length. Rows in other batches would otherwise look as if they
# depended on their neighbours (models/text/batch_check.py).
_MAX_ROUNDING = 1e-3
_MIN_COSINE = {"float32": 0.99999, "bfloat16": 0.999, "int8": 0.99}


class PackedEncoder:
    """An encoder of BERT's family with plain pooling, without final normalization."""

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        with source.loading("a BERT-like encoder"):
            pipeline = read_pipeline(source.path)
            network = PackedBert.load(source.path, pipeline.config, map_words=source.immutable)
            tokenizer = _load_tokenizer(source.path / "tokenizer.json")
        self._placement = placement
        self._pooling = pipeline.pooling
        self.text = TextProcessor(tokenizer, pipeline.max_tokens)
        if placement.int8:
            notes: tuple[str, ...] = (_quantize_and_time(network, self.text.encode(PROBES)),)
        else:
            notes = ()
            network.placed(placement.device, placement.dtype, may_round=placement.auto_dtype)
        self._network = network
        if self.rounds_few_rows:
            notes = (f"up to {network.float16_max_rows} tokens at a time are multiplied by weights in float16",)
        self.metadata = text_metadata(
            source,
            placement,
            self.text,
            task="embedding",
            architecture=str(pipeline.config["model_type"]),
            width=network.shape.width,
            prompts=pipeline.prompts,
            default_prompt=pipeline.default_prompt,
            input_limits=pipeline.input_limits,
            normalizes=pipeline.normalizes,
            pads=placement.device.type != "cpu",  # on a GPU attention's blocks do
            notes=notes,
        )

    def forward(self, batch: Sequence[Tokens], preempt: Preemption = NO_PREEMPTION) -> NDArray[np.float32]:
        """Vectors float32 [n, width], as the model makes them before any final normalization."""
        network, placement = self._network, self._placement
        with inference_mode(placement.device):
            if network.takes_alone(batch):
                vectors = network.embed_one(batch[0].ids, self._pooling, preempt)
            else:
                layout = PackedBatch.of(batch, placement.device, network.onednn_rows)
                vectors = network.embed(layout, self._pooling, preempt).cpu()
            rows: NDArray[np.float32] = vectors.numpy()
            return rows

    @property
    def rounds_few_rows(self) -> bool:
        """Whether few rows are multiplied by weights in float16."""
        return self._network.float16_max_rows > 0

    def memory_bytes(self) -> int:
        """Bytes held on the device."""
        return self._placement.memory_bytes()


def packed_or_general(
    source: ModelSource, placement: Placement, checking: Checking = nullcontext
) -> PackedEncoder | Encoder:
    """Load the packed encoder where it agrees with the general one, else the general one.

    The metadata says which and why. Where bfloat16 was not asked for and differs too much, the model gets float32. The
    general path's vectors of the shipped model come with Sonde; for other models the general encoder is loaded for the
    comparison, which runs in `checking`. Raises ModelError where int8 is asked for and the packed encoder cannot be
    used, because the general one has no int8.
    """
    try:
        packed = PackedEncoder(source, placement)
    except Unsupported as reason:
        return _general_encoder(source, placement, str(reason))
    expected = _shipped_vectors(source)
    with checking():
        if expected is None:
            expected = compute_probes(Encoder(source, placement.reference))
        vectors = _compute_alone_and_together(packed)
    expected = np.concatenate([expected[: len(PROBES)], expected])
    cosine = float((normalize(vectors) * normalize(expected)).sum(axis=1).min())
    if packed.rounds_few_rows and not _distance(vectors, expected) <= _MAX_ROUNDING:
        return _in_float32(source, placement, checking, f"weights in float16 gave a least cosine of {cosine:.7f}")
    if not cosine >= _MIN_COSINE[placement.dtype_name]:  # so that NaN is refused, too
        if placement.auto_dtype and placement.dtype == torch.bfloat16:
            return _in_float32(source, placement, checking, f"bfloat16 gave a least cosine of {cosine:.6f}")
        return _general_encoder(source, placement, f"the packed forward pass differs, least cosine {cosine:.6f}")
    forward = f"packed: least cosine to the general forward pass {cosine:.6f}"
    notes = (*packed.metadata.notes, *_recommend_int8(placement))
    packed.metadata = replace(packed.metadata, forward=forward, notes=notes)
    return packed


def compute_probes(model: TextModel) -> NDArray[np.float32]:
    """Vectors float32 [probes, width] of PROBES, and of a text at the model's limit."""
    *probes, longest = _encode_probes(model.text)
    return np.concatenate([model.forward(probes), model.forward([longest])])


def _compute_alone_and_together(packed: PackedEncoder) -> NDArray[np.float32]:
    """Vectors of each of PROBES alone, and of what `compute_probes` has, in one batch.

    Few rows and many are multiplied in different ways, and each has to agree.
    """
    probes = _encode_probes(packed.text)
    alone = [packed.forward([one]) for one in probes[: len(PROBES)]]
    return np.concatenate([*alone, packed.forward(probes)])


def _encode_probes(text: TextProcessor) -> list[Tokens]:
    limit = min(text.max_tokens, _LONGEST_PROBE)
    long = "the quick brown fox jumps over the lazy dog " * (limit // 9 + 1)
    return [*text.encode(PROBES), *text.encode([long], max_tokens=limit)]


def _in_float32(source: ModelSource, placement: Placement, checking: Checking, why: str) -> PackedEncoder | Encoder:
    """Load the encoder again, without any rounding."""
    log.warning("%s: %s, so it computes in float32", source.name, why)
    return packed_or_general(source, placement.in_float32(why), checking)


def _distance(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of two rows as a share of their length."""
    return float((np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def _recommend_int8(placement: Placement) -> tuple[str, ...]:
    """A note where int8 was not asked for and would gain much."""
    tuned = autotune_products()
    if placement.int8 or placement.device.type != "cpu" or not tuned.recommends_int8:
        return ()
    return (f"int8 multiplies {tuned.int8_gain:.1f} times as fast as {tuned.preferred} here: try --dtype int8",)


def _quantize_and_time(network: PackedBert, batch: Sequence[Tokens]) -> str:
    """Make a network int8 and place it, and return a note on its speed.

    The note compares it with the dtype that this machine would use otherwise.
    """
    cpu, other = torch.device("cpu"), place("cpu").dtype
    exact = copy.deepcopy(network.requires_grad_(False)).placed(cpu, other)
    before = _forward_seconds(exact, PackedBatch.of(batch, cpu, exact.onednn_rows))
    quantize(network, PackedBatch.of(batch, cpu))
    network.placed(cpu, torch.float32)
    share = _forward_seconds(network, PackedBatch.of(batch, cpu, network.onednn_rows)) / before
    name, tokens = str(other).removeprefix("torch."), sum(item.count for item in batch)
    note = f"int8 takes {share:.2f} of the time of {name} for {tokens} tokens, timed at load"
    if share >= 1:
        log.warning("%s: it gains nothing here", note)
    return note


@torch.inference_mode()
def _forward_seconds(network: PackedBert, layout: PackedBatch) -> float:
    """Seconds of a forward pass, the least of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        network(layout)
        times.append(time.perf_counter() - began)
    return min(times)


def _general_encoder(source: ModelSource, placement: Placement, why: str) -> Encoder:
    if placement.int8:
        message = f"int8 is for encoders with a packed forward pass, and {why}: set another dtype"
        raise ModelError(f"{source.name}: {message}", param="dtype")
    return Encoder(source, placement, forward=f"general: {why}")


def _load_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise Unsupported("it has no tokenizer.json")
    return Tokenizer.from_file(str(path))


def _shipped_vectors(source: ModelSource) -> NDArray[np.float32] | None:
    """The general path's vectors of the probes, where they ship with Sonde for this exact model.

    benchmarks/parity_vectors.py writes them.
    """
    content = (files("models.text.packed") / "parity.json").read_text(encoding="utf-8")
    shipped: dict[str, list[list[float]]] = json.loads(content)
    return np.array(shipped[source.version], dtype=np.float32) if source.version in shipped else None
