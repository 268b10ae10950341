"""VUS-PR, the volume under the surface of precision and recall over buffers around labelled anomalies.

Paparrizos et al.: Volume Under the Surface, VLDB 2022. It is `avg_ap_3d` of `RangeAUC_volume_opt` in PyPI's `vus`,
which needs TensorFlow and seconds a file; cumulative sums in the order of the scores give the same in milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_THRESHOLDS = 250


def vus_pr(labels: NDArray[np.bool_], scores: NDArray[np.floating], window: int) -> float:
    """The mean over buffers of 0 to `window` readings of the area under precision and recall.

    `labels` and `scores` are [n]; higher scores are more anomalous, and at least one reading is labelled.
    """
    spans = _spans(labels)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    levels = ranked[np.linspace(0, len(scores) - 1, _THRESHOLDS).astype(int)]
    flagged = np.searchsorted(-ranked, -levels, side="right")  # readings at or above each threshold
    widest = _joined(spans, window, len(labels))
    areas = [
        _area(labels, scores, order, levels, flagged, spans, _joined(spans, buffer, len(labels)), widest, buffer)
        for buffer in range(window + 1)
    ]
    return float(np.mean(areas))


def _area(
    labels: NDArray[np.bool_],
    scores: NDArray[np.floating],
    order: NDArray[np.int64],
    levels: NDArray[np.floating],
    flagged: NDArray[np.int64],
    spans: list[tuple[int, int]],
    joined: list[tuple[int, int]],
    widest: list[tuple[int, int]],
    buffer: int,
) -> float:
    soft = _soft_labels(labels, spans, buffer)
    inside = np.zeros(len(labels), np.bool_)
    for start, end in widest:
        inside[start : end + 1] = True
    soft = np.where(inside, soft, 0.0)
    hits = np.cumsum(soft[order])[flagged - 1]
    beside = np.cumsum(np.where(labels, 0.0, soft)[order])[flagged - 1]
    peaks = np.array([scores[start : end + 1].max() for start, end in joined])
    found = (peaks[:, None] >= levels).mean(axis=0)
    positives = labels.sum() + beside / 2
    recall = np.concatenate([[0.0], np.minimum(hits / positives, 1.0) * found])
    return float(np.dot(np.diff(recall), hits / flagged))


def _spans(labels: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last rows of the labelled stretches."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labels, [False]]).astype(np.int8)))
    return [(int(start), int(end) - 1) for start, end in edges.reshape(-1, 2)]


def _joined(spans: list[tuple[int, int]], buffer: int, rows: int) -> list[tuple[int, int]]:
    """The stretches with half a buffer on each side, joined where they meet."""
    half, found = buffer // 2, [(max(spans[0][0] - buffer // 2, 0), spans[0][1])]
    for start, end in spans[1:]:
        if found[-1][1] + half < start - half:
            found[-1] = (found[-1][0], found[-1][1] + half)
            found.append((start - half, end))
        else:
            found[-1] = (found[-1][0], end)
    found[-1] = (found[-1][0], min(found[-1][1] + half, rows - 1))
    return found


def _soft_labels(labels: NDArray[np.bool_], spans: list[tuple[int, int]], buffer: int) -> Doubles:
    """1 at labelled rows, fading beside them over half a buffer."""
    soft, half = labels.astype(np.float64), buffer // 2
    for start, end in spans:
        after = np.arange(end + 1, min(end + half + 1, len(soft)))
        soft[after] += np.sqrt(1 - (after - end) / buffer) if buffer else 0.0
        before = np.arange(max(start - half, 0), start)
        soft[before] += np.sqrt(1 - (start - before) / buffer) if buffer else 0.0
    return np.minimum(soft, 1.0)
