"""pandas frames to requests, and answers to frames. pandas is imported only here, where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from service.client.answers import Forecast, Scores
from service.client.errors import BadInput

if TYPE_CHECKING:
    from pandas import DataFrame


class FrameReadings(TypedDict):
    """The readings of a frame as `anomaly` and `forecast` take them."""

    series: list[dict[str, float | None]]
    timestamps: NotRequired[list[str]]


def readings_of(frame: DataFrame) -> FrameReadings:
    """The rows by column name, None where a number is missing, with the times of a DatetimeIndex. Raises BadInput."""
    import pandas as pd

    columns = [str(name) for name in frame.columns]
    if len(set(columns)) < len(columns) or not columns:
        raise BadInput(f"frame: expected columns with different names, got {', '.join(columns) or 'none'}")
    for name, column in zip(columns, (frame.iloc[:, at] for at in range(len(columns))), strict=True):
        if not pd.api.types.is_numeric_dtype(column):
            raise BadInput(f"column {name!r}: expected numbers, got {column.dtype}; make times the index of the frame")
    numbers = frame.astype("float64")
    rows: list[Any] = numbers.astype(object).where(numbers.notna(), None).to_numpy().tolist()
    found: FrameReadings = {"series": [dict(zip(columns, row, strict=True)) for row in rows]}
    if isinstance(frame.index, pd.DatetimeIndex):
        found["timestamps"] = [time.isoformat() for time in frame.index]
    return found


def scores_frame(scores: Scores, frame: DataFrame) -> DataFrame:
    """Score, p-value and verdict by row, by the index of the frame that was sent; shares by column, where asked for."""
    import pandas as pd

    rows = [
        {"score": item.score, "p_value": item.p_value, "is_anomaly": item.is_anomaly}
        | {f"contribution_{name}": share for name, share in (item.contributions or {}).items()}
        for item in scores.data
    ]
    return pd.DataFrame(rows, index=frame.index)


def forecast_frame(forecast: Forecast) -> DataFrame:
    """A row a step: columns (name, "mean") and (name, "0.9") for each column and quantile, times as the index."""
    import pandas as pd

    parts = {"mean": forecast.mean, **forecast.quantiles}
    columns = {
        (name, part): [row[at] for row in rows]
        for at, name in enumerate(forecast.columns)
        for part, rows in parts.items()
    }
    index = None if forecast.timestamps is None else pd.DatetimeIndex(pd.to_datetime(forecast.timestamps))
    return pd.DataFrame(columns, index=index)
