"""The evaluation on NAB: files are read as they are, nothing is scored in the probation, and the given files come
out as reported.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import etth1, nab
from benchmarks.nab_scorer import best_threshold, score_at
from models.training.sensors.fit_forecaster import ForecastPlan, errors_of, fit_forecaster, held_out_windows

DATA = Path(__file__).parents[3] / "shared/data"


def write(data: Path) -> None:
    """One file of 2,000 rows with a spike at row 1500 and a window of 101 rows around it."""
    (data / "nab/data/some").mkdir(parents=True)
    (data / "nab/labels").mkdir()
    values = np.random.default_rng(0).normal(50, 1, 2000)
    values[1500] = 90
    times = [
        str(time).replace("T", " ")
        for time in np.datetime64("2026-01-01T00:00:00") + np.arange(2000) * np.timedelta64(300, "s")
    ]
    rows = [f"{time},{value}" for time, value in zip(times, values.tolist(), strict=True)]
    (data / "nab/data/some/one.csv").write_text("\n".join(["timestamp,value", *rows]), encoding="utf-8")
    window = [f"{times[row]}.000000" for row in (1450, 1550)]
    (data / "nab/labels/combined_windows.json").write_text(json.dumps({"some/one.csv": [window]}), encoding="utf-8")


def test_a_file_is_read_with_its_windows_and_scored_behind_its_probation(tmp_path: Path) -> None:
    write(tmp_path)
    (stream,) = nab.read(tmp_path, ("some",))
    assert (stream.name, stream.period_s, stream.labels.windows) == ("some/one", 300.0, ((1450, 1550),))
    scores = nab.detect(stream)
    assert stream.labels.probation == 300
    assert not scores[:300].any()
    assert int(scores.argmax()) == 1500
    files = [(scores, stream.labels)]
    assert score_at(files, best_threshold(files)).normalized > 85


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "nab").is_dir(), reason="the data of NAB is not there")
def test_the_given_real_files_score_above_sixty() -> None:
    files = [(nab.detect(stream), stream.labels) for stream in nab.read(DATA, ("realKnownCause",))]
    assert score_at(files, best_threshold(files)).normalized > 60


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "etth1").is_dir(), reason="the data of ETTh1 is not there")
def test_etth1_is_forecast_as_reported() -> None:
    columns, rows = etth1.read(DATA)
    train, validation, test = rows[:8640], rows[8640 - etth1.CONTEXT : 11520], rows[11520 - etth1.CONTEXT :]
    made = fit_forecaster(
        [train], [validation], ForecastPlan(columns, etth1.CONTEXT, etth1.HORIZON, "linear")
    ).forecaster
    windows = held_out_windows(made, [test])
    assert errors_of(made.model, windows).mse <= 0.385
    assert 0.76 <= made.coverage(windows) <= 0.84
