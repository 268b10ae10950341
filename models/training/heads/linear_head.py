"""Fitting linear heads to embeddings: regularisation by cross-validation, temperature by out-of-fold logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.calibration import fit_temperature
from models.linalg import first_occurrences
from models.runtime import cpu
from models.text.heads import LinearHead

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
# More folds where there are few rows: a head fitted to four fifths of 10 rows a class is too unlike the one fitted to
# all.
_FOLDS, _FOLDS_OF_FEW, _FEW_ROWS = 5, 10, 4000
# The strengths are compared on so many of the folds; the others are only worth fitting for the best.
_COMPARED_FOLDS = 3
_TOLERANCE = 1e-4
_MOST_ITERATIONS = 500
_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A head with its temperature, and how it came about.

    `logits` float32 [n, labels] are out of fold, at temperature 1, of the n rows it was fitted to; `told` says for
    which of them (the rows whose label the other folds had too). `by_strength` is the out-of-fold accuracy of each
    strength tried. `folds` [n] are the rows' folds, `by_fold` the head at temperature 1 that each fold's rows had
    their logits from.
    """

    head: LinearHead
    strength: float
    logits: Floats
    told: NDArray[np.bool_]
    by_strength: Mapping[float, float]
    converged: bool
    folds: Ints
    by_fold: Mapping[int, LinearHead]


@dataclass(frozen=True, slots=True)
class Examples:
    """Embeddings float32 [n, d] of length 1 with class numbers int64 [n]; the first `real` rows are texts of users.

    The rows after them (label names) teach but are never scored.
    """

    x: Floats
    y: Ints
    real: int

    @classmethod
    def of(cls, x: Floats, y: Ints, more_x: Floats | None = None, more_y: Ints | None = None) -> Examples:
        """Rows, and perhaps rows that only teach."""
        if more_x is None or more_y is None:
            return cls(x, y, len(x))
        return cls(np.concatenate([x, more_x]), np.concatenate([y, more_y]), len(x))


class Held(NamedTuple):
    """Logits float32 [m, labels] of a fold's rows, and the head they are from; none for a fold without rows."""

    logits: Floats
    head: LinearHead | None
    converged: bool


def fit_head(
    examples: Examples,
    labels: tuple[str, ...],
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Fit:
    """Logistic regression with the strength (scikit-learn's C) of best out-of-fold accuracy, the smaller of equals.

    The same examples and seed give the same bytes whatever the number of cores: each fit runs on one thread, several
    at a time. `done` is told how many fits are behind it, of `count_fits`.
    """
    count = count_folds(examples.real)
    folds = stratified(examples.y[: examples.real], count, seed, examples.x[: examples.real])
    compared = range(_COMPARED_FOLDS if len(strengths) > 1 else 0)
    finished = iter(range(1, 1000))

    def held(task: tuple[float, int]) -> Held:
        solved = _held(examples, folds != task[1], task[0], labels)
        if done:
            done(next(finished))
        return solved

    with many_at_once() as pool:
        tasks = [(strength, fold) for strength in strengths for fold in compared]
        solved = dict(zip(tasks, pool.map(held, tasks), strict=True))
        by_strength = (
            {s: _accuracy(examples, folds, {f: solved[s, f].logits for f in compared}) for s in strengths}
            if tasks
            else {}
        )
        best = max(strengths, key=lambda strength: (by_strength.get(strength, 0.0), -strength))
        rest = [(best, fold) for fold in range(count) if (best, fold) not in solved]
        solved |= dict(zip(rest, pool.map(held, rest), strict=True))
        weight, bias, converged = _solve(examples.x, examples.y, best, len(labels))
    logits, told = _gathered(examples, folds, {fold: solved[best, fold].logits for fold in range(count)}, len(labels))
    temperature = (
        fit_temperature(torch.from_numpy(logits[told]), torch.from_numpy(examples.y[: examples.real][told]))
        if told.any()
        else 1.0
    )
    head = LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), labels, temperature)
    by_fold = {fold: made for fold in range(count) if (made := solved[best, fold].head) is not None}
    return Fit(
        head,
        best,
        logits,
        told,
        by_strength,
        converged and all(one.converged for one in solved.values()),
        folds,
        by_fold,
    )


def fit_plain(examples: Examples, strength: float, labels: tuple[str, ...]) -> LinearHead:
    """A head at temperature 1 with a known strength, without folds."""
    with many_at_once():
        weight, bias, _ = _solve(examples.x, examples.y, strength, len(labels))
    return LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), labels)


