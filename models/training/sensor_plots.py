"""What a report draws of a detector of numbers: readings, scores, threshold and found anomalies, shares, the training's loss.

`plots()` gives plain data for JSON:

- `series`: the held-out part, at most 2,000 points, each the row of highest score of its stretch: `x` (ISO timestamps where the
  file has times, else lines of the file), `columns` ({name: readings}, the 12 that contribute most), `scores`, `p_values`,
  `threshold` ({"0.05": score or null, "0.01": …}), `anomalies` (indices into `x` with p ≤ 0.05), `labels` (0 or 1, or null).
- `contributions`: {column: mean share} over the found anomalies, or over all points where none was found.
- `training`: {"loss": [mean loss of each epoch]}, or null where no network was trained.
- `candidates`: [{"detector", "chosen", "false_alarm_rate_0.05", "faults", "auroc"}], null where not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.sensors.seam import lasting_threshold
from models.sensors.sensor import descent_of
from models.training.runs import Runs
from models.training.sensor_choice import ALPHAS, Judged

MOST_POINTS, MOST_COLUMNS = 2000, 12
Rows = NDArray[np.int64]


def plots(chosen: Judged, judged: Sequence[Judged], held_out: Runs) -> dict[str, Any]:
    """See the module's docstring."""
    shares = _shares(chosen, held_out)
    points = _points(chosen.scores.scores)
    found = chosen.scores.p_values <= ALPHAS[0]
    mean = shares[found if found.any() else slice(None)].mean(axis=0) if len(shares) else np.zeros(len(held_out.columns))
    losses = descent_of(chosen.sensor).epochs
    return {
        "series": _series(chosen, held_out, points, mean),
        "contributions": dict(zip(held_out.columns, mean.tolist(), strict=True)),
        "training": {"loss": list(losses)} if losses else None,
        "candidates": [_candidate(one, chosen) for one in judged],
    }


def _series(chosen: Judged, held_out: Runs, points: Rows, shares: NDArray[np.floating]) -> dict[str, Any]:
    rows, p_values = chosen.scores.rows[points], chosen.scores.p_values[points]
    shown = np.sort(np.argsort(-shares, kind="stable")[:MOST_COLUMNS])
    return {
        "x": held_out.places(rows),
        "columns": {held_out.columns[column]: held_out.readings[rows, column].tolist() for column in shown.tolist()},
        "scores": chosen.scores.scores[points].tolist(),
        "p_values": p_values.tolist(),
        "threshold": {str(alpha): lasting_threshold(chosen.sensor, alpha) for alpha in ALPHAS},
        "anomalies": np.flatnonzero(p_values <= ALPHAS[0]).tolist(),
        "labels": None if held_out.labels is None else held_out.labels[rows].astype(int).tolist(),
    }


def _points(scores: NDArray[np.float32]) -> Rows:
    """The highest score of each of at most 2,000 equal stretches: a peak must not fall between two points."""
    stretches = np.array_split(np.arange(len(scores)), min(MOST_POINTS, len(scores))) if len(scores) else []
    return np.array([part[int(scores[part].argmax())] for part in stretches], dtype=np.int64)


def _shares(chosen: Judged, held_out: Runs) -> NDArray[np.float32]:
    """Contributions [n, d] of the rows that were scored."""
    found = [np.zeros((0, len(held_out.columns)), np.float32)]
    for run in held_out.each():
        scored = chosen.sensor.score(held_out.readings[run], contributions=True)
        if scored.contributions is not None:
            found.append(scored.contributions[chosen.sensor.window - 1 :])
    return np.concatenate(found)


def _candidate(one: Judged, chosen: Judged) -> dict[str, Any]:
    rate = one.metrics.get(f"false_alarm_rate_{ALPHAS[0]}")
    return {
        "detector": one.name,
        "chosen": one is chosen,
        "false_alarm_rate_0.05": rate,
        "faults": one.faults,
        "auroc": one.metrics.get("auroc"),
    }
