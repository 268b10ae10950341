"""Does a trained model still give what it gave when it was trained? From an encoder's rows to its answers, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.artifact import Golden, Manifest
from models.card import Model
from models.classifier import probabilities, relevance
from models.detectors.artifact import load_detector
from models.detectors.detector import Detector
from models.errors import ArtifactError
from models.heads import LinearHead
from models.lexical import load_head
from models.text import Tokens
from models.vectors import normalize

Rows = NDArray[np.float32]
# Training computes in float32; a device that serves in another precision may differ by so much and still be right.
_REDUCED_PRECISION = 0.03


@dataclass(frozen=True, slots=True)
class Parts:
    """What an artifact has beside an encoder."""

    head: LinearHead | None
    detector: Detector | None

    def logits(self, rows: Rows, tokens: Sequence[Tokens]) -> Rows:
        """An encoder's rows [n, d] and the tokens they came from → logits [n, labels]; a sequence classifier's rows are logits already."""
        if self.head is None:
            return rows
        with torch.inference_mode():
            logits: Rows = self.head(unit(rows), tokens).numpy()
            return logits


def unit(rows: Rows) -> torch.Tensor:
    """Rows [n, d] as heads and detectors take them: of length 1."""
    return torch.from_numpy(normalize(rows))


def read_parts(path: Path, manifest: Manifest) -> Parts:
    """The head and the detector in an artifact's directory. Raises ArtifactError when one that its task needs is missing."""
    head = load_head(path) if "head.json" in manifest.files else None
    detector = load_detector(path) if "detector.json" in manifest.files else None
    if manifest.task == "anomaly" and detector is None:
        raise ArtifactError(f"{manifest.name}:v{manifest.version} is for anomalies and has no detector")
    if manifest.task == "classification" and head is None and manifest.encoder == "base":
        raise ArtifactError(f"{manifest.name}:v{manifest.version} is a classifier on its base's embeddings and has no head")
    if head is not None and head.labels != manifest.labels:
        raise ArtifactError(f"{manifest.name}:v{manifest.version}: the head has other labels than the manifest")
    return Parts(head, detector)


def read_texts(golden: Golden, model: Model) -> list[Tokens]:
    """The golden texts as the model reads those of requests: with its default prompt, cut to its length."""
    pairs = [text for text in golden.texts if isinstance(text, tuple)]
    singles = [text for text in golden.texts if isinstance(text, str)]
    if pairs and singles:
        raise ArtifactError("the golden texts are pairs and single texts; expected one kind")
    if singles and model.card.task == "rerank":
        raise ArtifactError("the golden texts of a reranker are pairs [query, document], got single texts")
    if pairs:
        return model.text.encode_pairs(pairs)
    card = model.card
    return model.text.encode(singles, prompt=card.prompts.get(card.default_prompt or "", ""), exclude_prompt=card.excludes_prompt)


def answers(manifest: Manifest, parts: Parts, rows: Rows, tokens: Sequence[Tokens]) -> Rows:
    """Rows and their tokens → what the golden rows hold: probabilities, scores [n, 1], embeddings of length 1, relevance [n, 1]."""
    if manifest.task == "classification":
        return probabilities(parts.logits(rows, tokens), multi_label=False)
    if manifest.task == "rerank":
        return relevance(rows)[:, None]
    if manifest.task == "embedding" or parts.detector is None:
        return normalize(rows)
    with torch.inference_mode():
        scores: Rows = parts.detector(unit(rows)).float().numpy()[:, None]
        return scores


def compare(manifest: Manifest, got: Rows, dtype: str) -> None:
    """Raise ArtifactError unless `got` is what the golden rows say. Embeddings are compared as directions."""
    golden = manifest.golden
    expected = _matrix(golden.rows)
    if manifest.task == "embedding":
        expected = normalize(expected)
    if expected.shape != got.shape:
        raise ArtifactError(f"golden inputs: expected shape {list(expected.shape)}, got {list(got.shape)}")
    allowed = golden.tolerance if dtype == "float32" else max(golden.tolerance, _REDUCED_PRECISION)
    difference = float(np.abs(expected - got).max(initial=0.0))
    if not difference <= allowed:  # so that NaN is refused, too
        raise ArtifactError(f"golden inputs: differs by {difference:.3g} from what it gave when it was trained, {allowed:.3g} are allowed")


def reproduce(path: Path, manifest: Manifest, model: Model) -> None:
    """Run the golden inputs of the artifact at `path` on its encoder. Raises ArtifactError when the answers are others."""
    if not manifest.golden.texts:
        return
    tokens = read_texts(manifest.golden, model)
    compare(manifest, answers(manifest, read_parts(path, manifest), model.forward(tokens), tokens), model.card.dtype)


def _matrix(rows: Sequence[Sequence[float]]) -> Rows:
    if len({len(row) for row in rows}) > 1:
        raise ArtifactError("golden rows: expected rows of one length")
    return np.array(rows, dtype=np.float32)
