"""Linear heads fitted to embeddings: regularisation by cross-validation, confidence by out-of-fold logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, product
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.linalg import first_occurrences
from models.runtime import cpu
from models.text.confidence import Confidence
from models.text.heads import LinearHead

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
# Few rows get more folds: a head fitted to four fifths of 10 rows a class is too unlike the one fitted to all.
_FOLDS, _FOLDS_OF_FEW, _FEW_ROWS = 5, 10, 4000
# The strengths are compared on the first folds; the other folds are only worth fitting for the best.
_COMPARED_FOLDS = 3
_TOLERANCE = 1e-4
_MOST_ITERATIONS = 500
# Wrong labels are found alike after 30 iterations and at convergence, which takes twice as long with 6,400 rows.
_ITERATIONS_FOR_LABEL_ERRORS = 30
_MARGIN = 5.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Embeddings float32 [n, d] of length 1 with class numbers int64 [n]; the first `real` rows are users' texts.

    The rows after them (label names, views of images) teach but are never scored. `copies_of` [n - real] are the
    numbers of the users' rows that they are views of, which they never judge; None where they are of none.
    """

    x: Floats
    y: Ints
    real: int
    copies_of: Ints | None = None

    @classmethod
    def of(cls, x: Floats, y: Ints, more_x: Floats | None = None, more_y: Ints | None = None) -> Examples:
        """Users' rows, and optionally rows that only teach."""
        if more_x is None or more_y is None:
            return cls(x, y, len(x))
        return cls(np.concatenate([x, more_x]), np.concatenate([y, more_y]), len(x))

    @classmethod
    def with_views(cls, x: Floats, y: Ints, views: Floats) -> Examples:
        """Users' rows [n, d] and their views [views * n, d]: the first view of each row, then the second, and so on."""
        rows = np.tile(np.arange(len(x)), len(views) // max(len(x), 1))
        return cls(np.concatenate([x, views]), np.concatenate([y, y[rows]]), len(x), rows)

    @property
    def real_x(self) -> Floats:
        """Embeddings [real, d] of the users' texts."""
        return self.x[: self.real]

    @property
    def real_y(self) -> Ints:
        """Class numbers [real] of the users' texts."""
        return self.y[: self.real]


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A head with its confidence, and how it came about.

    `logits` float32 [real, labels] are out of fold, at temperature 1. `covered` [real] marks the rows whose label the
    other folds had too. `by_strength` is the out-of-fold accuracy of each strength tried. `folds` [real] are the
    rows' folds; `by_fold` has the head at temperature 1 that gave a fold its logits.
    """

    head: LinearHead
    strength: float
    logits: Floats
    covered: NDArray[np.bool_]
    by_strength: Mapping[float, float]
    converged: bool
    folds: Ints
    by_fold: Mapping[int, LinearHead]


@dataclass(frozen=True, slots=True)
class _Solution:
    head: LinearHead
    converged: bool


@dataclass(frozen=True, slots=True)
class _CrossValidation:
    """Heads of several strengths, each fitted without one fold's rows. `done` gets the number of finished fits."""

    examples: Examples
    labels: tuple[str, ...]
    folds: Ints
    done: Callable[[int], None] | None
    solutions: dict[tuple[float, int], _Solution] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def solve(self, pool: ThreadPoolExecutor, tasks: Iterable[tuple[float, int]]) -> None:
        """Fit a head for each pair of strength and fold that has none yet, several at a time."""
        missing = [task for task in tasks if task not in self.solutions]
        self.solutions.update(zip(missing, pool.map(lambda task: self._solve(*task), missing), strict=True))

    def compare(self, pool: ThreadPoolExecutor, strengths: Sequence[float], folds: Sequence[int]) -> dict[float, float]:
        """The accuracy of each strength over these folds."""
        self.solve(pool, product(strengths, folds))
        return {strength: self.accuracy(strength, folds) for strength in strengths}

    def converged(self) -> bool:
        """Whether all fits have."""
        return all(solution.converged for solution in self.solutions.values())

    def accuracy(self, strength: float, folds: Iterable[int]) -> float:
        """Mean accuracy over these folds, those without rows aside."""
        y = self.examples.real_y
        held = [(self.folds == fold, fold) for fold in folds]
        hits = [np.mean(self.logits(strength, fold).argmax(axis=1) == y[rows]) for rows, fold in held if rows.any()]
        return float(np.mean(hits)) if hits else 0.0

    def logits(self, strength: float, fold: int) -> Floats:
        """Logits float32 [m, labels] of a fold's rows by the head that has not seen them."""
        return linear_logits(self.solutions[strength, fold].head, self.examples.real_x[self.folds == fold])

    def all_logits(self, strength: float) -> Floats:
        """Out-of-fold logits float32 [real, labels]."""
        logits = np.zeros((self.examples.real, len(self.labels)), np.float32)
        for fold in np.unique(self.folds).tolist():
            logits[self.folds == fold] = self.logits(strength, fold)
        return logits

    def covered(self) -> NDArray[np.bool_]:
        """Which rows [real] have a label that occurs outside their fold."""
        y, covered = self.examples.real_y, np.zeros(self.examples.real, dtype=np.bool_)
        for fold in np.unique(self.folds):
            held = self.folds == fold
            covered[held] = np.isin(y[held], self.examples.y[self._teaching(fold)])
        return covered

    def _solve(self, strength: float, fold: int) -> _Solution:
        # With fewer rows the same C weighs the penalty more, and logits come out a little smaller than the whole
        # head's. That is kept: it makes out-of-fold energies err towards fewer false alarms, and users' texts are
        # further from the training rows than one training row is from another (CLINC150: 6.3 % at alpha 0.05 on its
        # validation part, 7.5 % with C scaled; Banking77 4.3 %).
        teaching = self._teaching(fold)
        solution = _solve(self.examples.x[teaching], self.examples.y[teaching], strength, self.labels)
        if self.done is not None:
            self.done(next(self.numbers))
        return solution

    def _teaching(self, fold: int) -> NDArray[np.bool_]:
        """The rows [n] outside a fold, and those that only teach; a view of a row is in its fold."""
        outside, examples = self.folds != fold, self.examples
        if examples.copies_of is not None:
            return np.concatenate([outside, outside[examples.copies_of]])
        return np.concatenate([outside, np.ones(len(examples.x) - examples.real, np.bool_)])


def fit_head(
    examples: Examples,
    labels: tuple[str, ...],
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> HeadFit:
    """Logistic regression with the strength (scikit-learn's C) of best out-of-fold accuracy, the smaller of equals.

    The same examples and seed give the same bytes whatever the number of cores: each fit runs on one thread, several
    at a time. `done` gets the number of finished fits, up to `count_fits`.
    """
    folds = stratified(examples.real_y, count_folds(examples.real), seed, examples.real_x)
    validation = _CrossValidation(examples, labels, folds, done)
    every = range(count_folds(examples.real))
    with parallel_fits() as pool:
        by_strength = validation.compare(pool, strengths, every[:_COMPARED_FOLDS]) if len(strengths) > 1 else {}
        best = max(strengths, key=lambda strength: (by_strength.get(strength, 0.0), -strength))
        validation.solve(pool, [(best, fold) for fold in every])
        whole = _solve(examples.x, examples.y, best, labels)
        logits, covered = validation.all_logits(best), validation.covered()
    return HeadFit(
        calibrate(whole.head, logits[covered], examples.real_y[covered]),
        best,
        logits,
        covered,
        by_strength,
        whole.converged and validation.converged(),
        folds,
        {fold: validation.solutions[best, fold].head for fold in np.unique(folds).tolist()},
    )


def fit_plain(examples: Examples, strength: float, labels: tuple[str, ...]) -> LinearHead:
    """A head at temperature 1 with a known strength, without folds."""
    with parallel_fits():
        return _solve(examples.x, examples.y, strength, labels).head


def calibrate(head: LinearHead, logits: Floats, y: Ints) -> LinearHead:
    """The head with the confidence that logits [m, labels] of unseen rows with class numbers [m] support."""
    return head.at(Confidence.fitted(torch.from_numpy(logits), torch.from_numpy(y)))


def linear_logits(head: LinearHead, x: Floats) -> Floats:
    """Logits float32 [n, labels] of embeddings [n, d] at temperature 1."""
    logits: Floats = x @ head.weight.numpy().T + head.bias.numpy()
    return logits


def out_of_fold_probabilities(x: Floats, y: Ints, *, strength: float = 10.0, seed: int = 0) -> Floats:
    """Probabilities float32 [n, classes] by logistic regressions that have not seen the row.

    They are for finding wrong labels. x is float32 [n, d], y int64 [n] with two rows a class at least.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(int(min(5, np.bincount(y).min())), shuffle=True, random_state=seed)
    model = LogisticRegression(C=strength, max_iter=_ITERATIONS_FOR_LABEL_ERRORS)
    with parallel_fits():
        probabilities: Floats = cross_val_predict(model, x, y, cv=folds, method="predict_proba")
    return probabilities


def count_folds(rows: int) -> int:
    """The number of folds that rows are cut into."""
    return _FOLDS_OF_FEW if rows <= _FEW_ROWS else _FOLDS


def count_fits(rows: int, strengths: int) -> int:
    """The number of out-of-fold fits that `fit_head` makes."""
    return count_folds(rows) + (strengths - 1) * _COMPARED_FOLDS


def stratified(y: Ints, folds: int, seed: int, x: Floats | None = None) -> Ints:
    """A fold number for each row [n], each class spread over the folds as evenly as it goes.

    With embeddings [n, d] of length 1, copies of a text are in one fold: otherwise one copy would teach the other.
    """
    random, original = np.random.default_rng(seed), np.arange(len(y)) if x is None else first_occurrences(x)
    fold, known = np.empty(len(y), dtype=np.int64), np.unique(original)
    order = np.concatenate([random.permutation(known[y[known] == label]) for label in np.unique(y[known])])
    fold[order] = np.arange(len(order)) % folds
    return fold[original]


@contextmanager
def parallel_fits() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread a core, with one thread of linear algebra for each fit.

    More threads of linear algebra would wait for each other.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(), threadpool_limits(1), ThreadPoolExecutor(cpu.count_cores()) as pool:
        # `HeadFit.converged` and the job's report say so instead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield pool


def _solve(x: Floats, y: Ints, strength: float, labels: tuple[str, ...]) -> _Solution:
    """A head at temperature 1; a label without rows gets a logit below all others."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((len(labels), x.shape[1]), np.float32), np.zeros(len(labels), np.float32)
    present, absent = np.unique(y), np.setdiff1d(np.arange(len(labels)), y)
    converged = True
    if len(present) >= 2:
        model = LogisticRegression(C=strength, tol=_TOLERANCE, max_iter=_MOST_ITERATIONS).fit(x, y)
        weight[present], bias[present] = _coefficients(model)
        weight[absent] = weight[present].mean(axis=0)
        converged = bool(np.max(model.n_iter_) < _MOST_ITERATIONS)
    bias[absent] = bias[present].min() - _MARGIN
    return _Solution(LinearHead(torch.from_numpy(weight), torch.from_numpy(bias), labels), converged)


def _coefficients(model: LogisticRegression) -> tuple[Floats, Floats]:
    """A row of weights and a bias for each class: of two classes scikit-learn keeps one row for both."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
