"""Plots of a sensor job's report, as plain data for JSON.

`detector_plots()`:

- `series`: at most 2,000 points of the held-out part, each the row with the highest score of its stretch: `x` (ISO
  timestamps, or lines of a file without times), `columns` ({name: readings}, the 12 that contribute most), `scores`,
  `p_values`, `threshold` ({"0.05": score or null, "0.01": …}), `anomalies` (indices into `x` with p ≤ 0.05), `labels`
  (0 or 1, or null), `marks` ({column: those of `anomalies` for which it is to blame}; null for records).
- `contributions`: {column: mean share} over the anomalies, or over all points where there is none.
- `training`: {"loss": [mean loss of each epoch]}, or null without a trained network.
- `candidates`: [{"detector", "chosen", "false_alarm_rate_0.05", "faults", "auroc"}], null where unknown.

`forecast_plots()`:

- `forecast`: the end of the longest held-out run, forecast one horizon at a time, four times at most. `x` (ISO
  timestamps, or lines of a file without times), `origins` (indices into `x` where a forecast begins), and `columns`
  (the first 12): {name: {"actual": [n], "median": […], "low": […], "high": […]}}. The last three begin at the first
  origin and hold the middle 80 %; at most one horizon comes before it.
- `horizon`: {"model": [mean squared error of each step], "last value": …, "last season": …}, in variances of the
  training part.
- `training`: {"loss": [mean loss of each epoch], "validation": [mean squared error before and after each]}, or null
  without a trained network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.sensors.calibrated_detector import training_curve
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.model import lasting_threshold
from models.training.data.forecast_split import SeriesParts
from models.training.data.segments import Segments
from models.training.sensors.detector_selection import ALPHAS, DetectorResult
from models.training.sensors.fit_forecaster import ChosenForecaster, ForecastErrors
from models.training.sensors.held_out_events import ExplainedRun, HeldOutEvent

_MAX_POINTS, _MAX_COLUMNS, _MAX_FORECASTS = 2000, 12, 4
_LEVELS = {"low": 0.1, "median": 0.5, "high": 0.9}
Rows = NDArray[np.int64]


def detector_plots(
    chosen: DetectorResult,
    results: Sequence[DetectorResult],
    held_out: Segments,
    runs: Sequence[ExplainedRun],
    events: Sequence[HeldOutEvent],
) -> dict[str, Any]:
    """The plots of a chosen detector and its candidates on the held-out part, whose scores and events are given."""
    points = highest_of_stretches(chosen.scores.scores)
    mean = _mean_contributions(chosen, held_out, runs)
    losses = training_curve(chosen.sensor).epochs
    return {
        "series": _series(chosen, held_out, points, mean, events),
        "contributions": dict(zip(held_out.columns, mean.tolist(), strict=True)),
        "training": {"loss": list(losses)} if losses else None,
        "candidates": [_candidate(result, chosen) for result in results],
    }


def _series(
    chosen: DetectorResult,
    held_out: Segments,
    points: Rows,
    shares: NDArray[np.floating],
    events: Sequence[HeldOutEvent],
) -> dict[str, Any]:
    rows, p_values = chosen.scores.rows[points], chosen.scores.p_values[points]
    shown = np.sort(np.argsort(-shares, kind="stable")[:_MAX_COLUMNS])
    anomalies = np.flatnonzero(p_values <= ALPHAS[0])
    return {
        "x": held_out.places(rows),
        "columns": {held_out.columns[column]: held_out.readings[rows, column].tolist() for column in shown.tolist()},
        "scores": chosen.scores.scores[points].tolist(),
        "p_values": p_values.tolist(),
        "threshold": {str(alpha): lasting_threshold(chosen.sensor, alpha) for alpha in ALPHAS},
        "anomalies": anomalies.tolist(),
        "marks": None if held_out.kind == "records" else _marks(anomalies, rows, events, held_out.columns),
        "labels": None if held_out.labels is None else held_out.labels[rows].astype(int).tolist(),
    }


def highest_of_stretches(scores: NDArray[np.floating]) -> Rows:
    """The row with the highest score in each of 2,000 stretches, so that peaks are drawn."""
    stretches = np.array_split(np.arange(len(scores)), min(_MAX_POINTS, len(scores))) if len(scores) else []
    return np.array([part[int(scores[part].argmax())] for part in stretches], dtype=np.int64)


def _marks(
    anomalies: Rows, rows: Rows, events: Sequence[HeldOutEvent], columns: tuple[str, ...]
) -> dict[str, list[int]]:
    """By column, the anomalies (indices into `rows`) of the events for which it is to blame."""
    marks: defaultdict[str, list[int]] = defaultdict(list)
    for one in events:
        inside = anomalies[(rows[anomalies] >= one.rows.start) & (rows[anomalies] < one.rows.stop)]
        for column in one.event.main_columns(columns):
            marks[column] += inside.tolist()
    return dict(marks)


def _mean_contributions(
    chosen: DetectorResult, held_out: Segments, runs: Sequence[ExplainedRun]
) -> NDArray[np.floating]:
    """Each column's mean share [d] of the anomalies' scores; of all scores without any."""
    shares = _contributions(chosen, held_out, runs)
    if not len(shares):
        return np.zeros(len(held_out.columns))
    anomalies = chosen.scores.p_values <= ALPHAS[0]
    mean: NDArray[np.floating] = (shares[anomalies] if anomalies.any() else shares).mean(axis=0)
    return mean


def _contributions(chosen: DetectorResult, held_out: Segments, runs: Sequence[ExplainedRun]) -> NDArray[np.float32]:
    """Contributions [n, d] of the rows that complete a window."""
    none = np.zeros((0, len(held_out.columns)), np.float32)
    found = [run.scored.contributions for run in runs if run.scored.contributions is not None]
    return np.concatenate([none, *(shares[chosen.sensor.window - 1 :] for shares in found)])


def _candidate(result: DetectorResult, chosen: DetectorResult) -> dict[str, Any]:
    return {
        "detector": result.name,
        "chosen": result is chosen,
        "false_alarm_rate_0.05": result.metrics.get("false_alarm_rate_0.05"),
        "faults": result.faults,
        "auroc": result.metrics.get("auroc"),
    }


def forecast_plots(
    chosen: ChosenForecaster, parts: SeriesParts, errors: Mapping[str, ForecastErrors]
) -> dict[str, Any]:
    """The plots of a forecaster, with the errors of the model and of naive forecasts."""
    return {
        "forecast": _forecast(chosen.forecaster, parts),
        "horizon": {name: error.by_step.tolist() for name, error in errors.items()},
        "training": None if chosen.training is None else asdict(chosen.training),
    }


def _forecast(forecaster: SeriesForecaster, parts: SeriesParts) -> dict[str, Any]:
    number = int(np.argmax([len(run) for run in parts.held_out]))
    run, held = parts.held_out[number], list(parts.readings.held_out.each())[number]
    context, horizon = forecaster.context, forecaster.horizon
    count = min((len(run) - context) // horizon, _MAX_FORECASTS)
    origins = range(len(run) - count * horizon, len(run), horizon)
    # A run may begin with context rows that are not held out; they are not drawn.
    begin = max(len(run) - (held.stop - held.start), origins[0] - horizon)
    levels = tuple(_LEVELS.values())
    forecasts = [forecaster.forecast(run[:origin], horizon, levels).quantiles for origin in origins]
    bands = {name: np.concatenate([quantiles[level] for quantiles in forecasts]) for name, level in _LEVELS.items()}
    return {
        "x": parts.readings.held_out.places(np.arange(held.stop - len(run) + begin, held.stop)),
        "origins": [origin - begin for origin in origins],
        "columns": {
            name: {
                "actual": run[begin:, column].tolist(),
                **{band: values[:, column].tolist() for band, values in bands.items()},
            }
            for column, name in enumerate(parts.readings.train.columns[:_MAX_COLUMNS])
        },
    }
