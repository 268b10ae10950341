"""Outcome checks of texts: is the result better, and is its confidence right?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.counted import counted
from models.training.checks.wording import lead_status, percent, share_text, warn_if
from models.training.metrics import (
    Floats,
    Interval,
    Ints,
    calibration_error,
    calibration_noise,
    class_f1,
    effective_rank,
    encoded,
    macro_f1_gain,
    mean_gain,
)
from models.training.report import Finding

MAX_CALIBRATION_ERROR = 0.03
COLLAPSED_RANK = 1.5
MIN_CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9)
# A class with fewer held-out rows is not judged.
_MIN_ROWS_OF_CLASS = 5
_RANKED = 2000
_LISTED = 5
_finding = partial(Finding.of, "outcome")


def check_outcome(
    truth: Sequence[str],
    predicted: Sequence[str],
    *,
    confidence: Floats | None = None,
    scores: Floats | None = None,
    trivial: Sequence[str] | None = None,
    trivial_name: str = "word counts",
    embeddings: Floats | None = None,
    embeddings_before: Floats | None = None,
    lines: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Iterator[Finding]:
    """Judge a classifier on held-out rows, with 95 % bootstrap intervals over rows.

    Args:
        truth: the true labels [n].
        predicted: the predicted labels [n].
        confidence: the probability of each predicted label [n].
        scores: the same as an answer has it [n], which `min_confidence` is compared with.
        trivial: the predictions of the trivial baseline [n].
        embeddings: the rows' embeddings [n, d] by the trained encoder.
        embeddings_before: those by the base encoder.
        lines: the rows' lines in the file; their positions by default.
        seed: seeds the bootstrap.
        resamples: the number of bootstrap samples.
    """
    labels, columns = encoded(truth, predicted, *((trivial,) if trivial is not None else ()))
    true, ours, classes = columns[0], columns[1], len(labels)
    score = macro_f1_gain(true, ours, None, classes, seed=seed, resamples=resamples)
    yield _finding("macro_f1", "ok", score.value, None, f"Macro-F1 on {len(truth)} held-out rows is {score}.")
    if trivial is not None:
        gain = macro_f1_gain(true, ours, columns[2], classes, seed=seed, resamples=resamples)
        remedy = f"{trivial_name.capitalize()} do as well: read the findings above, or do without a model."
        baseline = f"trivial baseline ({trivial_name})"
        yield _check_lead("against_trivial", gain, "Macro-F1", baseline, remedy, fails=True)
    if confidence is not None:
        yield check_calibration(confidence, true == ours, seed=seed)
    if scores is not None:
        yield check_coverage(scores, true == ours)
    yield _check_worst_classes(labels, true, ours, list(lines) if lines is not None else list(range(len(truth))))
    if embeddings is not None:
        yield from check_rank(embeddings, embeddings_before)


def check_frozen(lead: Interval, rows: int, measure: str = "macro-F1") -> Finding:
    """Judge a tuned encoder's lead over the frozen one on rows that neither has seen."""
    remedy = "Tuning gains too little: keep the frozen encoder with its head, or collect more rows."
    named = f"{measure[0].upper()}{measure[1:]} on {counted(rows, 'row')}"
    return _check_lead("against_frozen", lead, named, "frozen encoder", remedy, fails=False)


def check_gain(
    check: str,
    ours: Floats,
    theirs: Floats | None,
    *,
    measure: str,
    baseline: str = "baseline",
    remedy: str,
    seed: int = 0,
    resamples: int = 1000,
) -> Finding:
    """Judge a measure [n] of held-out rows or queries, where higher is better.

    `theirs` None only reports ours.
    """
    gain = mean_gain(ours, theirs, seed=seed, resamples=resamples)
    if theirs is None:
        return _finding(check, "ok", gain.value, None, f"{measure} on {len(ours)} held-out rows is {gain}.")
    return _check_lead(check, gain, measure, baseline, remedy, fails=False)


def check_base(tuned: Mapping[str, float], base: Mapping[str, float], rows: int, remedy: str) -> Iterator[Finding]:
    """Warn for each metric (higher is better) below the base model's on the same rows.

    Rank correlation and AUROC have one value for all rows, so there is no interval: any loss warns.
    """
    for name, value in tuned.items():
        message = f"{name} on {rows} held-out rows is {value:.3f}, that of the base model {base[name]:.3f}."
        yield _finding(f"{name}_against_base", warn_if(value < base[name]), value, base[name], message, remedy)


