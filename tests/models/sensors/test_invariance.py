"""Units and levels change nothing: every detector and forecaster of readings scaled and shifted by up to 1e±12."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sensors.adaptive.detector import DETECTOR_ID, fit_adaptive
from models.sensors.detectors import network
from models.sensors.detectors.factory import DETECTORS
from models.sensors.detectors.network import NetworkDetector
from models.sensors.fitting import fit_sensor
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.model import AnomalyModel, Readings, Scored, SensorKind
from models.training.sensors.fit_forecaster import ForecastPlan, fit_forecaster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    """A sixth of a network's epochs: in which units it learns does not depend on how long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_MOST_EPOCHS", 10)
        yield


COLUMNS = ("a", "b")
EVERY = [(kind, name) for kind, group in DETECTORS.items() for name in group] + [("series", DETECTOR_ID)]
# Powers of two keep each reading exact, so that only the arithmetic is tested: 2^40 is 1.1e12.
Power = st.integers(-40, 40)


def signal(rows: int, seed: int) -> Readings:
    """A day of 24 rows with noise, in multiples of 1/64; the last row is far off."""
    chance, time = np.random.default_rng(seed), np.arange(rows)[:, None]
    made = np.sin(2 * np.pi * time / 24 + [0.0, 1.0]) * [3.0, 1.0] + chance.normal(0, 0.3, (rows, 2))
    made[-1] += 8
    rounded: Readings = np.round(64 * made) / 64
    return rounded


def moved(readings: Readings, power: int, level: int) -> Readings:
    """Readings in other units (2^power), at a level of 2^level of their own units."""
    return (readings + (2.0**level if level > 0 else 0.0)) * 2.0**power


def detector(kind: SensorKind, name: str, power: int, level: int) -> AnomalyModel:
    runs = [moved(signal(240, 1)[:-1], power, level)]
    return fit_adaptive(runs, COLUMNS) if name == DETECTOR_ID else fit_sensor(kind, name, COLUMNS, runs)


def scored(kind: SensorKind, name: str, power: int, level: int) -> Scored:
    return detector(kind, name, power, level).score(moved(signal(80, 2), power, level), contributions=True)


@cache
def usual(kind: SensorKind, name: str) -> Scored:
    return scored(kind, name, 0, 0)


def require_the_same(kind: SensorKind, name: str, power: int, level: int) -> None:
    now, before = scored(kind, name, power, level), usual(kind, name)
    np.testing.assert_allclose(now.scores, before.scores, rtol=0.02, atol=0.02 * float(before.scores.max()))
    # A score near the next one may change its rank.
    assert np.mean(np.abs(now.p_values - before.p_values) > 0.02) < 0.05
    assert now.contributions is not None
    assert float(now.scores[-1]) > 0, "the last reading is far off"


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize(("power", "level"), [(-40, 0), (40, 0), (-33, 20), (9, 40)])
def test_a_detector_scores_the_same_in_any_unit_and_at_any_level(
    kind: SensorKind, name: str, power: int, level: int
) -> None:
    require_the_same(kind, name, power, level)


FAST = [
    (kind, name)
    for kind, name in EVERY
    if name == DETECTOR_ID or not issubclass(DETECTORS[kind][name], NetworkDetector)
]


@pytest.mark.parametrize(("kind", "name"), FAST)
def test_any_unit_and_level_will_do(kind: SensorKind, name: str) -> None:
    @settings(max_examples=8, deadline=None)
    @given(power=Power, level=st.integers(0, 40))
    def check(power: int, level: int) -> None:
        require_the_same(kind, name, power, level)

    check()


def forecaster(model: Literal["linear", "patch"], power: int, level: int) -> SeriesForecaster:
    runs = [moved(signal(rows, seed)[:-1], power, level) for rows, seed in ((400, 1), (200, 2))]
    return fit_forecaster(runs[:1], runs[1:], ForecastPlan(COLUMNS, 48, 12, model)).forecaster


@cache
def usual_forecast(model: Literal["linear", "patch"]) -> tuple[Readings, Readings]:
    found = forecaster(model, 0, 0).forecast(signal(60, 3)[:-1], 12, (0.9,))
    return found.mean, found.quantiles[0.9]


@pytest.mark.parametrize("model", ["linear", "patch"])
@pytest.mark.parametrize(("power", "level"), [(-40, 0), (-33, 0), (40, 0), (-33, 20), (9, 40)])
def test_a_forecaster_forecasts_the_same_in_any_unit_and_at_any_level(
    model: Literal["linear", "patch"], power: int, level: int
) -> None:
    made = forecaster(model, power, level).forecast(moved(signal(60, 3)[:-1], power, level), 12, (0.9,))
    for now, before in zip((made.mean, made.quantiles[0.9]), usual_forecast(model), strict=True):
        back = now * 2.0**-power - (2.0**level if level > 0 else 0.0)
        np.testing.assert_allclose(back, before, atol=0.02)
