"""Logistic regression over embeddings, fast enough to be fitted once a fold on a shared core."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

_ITERATIONS = 30


def out_of_fold(
    x: NDArray[np.float32], y: NDArray[np.int64], *, folds: int = 5, strength: float = 10.0, seed: int = 0
) -> NDArray[np.float64]:
    """Probabilities float64 [n, classes] of each row of x [n, d] by models that have not seen it; y int64 [n], two
    rows a class at least.

    `strength` is scikit-learn's C: larger is less regularised.
    """
    classes = int(y.max()) + 1
    folds = int(min(folds, np.bincount(y).min()))
    probabilities = np.zeros((len(y), classes))
    biased = np.concatenate([x, np.ones((len(x), 1), dtype=np.float32)], axis=1)
    # BLAS threads that wait for each other on a busy machine took ten times as long as one.
    with threadpool_limits(limits=1, user_api="blas"):
        for fitted, judged in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
            weight = _fit(biased[fitted], y[fitted], classes, strength)
            probabilities[judged] = _softmax(biased[judged] @ weight.T)
    return probabilities


def _fit(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, strength: float) -> NDArray[np.float32]:
    """Weights [classes, d + 1] of penalised maximum likelihood by L-BFGS from zero; the last column, the bias, is
    not penalised.

    scikit-learn's own solver takes ten times as long for 77 classes, in float64 and to a precision that nobody needs
    here.
    """
    shape = (classes, x.shape[1])
    decay = np.full(shape, 1 / (strength * len(x)), dtype=np.float32)
    decay[:, -1] = 0
    rows = np.arange(len(x))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight = flat.reshape(shape).astype(np.float32)
        likely = _softmax(x @ weight.T)
        value = -np.log(np.maximum(likely[rows, y], 1e-12)).mean() + 0.5 * (decay * weight * weight).sum()
        likely[rows, y] -= 1
        gradient = likely.T.astype(np.float32) @ x / len(x) + decay * weight
        return float(value), gradient.astype(np.float64).ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    weight: NDArray[np.float32] = found.x.reshape(shape).astype(np.float32)
    return weight


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    likely: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return likely
