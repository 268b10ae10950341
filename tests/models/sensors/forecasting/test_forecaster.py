"""Forecasters: the windows, the two networks, intervals that keep their promise, and the saved form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ModelSourceError
from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.forecasting.intervals import LEVELS, Intervals
from models.sensors.forecasting.networks import LinearForecast, PatchForecast, WindowProducts
from models.sensors.forecasting.windows import cut_windows
from models.sensors.model import Readings
from models.sensors.seasonality import find_season
from models.sensors.serialization import SETTINGS, load_sensor, save_sensor
from models.training.data.baselines import repeat_last, repeat_season
from models.training.sensors.fit_forecaster import ForecastPlan, Standardisation, errors_of, fit_forecaster
from models.training.sensors.forecast_network import NetworkFit, NetworkSettings

pytestmark = pytest.mark.slow


def autoregressive(rows: int, seed: int) -> Readings:
    """Two columns of x[t] = 0.8 x[t-1] + noise, in units far from standard."""
    noise = np.random.default_rng(seed).normal(size=(rows + 200, 2))
    for row in range(1, len(noise)):
        noise[row] += 0.8 * noise[row - 1]
    readings: Readings = noise[200:] * [5.0, 0.1] + [100.0, -3.0]
    return readings


def seasonal(rows: int, seed: int) -> Readings:
    """A day of 24 rows with noise, on a level that wanders slowly."""
    chance, time = np.random.default_rng(seed), np.arange(rows)
    wander = np.cumsum(chance.normal(0, 0.02, rows))
    readings: Readings = (10 * np.sin(2 * np.pi * time / 24) + wander + chance.normal(0, 1, rows))[:, None]
    return readings


def fitted(horizon: int = 4) -> SeriesForecaster:
    return fit_forecaster(
        [autoregressive(600, 1)], [autoregressive(300, 2)], ForecastPlan(("a", "b"), 12, horizon, "linear")
    ).forecaster


def test_windows_stay_inside_their_run_and_keep_its_order() -> None:
    runs = [torch.arange(6.0)[:, None], torch.arange(100.0, 105.0)[:, None]]
    windows = cut_windows(runs, 3, 2)
    x, y = windows.take(torch.arange(len(windows)))
    assert x[:, 0].tolist() == [[0, 1, 2], [1, 2, 3], [100, 101, 102]]
    assert y[:, 0].tolist() == [[3, 4], [4, 5], [103, 104]]


def test_windows_beyond_the_most_are_a_regular_sample() -> None:
    assert cut_windows([torch.zeros(100, 1)], 3, 2, most=20).starts.tolist() == list(range(0, 96, 5))


def test_runs_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="at least context \\+ horizon = 10 rows, the longest has 9"):
        cut_windows([torch.zeros(9, 1), torch.zeros(4, 1)], 6, 4)


def test_ridge_finds_the_map_that_made_the_series() -> None:
    time = torch.arange(400.0, dtype=torch.float64)
    windows = cut_windows([torch.sin(2 * torch.pi * time / 16)[:, None]], 16, 8)
    model = LinearForecast.fitted(WindowProducts.of(windows), 1e-9)
    assert errors_of(model, windows).mse < 1e-6


def test_each_column_may_have_a_map_of_its_own() -> None:
    time = torch.arange(500.0, dtype=torch.float64)
    opposite = torch.stack([1.01**-time, torch.sin(time / 3) + 1.005**time], dim=1)
    windows = cut_windows([opposite], 8, 4)
    each = WindowProducts.of(windows)
    own, shared = LinearForecast.fitted(each, 1e-8), LinearForecast.fitted(each.pooled(), 1e-8)
    assert own.weight.shape == (2, 8, 4)
    assert shared.weight.shape == (1, 8, 4)
    assert errors_of(own, windows).mse < errors_of(shared, windows).mse


@pytest.mark.parametrize("maps", [1, 3])
def test_a_new_patch_network_says_what_its_linear_part_says(maps: int) -> None:
    torch.manual_seed(0)
    model = PatchForecast(20, 5, 4, maps).eval()
    model.linear.weight.data.normal_()
    x = torch.randn(7, 3, 20)
    assert model(x).shape == (7, 3, 5)
    torch.testing.assert_close(model(x), model.linear(x))


def test_the_network_learns_what_a_line_cannot() -> None:
    values = [0.3]
    for _ in range(1500):
        values.append(3.9 * values[-1] * (1 - values[-1]))
    series = torch.tensor(values, dtype=torch.float64)[:, None]
    seen, unseen = cut_windows([series[:1200]], 8, 1), cut_windows([series[1200:]], 8, 1)
    linear = LinearForecast.fitted(WindowProducts.of(seen), 1e-3)
    network = NetworkFit(linear, seen, NetworkSettings(epochs=8, learning_rate=5e-3))
    judged = network.train(lambda: errors_of(network.model, unseen).mse)
    assert min(judged) < 0.5 * errors_of(linear, unseen).mse
    assert errors_of(network.model, unseen).mse == pytest.approx(min(judged))


def test_training_ends_when_no_epoch_is_better() -> None:
    windows = cut_windows([torch.randn(200, 1, generator=torch.Generator().manual_seed(0))], 8, 2)
    network = NetworkFit(LinearForecast(8, 2), windows, NetworkSettings(epochs=50, patience=2))
    judgements, seen = iter([3.0, 2.0, 2.5, 2.4, 2.3]), list[torch.Tensor]()

    def judge() -> float:
        seen.append(network.model.head.weight.detach().clone())
        return next(judgements)

    assert network.train(judge) == [3.0, 2.0, 2.5, 2.4]
    torch.testing.assert_close(network.model.head.weight.detach(), seen[1])
    assert not torch.equal(seen[1], seen[3])


def test_intervals_of_an_autoregressive_series_cover_what_they_promise() -> None:
    forecaster = fit_forecaster(
        [autoregressive(3000, 1)], [autoregressive(3000, 2)], ForecastPlan(("a", "b"), 16, 6, "linear")
    )
    windows = cut_windows([forecaster.scale(autoregressive(4000, 3))], 16, 6)
    for share in (0.5, 0.8, 0.95):
        assert forecaster.forecaster.coverage(windows, share) == pytest.approx(share, abs=0.025)


def test_quantiles_rise_from_the_least_error_to_the_greatest() -> None:
    windows = cut_windows([torch.randn(300, 1, generator=torch.Generator().manual_seed(0))], 4, 2)
    intervals = Intervals.calibrated(LinearForecast(4, 2), windows)
    rising = torch.stack([intervals.at(level) for level in (0.001, 0.1, 0.333, 0.5, 0.9, 0.999)])
    assert bool((rising.diff(dim=0) > 0).all())
    assert bool((rising[0] >= intervals.errors[0]).all())
    assert bool((rising[-1] <= intervals.errors[-1]).all())
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        intervals.at(1.0)


def test_the_median_level_is_the_middle_error() -> None:
    series = torch.tensor([0.0, 1, 0, 2, 0, 4, 0])[:, None]
    windows = cut_windows([series], 2, 1)
    errors = sorted((y - x[..., -1:]).flatten().tolist() for x, y in windows.batches())[0]
    intervals = Intervals.calibrated(LinearForecast(2, 1), windows)
    ratio = [error / change for error, change in zip(errors, (1.0, 1, 2, 2, 4), strict=True)]
    assert float(intervals.errors[LEVELS.index(0.5)]) == pytest.approx(sorted(ratio)[2], rel=0.01)


def test_forecasts_are_in_the_readings_units() -> None:
    forecaster, readings = fitted(), autoregressive(40, 5)
    found = forecaster.forecast(readings, 3, (0.1, 0.9))
    assert found.mean.shape == (3, 2)
    assert found.mean.dtype == np.float64
    assert abs(float(found.mean[0, 0]) - 100) < 30
    assert abs(float(found.mean[0, 1]) + 3) < 0.6
    assert bool((found.quantiles[0.1] < found.quantiles[0.9]).all())


def test_only_the_last_readings_count() -> None:
    forecaster, readings = fitted(), autoregressive(40, 5)
    whole, recent = (forecaster.forecast(part, 4, (0.5,)) for part in (readings, readings[-12:]))
    np.testing.assert_array_equal(whole.mean, recent.mean)


@pytest.mark.parametrize(
    ("rows", "columns", "horizon", "quantiles", "message"),
    [
        (11, 2, 4, (), r"\[12 or more, 2\], got \[11, 2\]"),
        (12, 3, 4, (), r"\[12 or more, 2\], got \[12, 3\]"),
        (12, 2, 5, (), "expected 1 to 4 steps, got 5"),
        (12, 2, 0, (), "expected 1 to 4 steps, got 0"),
        (12, 2, 4, (0.0,), "between 0 and 1, got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    rows: int, columns: int, horizon: int, quantiles: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fitted().forecast(np.zeros((rows, columns)), horizon, quantiles)


@pytest.mark.parametrize("kind", ["linear", "patch"])
def test_a_saved_forecaster_says_the_same(kind: str, tmp_path: Path) -> None:
    plan = ForecastPlan(
        ("a", "b"), 12, 4, "patch" if kind == "patch" else "linear", NetworkSettings(epochs=1), period_s=60.0
    )
    forecaster = fit_forecaster([autoregressive(400, 1)], [autoregressive(200, 2)], plan).forecaster
    save_sensor(forecaster, tmp_path)
    again, readings = load_sensor(tmp_path), autoregressive(30, 4)
    assert isinstance(again, SeriesForecaster)
    assert (again.columns, again.context, again.horizon, again.period_s) == (("a", "b"), 12, 4, 60.0)
    one, other = (found.forecast(readings, 4, (0.2, 0.8)) for found in (forecaster, again))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.quantiles[0.2], other.quantiles[0.2])
    assert again.memory_bytes() == forecaster.memory_bytes() > 0


@pytest.mark.parametrize("broken", ['{"kind": "series"}', "{", '{"kind": "forecast"}'])
def test_what_is_no_forecaster_is_refused(broken: str, tmp_path: Path) -> None:
    save_sensor(fitted(), tmp_path)
    (tmp_path / SETTINGS).write_text(broken, encoding="utf-8")
    with pytest.raises(ModelSourceError, match="not a sensor model that can be read"):
        load_sensor(tmp_path)


def test_a_seasonal_series_is_forecast_better_than_by_repeating_it() -> None:
    chosen = fit_forecaster(
        [seasonal(1200, 1)], [seasonal(500, 2)], ForecastPlan(("load",), 48, 24, descent=NetworkSettings(epochs=1))
    )
    windows = cut_windows([chosen.scale(seasonal(600, 3))], 48, 24)
    assert find_season(seasonal(1200, 1), 100) == 24
    ours = errors_of(chosen.forecaster.model, windows).mse
    assert ours < 0.7 * errors_of(repeat_season(24, 24), windows).mse < errors_of(repeat_last(24), windows).mse
    assert set(chosen.validation) == {"linear", "patch"}
    assert "on validation windows" in chosen.reason


def test_a_forecaster_is_the_same_on_every_run() -> None:
    plan = ForecastPlan(("load",), 24, 6, "patch", NetworkSettings(epochs=2))
    one, other = (
        fit_forecaster([seasonal(400, 1)], [seasonal(200, 2)], plan).forecaster.state_dict() for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_noise_has_no_season() -> None:
    assert find_season(np.random.default_rng(0).normal(size=(500, 2)), 100) is None


def test_a_column_that_never_changes_is_standardised_all_the_same() -> None:
    scale = Standardisation.of([np.column_stack([np.full(10, 7.0), np.arange(10.0)])])
    assert scale(np.array([[7.0, 4.5]])).tolist() == [[0.0, 0.0]]
