"""Plots: drawn from plain data, whatever columns are called, and equal for equal data."""

from __future__ import annotations

from typing import Any

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
PLOTS: dict[str, Any] = {"series": SERIES, "contributions": {"pressure": 0.75, "<b>\x07": 0.25}, "training": {"loss": [2.0, 1.0, 0.5]}}


@pytest.mark.parametrize("name", plots.NAMES)
def test_each_is_drawn_and_the_same_data_gives_the_same_file(name: str) -> None:
    drawn = plots.draw(name, PLOTS, "svg")
    assert drawn.startswith(b"<?xml")
    assert b"</svg>" in drawn
    assert plots.draw(name, PLOTS, "png").startswith(b"\x89PNG")
    assert plots.draw(name, PLOTS, "svg") == drawn


def test_what_is_drawn_depends_on_the_data() -> None:
    calm = {**PLOTS, "series": {**SERIES, "anomalies": [], "threshold": {"0.05": None}, "labels": None, "x": list(range(40))}}
    assert plots.draw("series", calm, "svg") != plots.draw("series", PLOTS, "svg")


def test_only_what_has_data_is_there() -> None:
    assert plots.available(PLOTS) == ["series", "contributions", "training"]
    assert plots.available({**PLOTS, "training": None}) == ["series", "contributions"]
    assert plots.available({}) == []


@pytest.mark.parametrize(
    ("labels", "runs"), [([], []), ([0, 0], []), ([1, 1], [(0, 1)]), ([0, 1, 1, 0, 1], [(1, 2), (4, 4)]), ([1, 0, 0], [(0, 0)])]
)
def test_runs_of_ones(labels: list[int], runs: list[tuple[int, int]]) -> None:
    assert plots._runs(labels) == runs
