"""Fifth rung: is the result better than what is there already, and does it know how sure it is?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

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
from models.training.report import Finding, Status, named_rows

MAX_CALIBRATION_ERROR = 0.03
COLLAPSED_RANK = 1.5
# Of a class with fewer held-out rows nothing can be said.
_ENOUGH = 5
_RANKED = 2000
_LISTED = 5


def check_outcome(
    truth: Sequence[str],
    predicted: Sequence[str],
    *,
    confidence: Floats | None = None,
    trivial: Sequence[str] | None = None,
    embeddings: Floats | None = None,
    embeddings_before: Floats | None = None,
    lines: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Iterator[Finding]:
    """Judge a classifier on held-out rows: labels that are true and predicted, [n] each.

    `confidence` [n] is the probability of the predicted label; `trivial` are the predictions of the trivial baseline;
    `embeddings` [n, d] those of the result, `embeddings_before` those of the encoder it began with.
    Intervals are 95 % bootstrap intervals over rows.
    """
    labels, columns = encoded(truth, predicted, *((trivial,) if trivial is not None else ()))
    true, ours, classes = columns[0], columns[1], len(labels)
    score = macro_f1_gain(true, ours, None, classes, seed=seed, resamples=resamples)
    yield _finding("macro_f1", "ok", score.value, None, f"Macro-F1 on {len(truth)} held-out rows is {score}.", "")
    if trivial is not None:
        gain = macro_f1_gain(true, ours, columns[2], classes, seed=seed, resamples=resamples)
        remedy = "Counting words does as well: look at the rungs before, or do without a model."
        yield _against("against_trivial", gain, "Macro-F1", "trivial", remedy, fails=True)
    if confidence is not None:
        yield check_calibration(confidence, true == ours, seed=seed)
    yield _worst_classes(labels, true, ours, list(lines) if lines is not None else list(range(len(truth))))
    if embeddings is not None:
        yield from check_rank(embeddings, embeddings_before)


def check_frozen(lead: Interval, rows: int, measure: str = "macro-F1") -> Finding:
    """What a tuned encoder's lead over the frozen one in a measure says, on rows that neither had."""
    remedy = "Tuning did not earn its place: keep the frozen encoder with its head, or collect more rows."
    return _against(
        "against_frozen", lead, f"{measure[0].upper()}{measure[1:]} on {rows} rows", "frozen", remedy, fails=False
    )


def check_gain(
    check: str,
    ours: Floats,
    theirs: Floats | None,
    *,
    measure: str,
    rival: str = "baseline",
    remedy: str,
    seed: int = 0,
    resamples: int = 1000,
) -> Finding:
    """Judge any measure that each held-out row (or query) has one number of, [n]: higher is better; `theirs` None
    only reports.
    """
    gain = mean_gain(ours, theirs, seed=seed, resamples=resamples)
    if theirs is None:
        return _finding(check, "ok", gain.value, None, f"{measure} on {len(ours)} held-out rows is {gain}.", "")
    return _against(check, gain, measure, rival, remedy, fails=False)


def check_base(tuned: Mapping[str, float], base: Mapping[str, float], rows: int, remedy: str) -> Iterator[Finding]:
    """Whether tuning has cost anything of what the base model does on the same held-out rows, metric by metric:
    higher is better.

    Rank correlation and AUROC are of all rows together, so there is no interval: what is worse at all is told.
    """
    for name, value in tuned.items():
        lost = value < base[name]
        message = f"{name} on {rows} held-out rows is {value:.3f}, that of the base model {base[name]:.3f}."
        yield _finding(f"{name}_against_base", "warn" if lost else "ok", value, base[name], message, remedy)


def check_calibration(confidence: Floats, right: NDArray[np.bool_], *, seed: int = 0) -> Finding:
    """Expected calibration error, against what chance alone gives a calibrated model on so few rows."""
    error = calibration_error(confidence, right)
    limit = max(MAX_CALIBRATION_ERROR, calibration_noise(confidence, seed=seed))
    sure = "too sure" if float(np.mean(confidence)) > float(np.mean(right)) else "not sure enough"
    message = (
        f"The calibration error is {error:.3f}: on average {np.mean(confidence):.1%} sure, {np.mean(right):.1%} right."
    )
    return _finding(
        "calibration",
        "ok" if error <= limit else "warn",
        error,
        limit,
        message,
        f"The model is {sure}: scale its temperature.",
    )


def check_rank(embeddings: Floats, before: Floats | None = None) -> Iterator[Finding]:
    """Effective rank of embeddings [n, d], of 2,000 rows at most: near 1 they have all become the same."""
    rank = effective_rank(embeddings[:_RANKED])
    message = f"The embeddings have an effective rank of {rank:.1f} of {min(embeddings.shape)}."
    remedy = "They have collapsed: lower the learning rate, train shorter, or use a loss that pushes apart."
    yield _finding("effective_rank", "warn" if rank < COLLAPSED_RANK else "ok", rank, COLLAPSED_RANK, message, remedy)
    if before is not None:
        start = effective_rank(before[:_RANKED])
        message = f"Their effective rank was {start:.1f} before training and is {rank:.1f} now."
        remedy = "The encoder has narrowed to this task; it serves others worse. Train shorter, or mix in other data."
        yield _finding("rank_kept", "warn" if rank < start / 2 else "ok", rank, start / 2, message, remedy)


def _against(check: str, gain: Interval, measure: str, rival: str, remedy: str, *, fails: bool) -> Finding:
    status: Status = "ok" if gain.low > 0 else "fail" if gain.high < 0 and fails else "warn"
    return _finding(
        check, status, gain.value, 0.0, f"{measure} minus that of the {rival} one is {gain}: {gain.verdict}.", remedy
    )


def _worst_classes(labels: list[str], truth: Ints, ours: Ints, lines: list[int]) -> Finding:
    scores, counts = class_f1(truth, ours, len(labels)), np.bincount(truth, minlength=len(labels))
    order = [int(index) for index in np.argsort(scores, kind="stable") if counts[index]]
    told = "; ".join(_told(labels, truth, ours, index, scores[index]) for index in order[:_LISTED])
    limit = 0.5 * float(np.nanmean(scores))
    bad = [index for index in order if counts[index] >= _ENOUGH and scores[index] < limit]
    rows = [lines[row] for row in np.flatnonzero(np.isin(truth, bad) & (truth != ours))]
    remedy = "Add rows of these classes, correct their labels, or join classes that nobody can tell apart."
    return _finding(
        "worst_classes",
        "warn" if bad else "ok",
        float(scores[order[0]]),
        limit,
        f"The worst classes by F1: {told}.",
        remedy,
        rows,
    )


def _told(labels: list[str], truth: Ints, ours: Ints, index: int, score: float) -> str:
    wrong = Counter(ours[(truth == index) & (ours != index)].tolist()).most_common(1)
    return f"{labels[index]!r} {score:.2f}" + (f" (taken for {labels[wrong[0][0]]!r})" if wrong else "")


def _finding(
    check: str,
    status: Status,
    value: float,
    threshold: float | None,
    message: str,
    remedy: str,
    rows: Sequence[int] = (),
) -> Finding:
    return Finding(
        "outcome", check, status, value, threshold, message, remedy if status != "ok" else "", named_rows(rows)
    )
