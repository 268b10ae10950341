"""pandas frames: columns by name, times as the index, and what cannot be sent."""

from __future__ import annotations

import pandas as pd
import pytest

from service.client.answers import Forecast, Scores
from service.client.data_frames import forecast_frame, readings_of, scores_frame
from service.client.errors import BadInput


def frame() -> pd.DataFrame:
    times = pd.date_range("2026-01-01", periods=2, freq="h", tz="Europe/Berlin")
    return pd.DataFrame({"flow": [1, 2], "pressure": [0.5, 0.25]}, index=times)


def test_rows_go_by_name_with_their_times() -> None:
    assert readings_of(frame()) == {
        "series": [{"flow": 1.0, "pressure": 0.5}, {"flow": 2.0, "pressure": 0.25}],
        "timestamps": ["2026-01-01T00:00:00+01:00", "2026-01-01T01:00:00+01:00"],
    }


def test_a_missing_number_goes_as_none() -> None:
    gaps = pd.DataFrame({"a": [1.0, None], "b": pd.array([None, 2], dtype="Int64")})
    assert readings_of(gaps)["series"] == [{"a": 1.0, "b": None}, {"a": None, "b": 2.0}]


def test_an_index_of_numbers_is_no_time() -> None:
    assert "timestamps" not in readings_of(frame().reset_index(drop=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pd.DataFrame({"a": ["x"]}), "column 'a': expected numbers, got"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "expected columns with different names, got a, a"),
        (pd.DataFrame(), "expected columns with different names, got none"),
    ],
)
def test_a_frame_that_cannot_be_sent_is_named(wrong: pd.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        readings_of(wrong)


def test_scores_come_back_by_the_frames_index() -> None:
    data = [
        {"index": at, "score": 4.0, "p_value": 0.01, "is_anomaly": True, "contributions": {"flow": 1.0}}
        for at in (0, 1)
    ]
    more: dict[str, object] = {
        "alpha": 0.05,
        "threshold": None,
        "reference": {"count": 9},
        "drift": None,
        "state": None,
        "warnings": [],
    }
    found = scores_frame(Scores.model_validate({"model": "m", "data": data, **more}), frame())
    assert list(found.columns) == ["score", "p_value", "is_anomaly", "contribution_flow"]
    assert found.index.equals(frame().index)


def test_a_forecast_is_a_frame_by_column_and_quantile() -> None:
    made = {
        "model": "m",
        "columns": ["flow", "pressure"],
        "timestamps": ["2026-01-01T02:00:00Z"],
        "mean": [[3.0, 0.1]],
        "quantiles": {"0.9": [[4.0, 0.2]]},
        "warnings": [],
    }
    found = forecast_frame(Forecast.model_validate(made))
    assert found[("flow", "mean")].tolist() == [3.0]
    assert found[("pressure", "0.9")].tolist() == [0.2]
    assert str(found.index[0]) == "2026-01-01 02:00:00+00:00"
