"""Forecasts of ETTh1: seven hourly columns, 336 steps of context, 96 ahead.

python -m benchmarks.etth1 [--data ../shared/data] [--model linear|patch|auto]

The usual protocol: 12 months to train, 4 to validate, 4 to test, standardised by the training part, every window of
the test part. Prints mean squared and mean absolute error and what the 80 % intervals cover; published are NLinear
0.375, FEDformer 0.376.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.sensors.seasonality import find_season
from models.training.data.baselines import repeat_last, repeat_season
from models.training.sensors.fit_forecaster import ForecastPlan, errors_of, fit_forecaster, held_out_windows

CONTEXT, HORIZON = 336, 96
_TRAIN, _VALIDATION, _TEST = 8640, 2880, 2880


def read(data: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and readings [14400, 7] of the 20 months that the protocol uses."""
    path = data / "etth1/ETTh1.csv"
    with path.open(encoding="utf-8") as file:
        columns = tuple(file.readline().strip().split(",")[1:])
    rows = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, len(columns) + 1))
    return columns, rows[: _TRAIN + _VALIDATION + _TEST]


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", choices=("auto", "linear", "patch"), default="auto")
    chosen = parser.parse_args()
    columns, rows = read(chosen.data)
    began = time.perf_counter()
    validation, test = rows[_TRAIN - CONTEXT : _TRAIN + _VALIDATION], rows[_TRAIN + _VALIDATION - CONTEXT :]
    found = fit_forecaster([rows[:_TRAIN]], [validation], ForecastPlan(columns, CONTEXT, HORIZON, chosen.model))
    took_s = time.perf_counter() - began
    windows = held_out_windows(found.forecaster, [test])
    season = find_season(rows[:_TRAIN], CONTEXT)
    models = {"last value again": repeat_last(HORIZON), found.forecaster.model.kind: found.forecaster.model}
    if season is not None:
        models = {f"last {season} steps again": repeat_season(season, HORIZON), **models}
    print(f"{found.reason}; {took_s:.1f} s")
    for name, model in models.items():
        errors = errors_of(model, windows)
        print(f"{name:24} MSE {errors.mse:.4f}  MAE {errors.mae:.4f}  over {len(windows)} windows")
    print(f"80 % intervals cover {found.forecaster.coverage(windows):.1%}")


if __name__ == "__main__":
    main()
