"""What a report draws: of a detector its readings, scores and faults found; of a forecaster what came and what was
forecast.

`detector_plots()` gives plain data for JSON:

- `series`: the held-out part, at most 2,000 points, each the row of highest score of its stretch: `x` (ISO
  timestamps where the file has times, else lines of the file), `columns` ({name: readings}, the 12 that contribute
  most), `scores`, `p_values`, `threshold` ({"0.05": score or null, "0.01": …}), `anomalies` (indices into `x` with p
  ≤ 0.05), `labels` (0 or 1, or null).
- `contributions`: {column: mean share} over the found anomalies, or over all points where none was found.
- `training`: {"loss": [mean loss of each epoch]}, or null where no network was trained.
- `candidates`: [{"detector", "chosen", "false_alarm_rate_0.05", "faults", "auroc"}], null where not known.

`forecast_plots()` gives plain data for JSON:

- `forecast`: the end of the longest held-out run, forecast a horizon at a time, four times at most. `x` (ISO
  timestamps where the file has times, else lines of the file), `origins` (indices into `x` at which a forecast
  begins), and `columns` (the first 12): {name: {"actual": [n], "median": […], "low": […], "high": […]}}. The last
  three begin at the first origin and hold the middle 80 %; what came before it is at most one horizon.
- `horizon`: {"model": [mean squared error of each step], "last value": …, "last season": …}, in variances of the
  training part.
- `training`: {"loss": [mean loss of each epoch], "validation": [mean squared error before and after each]}, or null
  where no network was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.sensors.base import lasting_threshold
from models.sensors.calibrated import training_curve
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.training.data.forecast_split import SeriesParts
from models.training.data.segments import Segments
from models.training.sensors.detector_selection import ALPHAS, DetectorResult
from models.training.sensors.fit_forecaster import ChosenForecaster, ForecastErrors

MOST_POINTS, MOST_COLUMNS = 2000, 12
Rows = NDArray[np.int64]


def detector_plots(chosen: DetectorResult, judged: Sequence[DetectorResult], held_out: Segments) -> dict[str, Any]:
    """See the module's docstring."""
    shares = _shares(chosen, held_out)
    points = _points(chosen.scores.scores)
    found = chosen.scores.p_values <= ALPHAS[0]
    mean = (
        shares[found if found.any() else slice(None)].mean(axis=0) if len(shares) else np.zeros(len(held_out.columns))
    )
    losses = training_curve(chosen.sensor).epochs
    return {
        "series": _series(chosen, held_out, points, mean),
        "contributions": dict(zip(held_out.columns, mean.tolist(), strict=True)),
        "training": {"loss": list(losses)} if losses else None,
        "candidates": [_candidate(one, chosen) for one in judged],
    }


def _series(chosen: DetectorResult, held_out: Segments, points: Rows, shares: NDArray[np.floating]) -> dict[str, Any]:
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


def _shares(chosen: DetectorResult, held_out: Segments) -> NDArray[np.float32]:
    """Contributions [n, d] of the rows that were scored."""
    found = [np.zeros((0, len(held_out.columns)), np.float32)]
    for run in held_out.each():
        scored = chosen.sensor.score(held_out.readings[run], contributions=True)
        if scored.contributions is not None:
            found.append(scored.contributions[chosen.sensor.window - 1 :])
    return np.concatenate(found)


def _candidate(one: DetectorResult, chosen: DetectorResult) -> dict[str, Any]:
    rate = one.metrics.get(f"false_alarm_rate_{ALPHAS[0]}")
    return {
        "detector": one.name,
        "chosen": one is chosen,
        "false_alarm_rate_0.05": rate,
        "faults": one.faults,
        "auroc": one.metrics.get("auroc"),
    }


MOST_COLUMNS = 12
_MOST_FORECASTS = 4
_LEVELS = {"low": 0.1, "median": 0.5, "high": 0.9}


def forecast_plots(
    chosen: ChosenForecaster, parts: SeriesParts, errors: Mapping[str, ForecastErrors]
) -> dict[str, Any]:
    """See the module's docstring; `errors` are the model's and the naive forecasts' on the held-out windows."""
    return {
        "forecast": _forecast(chosen.forecaster, parts),
        "horizon": {name: one.by_step.tolist() for name, one in errors.items()},
        "training": None if chosen.training is None else asdict(chosen.training),
    }


def _forecast(forecaster: SeriesForecaster, parts: SeriesParts) -> dict[str, Any]:
    number = int(np.argmax([len(run) for run in parts.held_out]))
    run, held = parts.held_out[number], list(parts.held_rows.each())[number]
    context, horizon = forecaster.context, forecaster.horizon
    count = min((len(run) - context) // horizon, _MOST_FORECASTS)
    origins = range(len(run) - count * horizon, len(run), horizon)
    # What a run begins with may be its context alone, of rows that are not held out.
    begin = max(len(run) - (held.stop - held.start), origins[0] - horizon)
    made = [forecaster.forecast(run[:origin], horizon, tuple(_LEVELS.values())).quantiles for origin in origins]
    bands = {name: np.concatenate([one[level] for one in made]) for name, level in _LEVELS.items()}
    return {
        "x": parts.held_rows.places(np.arange(held.stop - len(run) + begin, held.stop)),
        "origins": [origin - begin for origin in origins],
        "columns": {
            name: {
                "actual": run[begin:, column].tolist(),
                **{band: values[:, column].tolist() for band, values in bands.items()},
            }
            for column, name in enumerate(parts.columns[:MOST_COLUMNS])
        },
    }
