"""Heads that read word pieces beside the embedding, to separate similar texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from models.errors import ModelSourceError
from models.text.confidence import Confidence
from models.text.heads import SETTINGS, UNCALIBRATED, LinearHead
from models.text.tokenization import Tokens

MAX_FEATURES = 4000
_MIN_TEXTS = 2


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse matrix [n, features] in CSR form.

    `columns` int64 and `values` float32 [stored]; row i lies from `starts[i]` to `starts[i + 1]`.
    """

    columns: NDArray[np.int64]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WordPieces:
    """The features of a lexical head: `keys` int64 [f] ascending, with `idf` float32 [f].

    Features are word pieces and pairs of neighbouring word pieces.
    A piece's key is its id; that of a pair is (first + 1) * 2^32 + second.
    """

    keys: NDArray[np.int64]
    idf: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.keys.ndim != 1 or self.keys.shape != self.idf.shape or bool((np.diff(self.keys) <= 0).any()):
            raise ValueError(
                f"expected ascending keys [f] with idf [f], got {list(self.keys.shape)} and {list(self.idf.shape)}"
            )

    @classmethod
    def fit(cls, tokens: Sequence[Tokens], most: int = MAX_FEATURES) -> WordPieces:
        """The features of the most texts; those in one text or in all are left out.

        idf = ln((1 + n) / (1 + texts with it)) + 1.
        """
        found = [_keys(item) for item in tokens]
        keys, texts = np.unique(np.concatenate(found) if found else np.empty(0, np.int64), return_counts=True)
        informative = (texts >= _MIN_TEXTS) & (texts < len(tokens))
        keys, texts = keys[informative], texts[informative]
        kept = np.sort(np.argsort(-texts, kind="stable")[:most])
        return cls(keys[kept], (np.log((1 + len(tokens)) / (1 + texts[kept])) + 1).astype(np.float32))

    def __call__(self, tokens: Sequence[Tokens]) -> Sparse:
        """Rows of length 1, or 0 for a text without features; a feature counts once a text."""
        columns = [self._columns(_keys(item)) for item in tokens]
        values = [self.idf[one] / max(float(np.linalg.norm(self.idf[one])), 1e-9) for one in columns]
        starts = np.cumsum([0, *map(len, columns)], dtype=np.int64)
        if not columns:
            return Sparse(np.empty(0, np.int64), np.empty(0, np.float32), starts)
        return Sparse(np.concatenate(columns), np.concatenate(values).astype(np.float32), starts)

    def _columns(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self.keys):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        columns: NDArray[np.int64] = places[self.keys[places] == keys].astype(np.int64)
        return columns


class LexicalHead(LinearHead):
    """logits = (x @ weight.T + pieces(tokens) @ words + bias) / temperature.

    `words` is float32 [f, labels], rounded to float16's precision, so that a saved head gives the same results.
    """

    kind: ClassVar[str] = "linear+lexical"
    parts: ClassVar[tuple[str, ...]] = ("weight", "bias", "keys", "idf", "words")

    words: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        pieces: WordPieces,
        words: Tensor,
        labels: tuple[str, ...],
        confidence: Confidence = UNCALIBRATED,
    ) -> None:
        super().__init__(weight, bias, labels, confidence)
        if words.shape != (len(pieces.keys), len(labels)):
            raise ValueError(f"expected words [{len(pieces.keys)}, {len(labels)}], got {list(words.shape)}")
        self.pieces = pieces
        self.register_buffer("words", words.half().float().contiguous())

    def forward(self, x: Tensor, tokens: Sequence[Tokens] | None = None) -> Tensor:
        """Logits float32 [n, labels] of embeddings [n, d] and the n texts' tokens."""
        if tokens is None or len(tokens) != len(x):
            raise ValueError(f"expected the tokens of {len(x)} texts, got {'none' if tokens is None else len(tokens)}")
        found = self.pieces(tokens)
        if not len(found.columns):
            return super().forward(x)
        columns, values, starts = map(torch.from_numpy, (found.columns, found.values, found.starts[:-1]))
        lexical = embedding_bag(columns, self.words, starts, mode="sum", per_sample_weights=values)
        return super().forward(x) + lexical / self.confidence.temperature

    def at(self, confidence: Confidence) -> LexicalHead:
        """The same head with another confidence."""
        return LexicalHead(self.weight, self.bias, self.pieces, self.words, self.labels, confidence)

    def tensors(self) -> dict[str, Tensor]:
        """The saved tensors, by the names in `parts`; `words` as float16."""
        pieces = {"keys": torch.from_numpy(self.pieces.keys), "idf": torch.from_numpy(self.pieces.idf)}
        return {**super().tensors(), **pieces, "words": self.words.half().cpu()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], labels: tuple[str, ...], confidence: Confidence) -> Self:
        """A head of saved tensors. Raises ValueError for tensors that do not fit together."""
        keys, idf = tensors["keys"], tensors["idf"]
        if keys.dtype != torch.int64 or idf.dtype != torch.float32:
            raise ValueError(f"expected keys int64 and idf float32, got {keys.dtype} and {idf.dtype}")
        pieces = WordPieces(keys.numpy(), idf.numpy())
        return cls(tensors["weight"], tensors["bias"], pieces, tensors["words"], labels, confidence)


def load_head(directory: Path) -> LinearHead:
    """Read a head of either kind. Raises ModelSourceError for anything else."""
    try:
        kind = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelSourceError(
            f"{directory.name}: not a classifier head that can be read: {error}", param="model"
        ) from error
    return LexicalHead.load(directory) if kind == LexicalHead.kind else LinearHead.load(directory)


def _keys(item: Tokens) -> NDArray[np.int64]:
    ids = item.ids.astype(np.int64)
    return np.unique(np.concatenate([ids, ((ids[:-1] + 1) << 32) | ids[1:]]))
