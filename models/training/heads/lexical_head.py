"""Fitting the word-piece part of a head together with the part over embeddings, where out of fold it is worth
having.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from models.calibration import fit_temperature
from models.text.heads import LinearHead
from models.text.lexical_head import LexicalHead, WordPieces
from models.text.tokens import Tokens
from models.training.heads.linear_head import Examples, Fit, Floats, Ints, many_at_once

# The share of the features' squared length that word pieces have; the embedding has the rest. Chosen on Banking77's and
# CLINC150's training rows, where 0.4 was worse.
SHARE = 0.25
# Words are rarer than directions of an embedding and want less of a penalty: with C = 10, 2,000 of Banking77's training
# rows gained 0.6 points with the same C and 1.0 with three times or more.
_LOOSER = 3.0
# From the linear head on, 40 steps were no better on Banking77 than 20 (92.25 and 92.2 %, 10 steps 91.85 %).
_STEPS = 20
# So many rows out of fold tell whether words help and how sure they make it; folds beyond are not worth their seconds.
_ENOUGH_ROWS = 2500


@dataclass(frozen=True, slots=True)
class Choice:
    """The head to take, and the out-of-fold accuracies between which it was chosen (None where there was nothing to
    choose).
    """

    head: LinearHead
    without: float | None = None
    having: float | None = None

    @property
    def share(self) -> float:
        """The share of squared length that word pieces have, 0 without them."""
        return SHARE if isinstance(self.head, LexicalHead) else 0.0


def choose_head(fit: Fit, examples: Examples, tokens: Sequence[Tokens], asked: bool | Literal["auto"]) -> Choice:
    """`fit.head`, or the same with word pieces where "auto" finds the gain out of fold larger than its standard error.

    `tokens` are those of `examples`, in order. Each fold has its own vocabulary and starts from its own linear head.
    """
    folds = _enough(fit)
    if asked is False or (asked == "auto" and not folds):
        return Choice(fit.head)
    with many_at_once() as pool:
        told = list(pool.map(lambda fold: _held(fit, examples, tokens, fold), folds))
        rows = np.concatenate([np.flatnonzero(fit.folds == fold) for fold in folds]) if folds else np.empty(0, np.int64)
        logits = np.concatenate(told) if told else np.empty((0, len(fit.head.labels)), np.float32)
        known = fit.told[rows]
        rows, logits = rows[known], logits[known]
        y = examples.y[rows]
        without, having = fit.logits[rows].argmax(axis=1) == y, logits.argmax(axis=1) == y
        accuracies = (float(without.mean()), float(having.mean())) if len(rows) else (None, None)
        if asked == "auto" and not _worth(without, having):
            return Choice(fit.head, *accuracies)
        head = fit_lexical(examples.x, tokens, examples.y, fit.head, _LOOSER * fit.strength)
    temperature = fit_temperature(torch.from_numpy(logits), torch.from_numpy(y)) if len(rows) else 1.0
    return Choice(head.at(temperature), *accuracies)


def with_words(head: LinearHead, examples: Examples, tokens: Sequence[Tokens], strength: float) -> LexicalHead:
    """A linear head of this strength with word pieces, at temperature 1: fitted to the same examples, whose tokens
    these are.
    """
    with many_at_once():
        return fit_lexical(examples.x, tokens, examples.y, head, _LOOSER * strength)


def fit_lexical(x: Floats, tokens: Sequence[Tokens], y: Ints, start: LinearHead, strength: float) -> LexicalHead:
    """A head at temperature 1 for embeddings float32 [n, d] of length 1 and tokens of n texts with class numbers y [n].

    Penalised likelihood as in scikit-learn's logistic regression (`strength` is its C) over both parts, their
    squared lengths 0.75 and 0.25, by L-BFGS in few steps from `start`, a linear head fitted to the same rows.
    """
    pieces = WordPieces.fit(tokens)
    near, far = float(np.sqrt(1 - SHARE)), float(np.sqrt(SHARE))
    found = pieces(tokens)
    sparse = csr_matrix(
        (far * found.values, found.columns, found.starts), shape=(len(x), len(pieces.keys)), dtype=np.float32
    )
    dense = np.concatenate([near * x, np.ones((len(x), 1), np.float32)], axis=1)
    width = dense.shape[1]
    begin = np.zeros((width + len(pieces.keys), len(start.labels)), np.float32)
    begin[: width - 1] = start.weight.numpy().T / near
    begin[width - 1] = start.bias.numpy()
    solved = _descend(dense, sparse, y, begin, strength)
    weight, bias, words = (
        torch.from_numpy(part) for part in (near * solved[: width - 1].T, solved[width - 1], far * solved[width:])
    )
    return LexicalHead(weight, bias, pieces, words, start.labels)


def _enough(fit: Fit) -> list[int]:
    """The first folds with a head that together have enough rows."""
    folds: list[int] = []
    for fold in sorted(fit.by_fold):
        if np.isin(fit.folds, folds).sum() < _ENOUGH_ROWS:
            folds.append(fold)
    return folds


def _held(fit: Fit, examples: Examples, tokens: Sequence[Tokens], fold: int) -> Floats:
    """Logits [m, labels] of a fold's rows by a head fitted to the others and to what only teaches."""
    outside = np.flatnonzero(fit.folds == fold)
    inside = np.setdiff1d(np.arange(len(examples.x)), outside)
    start = fit.by_fold[fold]
    head = fit_lexical(
        examples.x[inside], [tokens[row] for row in inside.tolist()], examples.y[inside], start, _LOOSER * fit.strength
    )
    with torch.inference_mode():
        logits: Floats = head(torch.from_numpy(examples.x[outside]), [tokens[row] for row in outside.tolist()]).numpy()
        return logits


def _worth(without: NDArray[np.bool_], having: NDArray[np.bool_]) -> bool:
    """Whether more rows turned right than wrong, by more than the standard error of that difference (McNemar's)."""
    turned = having.astype(np.int64) - without
    return float(turned.sum()) > float(np.sqrt(np.abs(turned).sum()))


def _descend(dense: Floats, sparse: csr_matrix, y: Ints, begin: Floats, strength: float) -> Floats:
    """Weights [d + 1 + features, labels] of less penalised loss than `begin`; the bias, row d, is not penalised."""
    width, rows = dense.shape[1], np.arange(len(y))
    turned = sparse.T.tocsr()
    decay = np.full((len(begin), 1), 1 / (strength * len(y)), np.float32)
    decay[width - 1] = 0

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.astype(np.float32).reshape(begin.shape)
        logits = dense @ weights[:width] + sparse @ weights[width:]
        logits -= logits.max(axis=1, keepdims=True)
        likely = np.exp(logits)
        total = likely.sum(axis=1, keepdims=True)
        value = np.mean(np.log(total[:, 0]) - logits[rows, y]) + 0.5 * (decay * weights * weights).sum()
        likely /= total
        likely[rows, y] -= 1
        likely /= np.float32(len(y))
        gradient = np.concatenate([dense.T @ likely, turned @ likely]) + decay * weights
        return float(value), gradient.astype(np.float64).ravel()

    options = {"maxiter": _STEPS, "maxcor": 5}
    found = minimize(loss, begin.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options=options)
    weights: Floats = found.x.astype(np.float32).reshape(begin.shape)
    return weights
