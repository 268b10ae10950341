"""The scoring of the Numenta Anomaly Benchmark: detections in labelled windows.

Lavin and Ahmad: Evaluating Real-time Anomaly Detection Algorithms, 2015, with the details of the benchmark's version
1.1: a detection is worth the more the earlier it comes in its window, only the earliest in a window counts, a false
one costs the less the closer it follows a window, and the first rows of a file are for learning. One threshold holds
for all files; it is the one with the best score, as the benchmark's own optimiser has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Window = tuple[int, int]

_PROBATION_SHARE, _PROBATION_ROWS = 0.15, 750
# A false detection this many window widths after a window costs the most.
_FAR_PAST = 3.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The gain of a found window, the cost of a false detection and of a missed window."""

    found: float = 1.0
    false: float = 0.11
    missed: float = 1.0


STANDARD = Profile()


@dataclass(frozen=True, slots=True)
class Labels:
    """The rows of one file and its windows, as inclusive first and last rows in order.

    ValueError for windows that are out of order, overlap or leave the file.
    """

    rows: int
    windows: tuple[Window, ...]

    def __post_init__(self) -> None:
        ends = [-1] + [end for window in self.windows for end in window]
        if any(first > last for first, last in self.windows) or any(
            start <= previous for previous, start in zip(ends[::2], ends[1::2], strict=False)
        ):
            raise ValueError(f"expected windows in order and apart, got {self.windows}")
        if ends[-1] >= self.rows:
            raise ValueError(f"a window ends at row {ends[-1]} of a file of {self.rows}")

    @property
    def probation(self) -> int:
        """How many rows at the start are neither rewarded nor punished."""
        return math.floor(min(_PROBATION_SHARE * self.rows, _PROBATION_ROWS))

    @property
    def scorable(self) -> tuple[Window, ...]:
        """The windows of which at least one row comes after the probation."""
        return tuple(window for window in self.windows if window[1] >= self.probation)


@dataclass(frozen=True, slots=True)
class FileScore:
    """A file's result: gain or cost per scorable window, and the cost of false detections."""

    windows: tuple[float, ...]
    false_detections: int
    false_cost: float

    @property
    def raw(self) -> float:
        """The file's score before it is normalized."""
        return sum(self.windows) + self.false_cost


@dataclass(frozen=True, slots=True)
class Result:
    """All files at one threshold: a row is detected when its score is at least that."""

    threshold: float
    files: tuple[FileScore, ...]
    profile: Profile = field(default=STANDARD)

    @property
    def normalized(self) -> float:
        """Normalize a score: 100 for all windows found at their first rows, 0 for silence.

        Raises ValueError without windows.
        """
        windows = sum(len(file.windows) for file in self.files)
        if not windows:
            raise ValueError("files without a window have no normalized score")
        silent, perfect = -self.profile.missed * windows, self.profile.found * windows
        return 100.0 * (sum(file.raw for file in self.files) - silent) / (perfect - silent)


def scaled_sigmoid(position: Floats) -> Floats:
    """2 / (1 + e^(5y)) - 1 of positions y in window widths, and -1 from 3 on.

    y is -1 at a window's first row, 0 at its end, and positive after it.
    """
    return np.where(position >= _FAR_PAST, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, _FAR_PAST))) - 1.0)


def row_values(labels: Labels, profile: Profile = STANDARD) -> tuple[Floats, NDArray[np.int64]]:
    """The worth of a detection at each row [n], and its scorable window [n], -1 outside.

    The benchmark places row i of a window first..last of w rows at y = -(last - i + 1) / w and divides by the
    sigmoid at -1, so that the first row earns 1 and the last a little more than 0. A row behind it is at y = (i -
    last) / (w - 1).
    """
    values = np.full(labels.rows, -profile.false)
    window_of_row = np.full(labels.rows, -1, dtype=np.int64)
    earliest = float(scaled_sigmoid(np.array(-1.0)))
    for index, (first, last) in enumerate(labels.windows):
        width, rows = last - first + 1, np.arange(first, labels.rows)
        behind = (rows - last) / (width - 1) if width > 1 else np.full(len(rows), _FAR_PAST)
        values[first:] = profile.false * scaled_sigmoid(np.maximum(behind, 0.0))
        values[first : last + 1] = profile.found * scaled_sigmoid(-(last - rows[:width] + 1) / width) / earliest
        window_of_row[first : last + 1] = index - (len(labels.windows) - len(labels.scorable))
    return values, np.maximum(window_of_row, -1)


def score_file(scores: Floats, labels: Labels, threshold: float, profile: Profile = STANDARD) -> FileScore:
    """What the detections `scores` >= threshold [n] are worth in one file."""
    _require_rows(scores, labels)
    values, window_of_row = row_values(labels, profile)
    detected = (scores >= threshold) & (np.arange(labels.rows) >= labels.probation)
    false = detected & (window_of_row < 0)
    found = [np.flatnonzero(detected & (window_of_row == index)) for index in range(len(labels.scorable))]
    earned = tuple(float(values[rows[0]]) if len(rows) else -profile.missed for rows in found)
    return FileScore(earned, int(false.sum()), float(values[false].sum()))


def score_at(files: Sequence[tuple[Floats, Labels]], threshold: float, profile: Profile = STANDARD) -> Result:
    """All files, each as scores [n] and labels, at one threshold."""
    return Result(threshold, tuple(score_file(scores, labels, threshold, profile) for scores, labels in files), profile)


def best_threshold(files: Sequence[tuple[Floats, Labels]], profile: Profile = STANDARD) -> float:
    """The largest threshold with the best raw score over all files; infinity for silence.

    The scores are taken from the highest down and each row adds what it changes: a false detection its cost, a row
    of a window what it earns beyond the best row of that window so far.
    """
    scores, values, window, windows = _pooled(files, profile)
    order = np.argsort(-scores, kind="stable")
    earned = np.full(windows, -profile.missed)
    gains = np.where(window < 0, values, 0.0)
    for row in order[window[order] >= 0]:
        gains[row] = max(0.0, values[row] - earned[window[row]])
        earned[window[row]] += gains[row]
    ordered, total = scores[order], np.cumsum(gains[order])
    distinct = np.append(ordered[1:] != ordered[:-1], True)
    best = int(np.argmax(total[distinct]))
    return float(ordered[distinct][best]) if total[distinct][best] > 0 else math.inf


def _pooled(files: Sequence[tuple[Floats, Labels]], profile: Profile) -> tuple[Floats, Floats, NDArray[np.int64], int]:
    """Scores, worth and window of every row after the probation, and the number of windows.

    Windows are numbered through all files.
    """
    if not files:
        raise ValueError("expected at least one file")
    parts: list[tuple[Floats, Floats, NDArray[np.int64]]] = []
    before = 0
    for scores, labels in files:
        _require_rows(scores, labels)
        values, window_of_row = row_values(labels, profile)
        numbered, after = np.where(window_of_row < 0, -1, window_of_row + before), slice(labels.probation, None)
        parts.append((scores[after], values[after], numbered[after]))
        before += len(labels.scorable)
    scores, values, window_of_row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, values, window_of_row, before


def _require_rows(scores: Floats, labels: Labels) -> None:
    if scores.shape != (labels.rows,) or not np.isfinite(scores).all():
        raise ValueError(f"expected {labels.rows} finite scores, got {list(scores.shape)}")
