"""Trivial baselines of texts and of forecasts, which a trained model has to beat."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.training.data.rows import TextRows, normalized
from models.training.metrics import encoded, macro_f1

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]

_MAX_FEATURES = 20_000
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline's predictions for the held-out rows, and their metrics."""

    name: str
    predictions: list[str]
    accuracy: float
    macro_f1: float


def majority(train: TextRows, held_out: TextRows) -> Baseline:
    """Always the most frequent label of the training part."""
    label = Counter(train.labels or ()).most_common(1)[0][0]
    return _evaluate("majority", held_out, [label] * len(held_out))


def word_counts(train: TextRows, held_out: TextRows, *, seed: int = 0) -> Baseline:
    """TF-IDF of words and logistic regression.

    Averaged stochastic gradient descent takes a second or two for 10,000 rows and 77 labels.
    """
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a second to import
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    vectorizer = TfidfVectorizer(
        max_features=_MAX_FEATURES, sublinear_tf=True, tokenizer=_words, token_pattern=None, lowercase=False
    )
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=30, average=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough for a baseline
        model.fit(vectorizer.fit_transform(train.texts[0]), train.labels)
    predictions = model.predict(vectorizer.transform(held_out.texts[0]))
    return _evaluate("tfidf", held_out, [str(label) for label in predictions])


def coarse_colours(train: TextRows, held_out: TextRows, colours: Callable[[Sequence[str]], Floats]) -> Baseline:
    """Logistic regression on the coarse colours float32 [n, d] of images."""
    from sklearn.exceptions import ConvergenceWarning  # as above
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough for a baseline
        model.fit(colours(train.texts[0]), train.labels)
    predictions = model.predict(colours(held_out.texts[0]))
    return _evaluate("colours", held_out, [str(label) for label in predictions])


def _words(text: str) -> list[str]:
    return normalized(text).split()


def _evaluate(name: str, held_out: TextRows, predictions: list[str]) -> Baseline:
    labels, (truth, predicted) = encoded(held_out.labels or [], predictions)
    return Baseline(name, predictions, float(np.mean(truth == predicted)), macro_f1(truth, predicted, len(labels)))


def repeat_last(horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that nothing changes."""
    return lambda x: x[..., -1:].expand(*x.shape[:-1], horizon)


def repeat_season(season: int, horizon: int) -> Callable[[Tensor], Tensor]:
    """The forecast that the last season comes again."""
    return lambda x: x[..., -season:].repeat(1, 1, -(-horizon // season))[..., :horizon]
