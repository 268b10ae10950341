"""The forecast recipe: from a file to a forecaster that beats naive ones; its checks and its refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.sensors.forecasting.forecaster import SeriesForecaster
from models.sensors.model import Readings
from models.sensors.serialization import load_sensor
from models.training.checks.forecast_network import check_incumbent
from models.training.errors import HyperparameterError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import ForecastHyperparameters
from models.training.run import FAILED, run

pytestmark = pytest.mark.slow

COLUMNS = ("load", "heat")


def daily(rows: int, seed: int = 0) -> Readings:
    """Two columns with a season of 24 rows, noise, and very different units."""
    chance, hours = np.random.default_rng(seed), np.arange(rows)
    wave = np.sin(2 * np.pi * hours / 24)
    readings: Readings = np.stack([1000 + 100 * wave, 0.5 + 0.1 * np.roll(wave, 6)], axis=1) + chance.normal(
        size=(rows, 2)
    ) * [20, 0.02]
    return readings


def write(path: Path, readings: Readings, groups: Sequence[str] | None = None) -> None:
    lines = ["at,load,heat" + (",machine" if groups else "")]
    times = np.datetime64("2026-01-01") + np.arange(len(readings)) * np.timedelta64(1, "h")
    for row, (time, values) in enumerate(zip(times, readings.tolist(), strict=True)):
        lines.append(",".join([str(time), *map(repr, values), *([groups[row]] if groups else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def job(
    directory: Path, readings: Readings, groups: Sequence[str] | None = None, **hyperparameters: object
) -> dict[str, Any]:
    """Run a job; result.json, or error.json where it failed."""
    directory.mkdir(exist_ok=True)
    write(directory / "readings.csv", readings, groups)
    incumbent = hyperparameters.pop("incumbent", None)
    validation = hyperparameters.pop("validation_file", None)
    content = {
        "job": "job-1",
        "base_spec": "sensors",
        "base": "sensors",
        "task": "forecast",
        "training_file": str(directory / "readings.csv"),
        "validation_file": None if validation is None else str(validation),
        "hyperparameters": {"timestamp": "at", "horizon": 12, "context": 48, **hyperparameters},
        "incumbent": None if incumbent is None else str(incumbent),
    }
    (directory / "job.json").write_text(json.dumps(content), encoding="utf-8")
    code = run(directory, lambda event: None)
    found: dict[str, Any] = json.loads(
        (directory / ("error.json" if code == FAILED else "result.json")).read_text(encoding="utf-8")
    )
    return found


def findings(directory: Path) -> dict[str, dict[str, Any]]:
    report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return {f"{rung['rung']}.{finding['check']}": finding for rung in report["rungs"] for finding in rung["findings"]}


def plots(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))["plots"]
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("forecast")
    return directory, job(directory, daily(1200), model="linear")


def test_a_seasonal_series_is_forecast_better_than_by_repeating_it(trained: tuple[Path, dict[str, Any]]) -> None:
    _, result = trained
    metrics = result["metrics"]
    assert metrics["mse"] < 0.75 * metrics["mse_last_season"] < metrics["mse_last_value"]
    assert metrics["primary"] == pytest.approx(1 - metrics["mse"] / metrics["mse_last_season"])
    assert metrics["coverage_80"] == pytest.approx(0.8, abs=0.06)
    assert (result["task"], result["mode"], result["encoder"], result["labels"]) == ("forecast", "linear", "none", [])
    assert result["sensor"]["period_s"] == 3600.0


def test_what_is_published_gives_the_golden_rows(trained: tuple[Path, dict[str, Any]]) -> None:
    directory, result = trained
    forecaster = load_sensor(directory / "result")
    assert isinstance(forecaster, SeriesForecaster)
    assert forecaster.columns == COLUMNS
    found = forecaster.forecast(np.array(result["golden"]["readings"]), 12, ()).mean
    assert np.abs(found - np.array(result["golden"]["rows"])).max() <= result["golden"]["tolerance"]


def test_the_report_has_the_data_and_the_outcome_rung(trained: tuple[Path, dict[str, Any]]) -> None:
    found = findings(trained[0])
    assert {
        "data.rows",
        "data.irregular_timestamps",
        "outcome.against_last_value",
        "outcome.against_last_season",
    } <= set(found)
    assert found["outcome.coverage"]["status"] == "ok"


def test_the_report_draws_the_end_of_the_held_out_part_a_horizon_at_a_time(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    drawn = plots(trained[0])["forecast"]
    assert drawn["origins"] == [12, 24, 36, 48]
    assert (drawn["x"][0], drawn["x"][-1], len(drawn["x"])) == (
        "2026-02-17T12:00:00+00:00",
        "2026-02-19T23:00:00+00:00",
        60,
    )
    forecaster = load_sensor(trained[0] / "result")
    assert isinstance(forecaster, SeriesForecaster)
    for column, name in enumerate(COLUMNS):
        known = drawn["columns"][name]
        assert known["actual"] == daily(1200)[-60:, column].tolist()
        last = forecaster.forecast(daily(1200)[:-12], 12, (0.1, 0.5, 0.9)).quantiles
        for level, band in ((0.1, "low"), (0.5, "median"), (0.9, "high")):
            assert len(known[band]) == 48
            assert known[band][-12:] == pytest.approx(last[level][:, column].tolist(), rel=1e-6)


def test_the_report_draws_the_error_of_each_step(trained: tuple[Path, dict[str, Any]]) -> None:
    drawn, metrics = plots(trained[0]), trained[1]["metrics"]
    named = {"model": "mse", "last value": "mse_last_value", "last season": "mse_last_season"}
    assert set(drawn["horizon"]) == set(named)
    for name, metric in named.items():
        assert len(drawn["horizon"][name]) == 12
        assert np.mean(drawn["horizon"][name]) == pytest.approx(metrics[metric])
    assert drawn["horizon"]["last value"][0] < 0.5 * drawn["horizon"]["last value"][-1], "half a day away it is night"
    assert drawn["training"] is None


def test_a_forecaster_that_fails_is_drawn_too(tmp_path: Path) -> None:
    walk = np.cumsum(np.random.default_rng(2).normal(size=(800, 2)), axis=0)
    job(tmp_path, walk, model="linear")
    assert set(plots(tmp_path)["horizon"]) >= {"model", "last value"}


def test_the_network_goes_up_the_whole_ladder(tmp_path: Path) -> None:
    result = job(tmp_path, daily(700), model="auto", n_epochs=1)
    found = findings(tmp_path)
    training = plots(tmp_path)["training"]
    assert (len(training["loss"]), len(training["validation"])) == (1, 2)
    assert training["validation"][0] == pytest.approx(result["metrics"]["validation_mse_linear"], rel=1e-5), (
        "it starts as the map"
    )
    assert {"forward.finite", "loss.overfit", "loss.slope", "gradient.missing_gradient"} <= set(found)
    assert "fail" not in {finding["status"] for finding in found.values()}
    assert {"validation_mse_linear", "validation_mse_patch"} <= set(result["metrics"])
    assert result["mode"] == "linear"


def test_what_serves_now_is_judged_on_the_same_rows(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    directory, before = trained
    again = job(tmp_path, daily(1200), model="linear", incumbent=directory / "result")
    for name in ("primary", "mse", "mae", "coverage_80"):
        assert again["incumbent_metrics"][name] == pytest.approx(before["metrics"][name], rel=1e-5)
    found = findings(tmp_path)["outcome.against_incumbent"]
    assert (found["status"], found["value"]) == ("ok", pytest.approx(0, abs=1e-6))
    assert "no difference beyond chance" in found["message"]


def test_a_longer_context_is_compared_with_what_serves_now_and_a_shorter_is_not(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    job(tmp_path, daily(1200), model="linear", context=4, incumbent=trained[0] / "result")
    assert "outcome.against_incumbent" not in findings(tmp_path), "it looks back further than these windows"
    short = job(tmp_path / "short", daily(1200), model="linear", context=4)
    assert short["mode"] == "linear"
    again = job(tmp_path / "again", daily(1200), model="linear", incumbent=tmp_path / "short" / "result")
    better = findings(tmp_path / "again")["outcome.against_incumbent"]
    assert better["value"] == pytest.approx(again["incumbent_metrics"]["mse"] - again["metrics"]["mse"], rel=0.1)
    assert "better beyond chance" in better["message"]


def test_worse_beyond_chance_than_what_serves_now() -> None:
    good = np.random.default_rng(0).random(500)
    finding = check_incumbent(good + 0.5, good, 5, seed=0)
    assert finding.status == "warn"
    assert finding.value == pytest.approx(-0.5)
    assert "worse beyond chance" in finding.message
    assert finding.remedy


def test_what_forecasts_something_else_is_not_compared(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert (
        job(tmp_path, daily(1200), model="linear", horizon=6, incumbent=trained[0] / "result")["incumbent_metrics"]
        is None
    )


def test_a_random_walk_is_warned_of(tmp_path: Path) -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=(800, 2)), axis=0)
    job(tmp_path, walk, model="linear")
    assert findings(tmp_path)["outcome.against_last_value"]["status"] in ("warn", "fail")


def test_whole_machines_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    machines = [f"m{row // 200}" for row in range(1600)]
    result = job(tmp_path, daily(1600), machines, group="machine", model="linear", held_out=0.25)
    # Two machines of 200 rows: their first 48 are context alone, and so are windows that would reach over their ends.
    assert result["metrics"]["held_out_windows"] == 2 * (200 - 48 - 12 + 1)
    drawn = plots(tmp_path)["forecast"]
    assert (drawn["origins"], len(drawn["x"]), drawn["x"][0]) == ([12, 24, 36, 48], 60, "2026-02-25T20:00:00+00:00")


def test_the_held_out_part_begins_with_the_context_before_it(trained: tuple[Path, dict[str, Any]]) -> None:
    assert trained[1]["metrics"]["held_out_windows"] == 240 - 12 + 1


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    error = job(tmp_path, daily(200), model="linear", context=100, horizon=64)
    assert error["code"] == "too_few_rows"
    assert "the training part needs a run of context 100 + horizon 64 rows, the longest has 128" in error["message"]


@pytest.mark.parametrize(("context", "longest"), [(48, 48), ("auto", 48), (59, 59)])
def test_a_season_longer_than_the_context_is_refused(tmp_path: Path, context: int | str, longest: int) -> None:
    error = job(tmp_path, daily(1200), model="linear", context=context, season=60)
    assert (error["code"], error["param"]) == ("invalid_hyperparameter", "method.supervised.hyperparameters.season")
    assert (
        f"season: expected at most the context, {longest} readings, got 60; set `context` to 60 or more"
        in error["message"]
    )


def test_a_season_as_long_as_the_context_is_a_baseline(tmp_path: Path) -> None:
    assert "mse_last_season" in job(tmp_path, daily(1200), model="linear", context=60, season=60)["metrics"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "horizon"),
        ({"horizon": 0}, "greater than or equal to 1"),
        ({"horizon": 4, "model": "linear", "n_epochs": 3}, "n_epochs: means nothing here"),
        ({"horizon": 4, "columns": ["a", "a"]}, "each column once"),
        ({"horizon": 4, "columns": ["a"], "timestamp": "a"}, "'a' has two roles"),
        ({"horizon": 4, "kind": "series"}, "unknown for task forecast"),
    ],
)
def test_hyperparameters_that_mean_nothing_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        parse("forecast", given)


def test_hyperparameters_are_read() -> None:
    read = parse("forecast", {"horizon": 24, "columns": ["a", "b"], "n_epochs": "auto"})
    assert isinstance(read, ForecastHyperparameters)
    assert (read.horizon, read.context, read.model) == (24, "auto", "auto")


def clean(rows: int) -> Readings:
    """A wave without noise, which the linear map and the last season both know by heart, and a constant column."""
    wave = np.sin(2 * np.pi * np.arange(rows) / 24)
    readings: Readings = np.stack([wave, np.full(rows, 7.0)], axis=1)
    return readings


@pytest.mark.parametrize("model", ["linear", "auto", "patch"])
@pytest.mark.parametrize(("factor", "level"), [(1.0, 0.0), (1e-10, 0.0), (1.0, 1e9)])
def test_a_signal_without_noise_is_forecast(tmp_path: Path, model: str, factor: float, level: float) -> None:
    """Nothing is wrong where 1e-11 of error is left to learn, or 1e-28 in the last season."""
    result = job(tmp_path, factor * clean(900) + level, model=model)
    assert result.get("task") == "forecast", result
    assert result["metrics"]["mse"] < 1e-4
    forecaster = load_sensor(tmp_path / "result")
    assert isinstance(forecaster, SeriesForecaster)
    made = forecaster.forecast(factor * clean(960)[:948] + level, 12, (0.5,))
    for found in (made.mean, made.quantiles[0.5]):
        np.testing.assert_allclose(found, factor * clean(960)[948:] + level, atol=0.05 * factor, rtol=0)


def test_a_constant_column_is_left_out_of_the_error(tmp_path: Path) -> None:
    wave = daily(900)
    alone = job(tmp_path / "alone", np.stack([wave[:, 0], wave[:, 0]], axis=1), model="linear")["metrics"]
    beside = np.stack([wave[:, 0], np.full(900, 5.0)], axis=1)
    beside[800:, 1] = 1000.0  # held out: what it does later is nobody's error
    found = job(tmp_path / "beside", beside, model="linear")["metrics"]
    for name in ("mse", "mae", "coverage_80", "primary"):
        assert found[name] == pytest.approx(alone[name], rel=1e-3), name


def test_a_validation_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    write(tmp_path / "later.csv", daily(50))
    error = job(tmp_path, daily(900), validation_file=tmp_path / "later.csv")
    assert (error["code"], error["param"]) == ("too_few_rows", "validation_file")
    assert error["message"].startswith("validation_file: the held-out part needs a run of context 48 + horizon 12 rows")
