"""Missing readings are filled alike at once, in pieces, in training and in service."""

from __future__ import annotations

import numpy as np
import pytest

from models.sensors.adaptive.detector import fit_adaptive
from models.sensors.fitting import fit_sensor
from models.sensors.missing import carry_forward, continue_from, count_missing
from models.sensors.model import AnomalyModel, Readings, State

NAN = float("nan")
COLUMNS = ("pressure", "flow")
START = np.zeros(1, dtype=np.int64)


def test_the_last_value_of_the_column_is_carried() -> None:
    readings = np.array([[1.0, NAN], [NAN, 5.0], [NAN, NAN], [4.0, NAN]])
    filled = carry_forward(readings, START, np.array([7.0, 8.0]))
    assert filled.tolist() == [[1, 8], [1, 5], [1, 5], [4, 5]]
    assert np.isnan(readings[0, 1]), "the caller's readings stay as they are"


def test_nothing_is_carried_into_another_segment() -> None:
    filled = carry_forward(np.array([[1.0], [2.0], [NAN]]), np.array([0, 2]), np.array([9.0]))
    assert filled.tolist() == [[1], [2], [9]]


def test_a_stream_continues_from_the_row_before() -> None:
    assert continue_from(np.array([3.0, 4.0]), np.array([[NAN, 1.0], [NAN, NAN]])).tolist() == [[3, 1], [3, 1]]


def test_missing_values_are_counted_by_column() -> None:
    assert count_missing(np.array([[NAN, 1.0], [NAN, NAN]]), COLUMNS) == {"pressure": 2, "flow": 1}
    assert count_missing(np.ones((2, 2)), COLUMNS) == {}


def _normal(rows: int, seed: int = 3) -> Readings:
    return np.random.default_rng(seed).normal([0, 5], [1, 2], (rows, 2))


@pytest.mark.parametrize("name", ["level", "residual", "adaptive"])
def test_a_series_with_gaps_scores_in_pieces_as_at_once(name: str) -> None:
    normal = _normal(600)
    sensor: AnomalyModel = (
        fit_adaptive([normal], COLUMNS) if name == "adaptive" else fit_sensor("series", name, COLUMNS, [normal])
    )
    series = _normal(120, seed=4)
    series[np.random.default_rng(5).random(series.shape) < 0.2] = NAN
    series[0], series[60] = NAN, NAN
    whole = sensor.score(series)
    assert np.isfinite(whole.scores).all()
    scores, state = list[float](), None
    for at in range(0, 120, 20):
        piece = sensor.score(series[at : at + 20], state)
        scores, state = scores + piece.scores.tolist(), piece.state
    assert scores == pytest.approx(whole.scores.tolist(), rel=1e-5)
    assert _is_finite(state)


def test_a_record_is_filled_with_the_medians() -> None:
    sensor = fit_sensor("records", "mahalanobis", COLUMNS, [_normal(600)])
    median = sensor.model.scale.center.numpy()
    scored = sensor.score(np.array([[9.0, NAN], [9.0, median[1]]]), contributions=True)
    assert scored.scores[0] == scored.scores[1]
    assert scored.contributions is not None
    assert scored.contributions[0].tolist() == scored.contributions[1].tolist()


def _is_finite(state: State | None) -> bool:
    return state is not None and all(np.isfinite(part).all() for part in state.values())
