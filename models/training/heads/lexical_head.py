"""The word-piece part of a head, fitted together with the part over embeddings and kept where it gains out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.text.heads import LinearHead
from models.text.lexical_head import LexicalHead, WordPieces
from models.text.tokenization import Tokens
from models.training.heads.linear_head import Examples, Floats, HeadFit, Ints, calibrate, parallel_fits

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The share of the features' squared length that word pieces have; the embedding has the rest. Chosen on Banking77's and
# CLINC150's training rows, where 0.4 was worse.
SHARE = 0.25
# Words are rarer than directions of an embedding and need a smaller penalty: with C = 10, 2,000 of Banking77's training
# rows gained 0.6 points with the same C and 1.0 with three times or more.
_LOOSER = 3.0
# From the linear head on, 40 steps were no better on Banking77 than 20 (92.25 and 92.2 %, 10 steps 91.85 %).
_STEPS = 20
# This number of rows out of fold decides whether words help, and the temperature; further folds are not worth their
# seconds.
_ENOUGH_ROWS = 2500


@dataclass(frozen=True, slots=True)
class HeadChoice:
    """The chosen head, and the out-of-fold accuracies without and with words (None where nothing was compared)."""

    head: LinearHead
    without_words: float | None = None
    with_words: float | None = None

    @property
    def share(self) -> float:
        """The share of squared length that word pieces have, 0 without them."""
        return SHARE if isinstance(self.head, LexicalHead) else 0.0


def choose_head(
    fit: HeadFit, examples: Examples, tokens: Sequence[Tokens], asked: bool | Literal["auto"]
) -> HeadChoice:
    """`fit.head`, or the same with word pieces where "auto" finds a gain out of fold above its standard error.

    `tokens` are those of `examples`, in order. Each fold has its own vocabulary and starts from its own linear head.
    """
    folds = _judging_folds(fit)
    if asked is False or (asked == "auto" and not folds):
        return HeadChoice(fit.head)
    with parallel_fits() as pool:
        parts = list(pool.map(lambda fold: _held_out_logits(fit, examples, tokens, fold), folds))
        rows = np.concatenate([np.flatnonzero(fit.folds == fold) for fold in folds] or [np.empty(0, np.int64)])
        logits = np.concatenate(parts or [np.empty((0, len(fit.head.labels)), np.float32)])
        rows, logits = rows[fit.covered[rows]], logits[fit.covered[rows]]
        y = examples.y[rows]
        before, after = fit.logits[rows].argmax(axis=1) == y, logits.argmax(axis=1) == y
        accuracies = (float(before.mean()), float(after.mean())) if len(rows) else (None, None)
        if asked == "auto" and not _is_significant_gain(before, after):
            return HeadChoice(fit.head, *accuracies)
        head = fit_lexical(examples.x, tokens, examples.y, fit.head, _LOOSER * fit.strength)
    return HeadChoice(calibrate(head, logits, y), *accuracies)


def add_words(head: LinearHead, examples: Examples, tokens: Sequence[Tokens], strength: float) -> LexicalHead:
    """A linear head of this strength with word pieces, at temperature 1, fitted to the same examples.

    `tokens` are those of `examples`, in order.
    """
    with parallel_fits():
        return fit_lexical(examples.x, tokens, examples.y, head, _LOOSER * strength)


def fit_lexical(x: Floats, tokens: Sequence[Tokens], y: Ints, start: LinearHead, strength: float) -> LexicalHead:
    """A head at temperature 1 for embeddings float32 [n, d] of length 1 and tokens of n texts with class numbers y [n].

    Penalised likelihood as in scikit-learn's logistic regression (`strength` is its C) over both parts, with squared
    lengths of 0.75 and 0.25. L-BFGS takes few steps from `start`, a linear head fitted to the same rows.
    """
    from scipy.sparse import csr_matrix

    pieces = WordPieces.fit(tokens)
    found = pieces(tokens)
    x_scale, words_scale = float(np.sqrt(1 - SHARE)), float(np.sqrt(SHARE))
    sparse = csr_matrix(
        (words_scale * found.values, found.columns, found.starts), shape=(len(x), len(pieces.keys)), dtype=np.float32
    )
    dense = np.concatenate([x_scale * x, np.ones((len(x), 1), np.float32)], axis=1)
    width = x.shape[1]
    begin = np.zeros((width + 1 + len(pieces.keys), len(start.labels)), np.float32)
    begin[:width] = start.weight.numpy().T / x_scale
    begin[width] = start.bias.numpy()
    solved = _minimise_loss(dense, sparse, y, begin, strength)
    weight, bias, words = x_scale * solved[:width].T, solved[width], words_scale * solved[width + 1 :]
    return LexicalHead(torch.from_numpy(weight), torch.from_numpy(bias), pieces, torch.from_numpy(words), start.labels)


def _judging_folds(fit: HeadFit) -> list[int]:
    """The first folds that together have enough rows."""
    folds: list[int] = []
    for fold in sorted(fit.by_fold):
        if np.isin(fit.folds, folds).sum() < _ENOUGH_ROWS:
            folds.append(fold)
    return folds


def _held_out_logits(fit: HeadFit, examples: Examples, tokens: Sequence[Tokens], fold: int) -> Floats:
    """Logits [m, labels] of a fold's rows by a head fitted to the others and to the rows that only teach."""
    outside = np.flatnonzero(fit.folds == fold)
    inside = np.setdiff1d(np.arange(len(examples.x)), outside)
    inside_tokens, outside_tokens = ([tokens[row] for row in rows.tolist()] for rows in (inside, outside))
    x, y = examples.x[inside], examples.y[inside]
    head = fit_lexical(x, inside_tokens, y, fit.by_fold[fold], _LOOSER * fit.strength)
    with torch.inference_mode():
        logits: Floats = head(torch.from_numpy(examples.x[outside]), outside_tokens).numpy()
        return logits


def _is_significant_gain(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Whether more rows turned right than wrong, by more than the standard error of that difference (McNemar's)."""
    turned = after.astype(np.int64) - before
    return float(turned.sum()) > float(np.sqrt(np.abs(turned).sum()))


def _minimise_loss(dense: Floats, sparse: csr_matrix, y: Ints, begin: Floats, strength: float) -> Floats:
    """Weights [d + 1 + features, labels] of less penalised loss than `begin`; the bias, row d, is not penalised."""
    from scipy.optimize import minimize  # takes a third of a second to import

    width, rows = dense.shape[1], np.arange(len(y))
    transposed = sparse.T.tocsr()
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
        gradient = np.concatenate([dense.T @ likely, transposed @ likely]) + decay * weights
        return float(value), gradient.astype(np.float64).ravel()

    options = {"maxiter": _STEPS, "maxcor": 5}
    found = minimize(loss, begin.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options=options)
    weights: Floats = found.x.astype(np.float32).reshape(begin.shape)
    return weights