def count_folds(rows: int) -> int:
    """Into how many folds so many rows are cut."""
    return _FOLDS_OF_FEW if rows <= _FEW_ROWS else _FOLDS


def count_fits(rows: int, strengths: int) -> int:
    """How many fits `fit_head` makes out of fold."""
    return count_folds(rows) + (strengths - 1) * _COMPARED_FOLDS


def stratified(y: Ints, folds: int, seed: int, x: Floats | None = None) -> Ints:
    """A fold number for each row [n], each class spread over the folds as evenly as it goes.

    With embeddings [n, d] of length 1, copies of a text are in one fold, or a copy would be judged by what its like
    taught.
    """
    random, original = np.random.default_rng(seed), np.arange(len(y)) if x is None else first_occurrences(x)
    fold, known = np.empty(len(y), dtype=np.int64), np.unique(original)
    order = np.concatenate([random.permutation(known[y[known] == label]) for label in np.unique(y[known])])
    fold[order] = np.arange(len(order)) % folds
    return fold[original]


def _held(examples: Examples, inside: NDArray[np.bool_], strength: float, labels: tuple[str, ...]) -> Held:
    """Logits of the rows outside, by a head fitted to those inside and to what only teaches."""
    teaching = np.concatenate([inside, np.ones(len(examples.x) - examples.real, dtype=bool)])
    outside = examples.x[: examples.real][~inside]
    if not len(outside):
        return Held(np.empty((0, len(labels)), np.float32), None, True)
    # With fewer rows the same C weighs the penalty more, and logits come out a little smaller than the whole head's.
    # That is kept: it makes out-of-fold energies err towards fewer false alarms, and users' texts are further from the
    # training rows than one training row is from another (CLINC150: 6.3 % at alpha 0.05 on its validation part, 7.5 %
    # with C scaled; Banking77 4.3 %).
    weight, bias, converged = _solve(examples.x[teaching], examples.y[teaching], strength, len(labels))
    return Held(
        outside @ weight.T + bias, LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), labels), converged
    )


def _solve(x: Floats, y: Ints, strength: float, classes: int) -> tuple[Floats, Floats, bool]:
    """Weight float32 [classes, d] and bias [classes]; a class without rows gets a logit below all others."""
    present = np.unique(y)
    weight, bias = np.zeros((classes, x.shape[1]), np.float32), np.zeros(classes, np.float32)
    if len(present) < 2:
        bias[:] = -_MARGIN
        bias[present] = 0.0
        return weight, bias, True
    model = LogisticRegression(C=strength, tol=_TOLERANCE, max_iter=_MOST_ITERATIONS).fit(x, y)
    if len(present) == 2:  # one row of coefficients stands for both classes
        weight[present], bias[present] = (
            np.stack([-model.coef_[0], model.coef_[0]]) / 2,
            np.array([-1, 1]) * model.intercept_[0] / 2,
        )
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    absent = np.setdiff1d(np.arange(classes), present)
    weight[absent] = weight[present].mean(axis=0)
    bias[absent] = bias[present].min() - _MARGIN
    return weight, bias, bool(np.max(model.n_iter_) < _MOST_ITERATIONS)


def _accuracy(examples: Examples, folds: Ints, logits: Mapping[int, Floats]) -> float:
    y = examples.y[: examples.real]
    hits = [np.mean(rows.argmax(axis=1) == y[folds == fold]) for fold, rows in logits.items() if len(rows)]
    return float(np.mean(hits)) if hits else 0.0


def _gathered(
    examples: Examples, folds: Ints, parts: Mapping[int, Floats], classes: int
) -> tuple[Floats, NDArray[np.bool_]]:
    logits = np.zeros((examples.real, classes), np.float32)
    told = np.zeros(examples.real, dtype=bool)
    y, extra = examples.y[: examples.real], examples.y[examples.real :]
    for fold, rows in parts.items():
        held = folds == fold
        logits[held] = rows
        told[held] = np.isin(y[held], np.concatenate([y[~held], extra]))
    return logits, told


@contextmanager
def many_at_once() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread a core; the linear algebra inside keeps to one thread each, where more would only get in
    each other's way.
    """
    with warnings.catch_warnings(), threadpool_limits(1), ThreadPoolExecutor(cpu.count_cores()) as pool:
        # Not silent: `Fit.converged` says so, and the job's report.
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield pool