def check_calibration(confidence: Floats, right: NDArray[np.bool_], *, seed: int = 0) -> Finding:
    """Check the calibration error against a calibrated model's on the same number of rows."""
    error = calibration_error(confidence, right)
    limit = max(MAX_CALIBRATION_ERROR, calibration_noise(confidence, seed=seed))
    mean = float(np.mean(confidence))
    message = (
        f"The calibration error is {error:.3f} (the limit is {limit:.3f}): on average {mean:.1%} sure, and right for "
        f"{share_text(int(right.sum()), len(right))}."
    )
    sure = "too sure" if mean > np.mean(right) else "not sure enough"
    remedy = f"The model is {sure}: add rows, and choose `min_confidence` by the shares that this report lists."
    return _finding("calibration", warn_if(error > limit), error, limit, message, remedy)


def check_coverage(scores: Floats, right: NDArray[np.bool_]) -> Finding:
    """The share of rows [n] that a `min_confidence` would answer, against the accuracy of these."""
    listed = "; ".join(_describe_step(scores, right, least) for least in MIN_CONFIDENCES)
    rows = len(right)
    message = (
        f"`min_confidence` against accuracy on {rows} held-out rows: 0 answers all, {percent(int(right.sum()), rows)} "
        f"of them right; {listed}."
    )
    return _finding("coverage", "ok", float((scores >= MIN_CONFIDENCES[-1]).mean()), None, message)


def _describe_step(scores: Floats, right: NDArray[np.bool_], least: float) -> str:
    answered = scores >= least
    count = int(answered.sum())
    accuracy = f", {percent(int(right[answered].sum()), count)} of them right" if count else ""
    return f"{least:g} answers {percent(count, len(right))}{accuracy}"


def check_rank(embeddings: Floats, before: Floats | None = None) -> Iterator[Finding]:
    """Check the effective rank of embeddings [n, d] (at most 2,000); near 1, all are alike."""
    rank = effective_rank(embeddings[:_RANKED])
    message = f"The effective rank is {rank:.1f} of {min(embeddings.shape)}; expected {COLLAPSED_RANK} or more."
    remedy = "The embeddings have collapsed: lower the learning rate, train shorter, or use a loss with negatives."
    yield _finding("effective_rank", warn_if(rank < COLLAPSED_RANK), rank, COLLAPSED_RANK, message, remedy)
    if before is not None:
        start = effective_rank(before[:_RANKED])
        message = f"The effective rank was {start:.1f} before training and is {rank:.1f} now; expected at least half."
        remedy = "The encoder has narrowed to this task and serves others worse: train shorter, or mix in other data."
        yield _finding("rank_kept", warn_if(rank < start / 2), rank, start / 2, message, remedy)


def _check_lead(check: str, gain: Interval, measure: str, baseline: str, remedy: str, *, fails: bool) -> Finding:
    message = f"{measure} minus that of the {baseline} is {gain}: {gain.verdict}."
    return _finding(check, lead_status(gain, fails=fails), gain.value, 0.0, message, remedy)


def _check_worst_classes(labels: list[str], truth: Ints, ours: Ints, lines: list[int]) -> Finding:
    scores, counts = class_f1(truth, ours, len(labels)), np.bincount(truth, minlength=len(labels))
    order = [int(index) for index in np.argsort(scores, kind="stable") if counts[index]]
    judged = [index for index in order if counts[index] >= _MIN_ROWS_OF_CLASS]
    listed = "; ".join(
        _describe_class(labels, truth, ours, index, scores[index]) for index in (judged or order)[:_LISTED]
    )
    if not judged:
        message = f"No class has the {_MIN_ROWS_OF_CLASS} held-out rows that would judge it. The lowest F1: {listed}."
        return _finding("worst_classes", "skipped", None, None, message)
    limit = 0.5 * float(np.nanmean(scores))
    bad = [index for index in judged if scores[index] < limit]
    few = len(order) - len(judged)
    unjudged = f" {few} more have fewer than {_MIN_ROWS_OF_CLASS} held-out rows and are not judged." if few else ""
    message = f"The lowest F1 of a class is {scores[judged[0]]:.2f}; expected at least {limit:.2f}. {listed}.{unjudged}"
    remedy = "Add rows of these classes, correct their labels, or merge classes that even people confuse."
    rows = [lines[row] for row in np.flatnonzero(np.isin(truth, bad) & (truth != ours))]
    return _finding("worst_classes", warn_if(bad), float(scores[judged[0]]), limit, message, remedy, rows)


def _describe_class(labels: list[str], truth: Ints, ours: Ints, index: int, score: float) -> str:
    """A class, its F1, and the class it is most often taken for."""
    wrong = Counter(ours[(truth == index) & (ours != index)].tolist()).most_common(1)
    return f"{labels[index]!r} {score:.2f}" + (f" (taken for {labels[wrong[0][0]]!r})" if wrong else "")
