"""Golden texts: a loaded text model must reproduce its outputs after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.errors import ArtifactError
from models.linalg import normalize
from models.registry.artifact import Golden, Manifest
from models.registry.golden_rows import Rows, compare
from models.text.detectors.serialization import TextDetector, load_detector
from models.text.heads import UNCALIBRATED, LinearHead
from models.text.lexical_head import load_head
from models.text.model import DescribedTextModel, TextModel
from models.text.sequence_classifier import relevance
from models.text.tokenization import Tokens


@dataclass(frozen=True, slots=True)
class ModelParts:
    """An artifact's parts beside an encoder."""

    head: LinearHead | None
    detector: TextDetector | None

    def logits(self, rows: Rows, tokens: Sequence[Tokens]) -> Rows:
        """Logits [n, labels] of rows [n, d] and tokens; a sequence classifier's rows are logits."""
        if self.head is None:
            return rows
        with torch.inference_mode():
            logits: Rows = self.head(normalize_rows(rows), tokens).numpy()
            return logits

    def probabilities(self, rows: Rows, tokens: Sequence[Tokens], *, multi_label: bool = False) -> Rows:
        """Probabilities [n, labels] of rows [n, d] and tokens: all summing to 1, or each label by itself."""
        confidence = UNCALIBRATED if self.head is None else self.head.confidence
        return confidence.probabilities(torch.from_numpy(self.logits(rows, tokens)), multi_label=multi_label).numpy()


def normalize_rows(rows: Rows) -> torch.Tensor:
    """Rows [n, d] of length 1, as heads and detectors take them."""
    return torch.from_numpy(normalize(rows))


def read_parts(path: Path, manifest: Manifest) -> ModelParts:
    """An artifact's head and detector. Raises ArtifactError when the task lacks one."""
    head = load_head(path) if "head.json" in manifest.files else None
    detector = load_detector(path) if "detector.json" in manifest.files else None
    name = f"{manifest.name}:v{manifest.version}"
    if manifest.task == "anomaly" and detector is None:
        raise ArtifactError(f"{name} is for anomalies and has no detector")
    if manifest.task == "classification" and head is None and manifest.encoder == "base":
        raise ArtifactError(f"{name} is a classifier on its base's embeddings and has no head")
    if head is not None and head.labels != manifest.labels:
        raise ArtifactError(f"{name}: the head has other labels than the manifest")
    return ModelParts(head, detector)


def read_texts(golden: Golden, model: DescribedTextModel) -> list[Tokens]:
    """Tokenize the golden texts as those of requests: with the default prompt, truncated."""
    pairs = [text for text in golden.texts if isinstance(text, tuple)]
    singles = [text for text in golden.texts if isinstance(text, str)]
    if pairs and singles:
        raise ArtifactError("the golden texts are pairs and single texts; expected one kind")
    if singles and model.metadata.task == "rerank":
        raise ArtifactError("the golden texts of a reranker are pairs [query, document], got single texts")
    if pairs:
        return model.text.encode_pairs(pairs)
    metadata = model.metadata
    return model.text.encode(
        singles, prompt=metadata.prompts.get(metadata.default_prompt or "", ""), exclude_prompt=metadata.excludes_prompt
    )


def answers(manifest: Manifest, parts: ModelParts, rows: Rows, tokens: Sequence[Tokens]) -> Rows:
    """Outputs as golden rows hold them, from an encoder's rows and tokens.

    Probabilities, scores [n, 1], embeddings of length 1, or relevance [n, 1], by the task.
    """
    if manifest.task == "classification":
        return parts.probabilities(rows, tokens)
    if manifest.task == "rerank":
        return relevance(rows)[:, None]
    if manifest.task == "embedding" or parts.detector is None:
        return normalize(rows)
    with torch.inference_mode():
        scores: Rows = parts.detector(normalize_rows(rows)).float().numpy()[:, None]
        return scores


def reproduce(path: Path, manifest: Manifest, model: TextModel) -> None:
    """Run an artifact's golden texts. Raises ArtifactError when the outputs differ."""
    if not manifest.golden.texts:
        return
    tokens = read_texts(manifest.golden, model)
    compare(
        manifest, answers(manifest, read_parts(path, manifest), model.forward(tokens), tokens), model.metadata.dtype
    )
