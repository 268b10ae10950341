"""Plots: drawn from plain data, whatever columns are called, and equal for equal data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service import plots

SERIES: dict[str, Any] = {
    "x": [f"2026-11-23T10:{minute:02}:00" for minute in range(40)],
    "columns": {"pressure": [float(n % 7) for n in range(40)], "flow $a_{": [1.0] * 40},
    "scores": [0.1] * 39 + [9.0],
    "p_values": [0.5] * 39 + [0.001],
    "threshold": {"0.05": 3.0, "0.01": None},
    "anomalies": [39],
    "labels": [0] * 35 + [1] * 5,
}
PLOTS: dict[str, Any] = {
    "series": SERIES,
    "contributions": {"pressure": 0.75, "<b>\x07": 0.25},
    "training": {"loss": [2.0, 1.0, 0.5]},
}
FORECAST_PLOTS: dict[str, Any] = {
    "forecast": {
        "x": list(range(40)),
        "origins": [20, 30],
        "columns": {
            "flow $a_{": {
                "actual": [float(n) for n in range(40)],
                "median": [20.0] * 20,
                "low": [18.0] * 20,
                "high": [23.0] * 20,
            }
        },
    },
    "horizon": {"model": [0.1, 0.2], "last value": [0.2, 0.4]},
    "training": {"loss": [2.0, 1.0], "validation": [3.0, 2.0, 1.5]},
}


LABEL_PLOTS: dict[str, Any] = {
    "calibration": {
        "confidence": [0.55, 1.0],
        "accuracy": [0.5, 1.0],
        "low": [0.2, 0.8],
        "high": [0.8, 1.0],
        "rows": [6, 9],
    }
}
EVERY = (PLOTS, FORECAST_PLOTS, LABEL_PLOTS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data"), [(name, data) for data in EVERY for name in data])
def test_each_is_drawn_and_the_same_data_gives_the_same_file(name: str, data: dict[str, Any]) -> None:
    drawn = plots.draw(name, data, "svg")
    assert drawn.startswith(b"<?xml")
    assert b"</svg>" in drawn
    assert plots.draw(name, data, "png").startswith(b"\x89PNG")
    assert plots.draw(name, data, "svg") == drawn


def test_a_line_does_not_lead_from_one_machine_to_the_next() -> None:
    data = {"x": [1, 2, 3, 1, 2], "columns": {"a": [5.0, 6, 7, 1, 2]}, "scores": [0.0] * 5, "threshold": {}}
    figure = plots.series(data | {"anomalies": []})
    for axis in figure.axes:
        x, y = axis.lines[0].get_data()
        assert np.asarray(x).tolist() == [1, 2, 3, 1, 1, 2]
        assert np.isnan(np.asarray(y)).tolist() == [False] * 3 + [True] + [False] * 2


@pytest.mark.slow
def test_what_is_drawn_depends_on_the_data() -> None:
    calm = {
        **PLOTS,
        "series": {**SERIES, "anomalies": [], "threshold": {"0.05": None}, "labels": None, "x": list(range(40))},
    }
    assert plots.draw("series", calm, "svg") != plots.draw("series", PLOTS, "svg")


def test_places_that_are_no_times_are_labels_and_those_beyond_them_none() -> None:
    named = plots.series({**SERIES, "x": [f"shift {minute}" for minute in range(40)]}).axes[-1]
    label = named.xaxis.get_major_formatter()
    assert [label(place, 0) for place in (0.0, 39.0, -1.0, 40.0, 2.5)] == ["shift 0", "shift 39", "", "", ""]
    assert np.asarray(named.lines[0].get_xdata()).tolist() == list(range(40))


def test_only_the_columns_to_blame_are_marked() -> None:
    def dots(marks: dict[str, list[int]] | None) -> list[list[float]]:
        panels = plots.series({**SERIES, "marks": marks}).axes[:-1]
        return [np.asarray(panel.lines[1].get_ydata()).tolist() for panel in panels]

    assert dots({"pressure": [39]}) == [[4.0], []]
    assert dots(None) == [[4.0], [1.0]]


def test_the_ticks_of_local_times_are_at_local_midnight() -> None:
    x = [f"2026-11-{day:02}T{hour:02}:00:00+05:30" for day in (1, 2, 3) for hour in range(24)]
    data = {**SERIES, "x": x, "columns": {"pressure": [1.0] * 72}, "scores": [0.1] * 72, "labels": None}
    axis = plots.series(data).axes[-1]
    labels = axis.xaxis.get_major_formatter().format_ticks(list(axis.get_xticks()))
    assert {"Nov-02", "Nov-03"} <= set(labels)


def test_nothing_to_draw_is_drawn() -> None:
    empty = {**SERIES, "x": [], "columns": {"pressure": []}, "scores": [], "anomalies": [], "labels": []}
    assert plots.draw("series", {"series": empty}, "svg").startswith(b"<?xml")


def test_only_what_has_data_is_there() -> None:
    assert plots.available(PLOTS) == ["series", "contributions", "training"]
    assert plots.available({**PLOTS, "training": None}) == ["series", "contributions"]
    assert plots.available(FORECAST_PLOTS) == ["forecast", "horizon", "training"]
    assert plots.available({}) == []


def test_every_plot_is_drawn_in_a_test() -> None:
    assert {name for data in EVERY for name in data} == set(plots.TITLES)


@pytest.mark.slow
def test_a_forecast_of_one_step_and_many_columns_is_drawn() -> None:
    column = {"actual": [1.0, 2.0], "median": [1.5], "low": [1.0], "high": [2.0]}
    data = {
        "forecast": {
            "x": ["2026-11-23T10:00:00", "2026-11-23T10:01:00"],
            "origins": [1],
            "columns": {"a": column, "b": column},
        }
    }
    assert plots.draw("forecast", data, "png").startswith(b"\x89PNG")
    assert plots.draw("horizon", {"horizon": {"model": [0.5]}}, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("labels", "runs"),
    [([], []), ([0, 0], []), ([1, 1], [(0, 1)]), ([0, 1, 1, 0, 1], [(1, 2), (4, 4)]), ([1, 0, 0], [(0, 0)])],
)
def test_runs_of_ones(labels: list[int], runs: list[tuple[int, int]]) -> None:
    assert plots._runs(labels) == runs
