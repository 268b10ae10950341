"""What a report draws of a forecaster: what came and what was forecast of it, the errors of each step, the network's training.

`plots()` gives plain data for JSON:

- `forecast`: the end of the longest held-out run, forecast a horizon at a time, four times at most. `x` (ISO timestamps where the
  file has times, else lines of the file), `origins` (indices into `x` at which a forecast begins), and `columns` (the first 12):
  {name: {"actual": [n], "median": […], "low": […], "high": […]}}. The last three begin at the first origin and hold the middle 80 %;
  what came before it is at most one horizon.
- `horizon`: {"model": [mean squared error of each step], "last value": …, "last season": …}, in variances of the training part.
- `training`: {"loss": [mean loss of each epoch], "validation": [mean squared error before and after each]}, or null where no network
  was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from models.sensors.forecasting import SeriesForecaster
from models.training.forecast_parts import SeriesParts
from models.training.forecasting import Chosen, Errors

MOST_COLUMNS = 12
_MOST_FORECASTS = 4
_LEVELS = {"low": 0.1, "median": 0.5, "high": 0.9}


def plots(chosen: Chosen, parts: SeriesParts, errors: Mapping[str, Errors]) -> dict[str, Any]:
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
            name: {"actual": run[begin:, column].tolist(), **{band: values[:, column].tolist() for band, values in bands.items()}}
            for column, name in enumerate(parts.columns[:MOST_COLUMNS])
        },
    }
