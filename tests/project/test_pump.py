"""From a CSV to a promoted detector, to a stream that says which sensor is to blame, and to a forecast: real
processes, on SQLite.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from examples.plant import simulate
from examples.pump import COLUMNS, FAULT, START, Plant, live, pump, remounted, wait_for, write
from service.cli import main as sonde
from tests.support.processes import sonde_up
from tests.support.programs import PROGRAM

pytestmark = [pytest.mark.real, pytest.mark.slow]

PUMP = "ft:sensors:local:pump"
FLOW = "ft:sensors:local:flow"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with sonde_up(tmp_path_factory.mktemp("up"), *PROGRAM) as (_, url):
        yield Plant(url)


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pump") / "normal.csv", pump(4000, 1), START)


@pytest.fixture(scope="module")
def job(plant: Plant, normal: Path) -> dict[str, Any]:
    """The job that trained the detector, which serves now."""
    done = plant.train(normal, "pump", "anomaly", kind="series", detector="level")
    wait_for(plant, PUMP)
    return done


def test_it_is_promoted_and_says_what_it_reads(plant: Plant, job: dict[str, Any]) -> None:
    assert (job["fine_tuned_model"], job["result"]["decision"]) == (f"{PUMP}:v1", "promoted"), job["result"]
    metadata = plant.call(f"/v1/models/{PUMP}")
    [source] = metadata["signature"]["inputs"]
    assert (source["columns"], source["shape"], source["dtype"]) == (list(COLUMNS), ["n", 4], "float64")
    assert (metadata["signature"]["kind"], metadata["signature"]["period_s"]) == ("series", 60.0)
    assert not metadata["notes"], "its golden readings were run"


def test_a_stream_finds_the_fault_and_blames_the_right_sensors(plant: Plant, job: dict[str, Any]) -> None:
    answers = plant.stream(PUMP, live(), START, 0.01)
    rows = [row for answer in answers for row in answer["data"]]
    strange = np.array([row["is_anomaly"] for row in rows])
    fault = np.zeros(len(rows), dtype=bool)
    fault[FAULT] = True
    assert strange[fault].mean() > 0.5
    assert strange[: FAULT.start].mean() < 0.05
    blamed = {
        column: float(np.mean([rows[at]["contributions"][column] for at in np.flatnonzero(strange & fault)]))
        for column in COLUMNS
    }
    assert max(blamed, key=lambda column: blamed[column]) in ("vibration", "temperature")


def test_the_stream_scores_as_the_whole_series_does(plant: Plant, job: dict[str, Any]) -> None:
    readings = live()[:500]
    pieces = [row["score"] for answer in plant.stream(PUMP, readings, START, 0.01) for row in answer["data"]]
    whole = plant.call("/v1/anomaly/score", {"model": PUMP, "series": readings.tolist()})
    assert pieces == pytest.approx([row["score"] for row in whole["data"]], rel=1e-5, abs=1e-6)


def test_drift_is_told_when_normal_changes(plant: Plant, job: dict[str, Any]) -> None:
    assert plant.stream(PUMP, remounted(), START, 0.01)[-1]["drift"]["detected"] is True
    assert plant.stream(PUMP, pump(600, 9), START, 0.01)[-1]["drift"]["detected"] is False
    assert f'sonde_drift_detected{{model="{PUMP}",version="v1"}} 0.0' in plant.bytes("/metrics").decode()


def test_extreme_readings_are_answered(plant: Plant, job: dict[str, Any]) -> None:
    for value in (1e15, -1e15, 1e-300):
        answer = plant.call("/v1/anomaly/score", {"model": PUMP, "series": [[value] * 4] * 40, "contributions": True})
        assert len(answer["data"]) == 40


def test_the_report_has_its_plots(plant: Plant, job: dict[str, Any]) -> None:
    report = plant.call(f"/v1/fine_tuning/jobs/{job['id']}/report")
    assert set(report["plot_files"]) >= {"series", "contributions"}
    for path in report["plot_files"].values():
        assert b"</svg>" in plant.bytes(path)
    assert b"data:image/svg+xml" in plant.bytes(f"/v1/fine_tuning/jobs/{job['id']}/report?format=html")


def test_the_command_line_scores_a_file(plant: Plant, job: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "live.csv", live(), START)
    out, plot = tmp_path / "out.csv", tmp_path / "out.png"
    flags = ["--timestamp", "time", "--out", str(out), "--plot", str(plot), "--alpha", "0.01"]
    assert sonde(["score", str(path), "--model", PUMP, "--url", plant.url, *flags]) == 0
    with out.open(newline="") as stream:
        found = [int(row["is_anomaly"]) for row in csv.DictReader(stream)]
    assert np.mean(found[FAULT]) > 0.5
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_state_goes_to_no_other_version(plant: Plant, job: dict[str, Any], normal: Path) -> None:
    state = plant.call("/v1/anomaly/score", {"model": PUMP, "series": live()[:60].tolist()})["state"]
    again = plant.train(normal, "pump", "anomaly", kind="series", detector="residual")
    assert again["fine_tuned_model"] == f"{PUMP}:v2"
    body = {"series": live()[60:61].tolist(), "state": state}
    assert plant.call("/v1/anomaly/score", {"model": f"{PUMP}:v1", **body})["data"]
    with pytest.raises(HTTPError) as caught:
        plant.call("/v1/anomaly/score", {"model": f"{PUMP}:v2", **body})
    assert caught.value.code == 422
    assert b"invalid_state" in caught.value.read()


def test_a_forecaster_is_trained_and_asked(plant: Plant, normal: Path) -> None:
    done = plant.train(normal, "flow", "forecast", horizon=12, context=96, columns=["flow"], model="linear")
    assert done["result"]["decision"] == "promoted", done["result"]
    wait_for(plant, FLOW)
    metadata = plant.call(f"/v1/models/{FLOW}")
    assert (metadata["task"], metadata["signature"]["window"], metadata["signature"]["horizon"]) == ("forecast", 96, 12)
    asked = {
        "model": FLOW,
        "series": pump(200, 5)[:, 1:2].tolist(),
        "quantiles": [0.1, 0.9],
        "timestamps": list(range(0, 12_000, 60)),
    }
    answer = plant.call("/v1/forecast", asked)
    assert (answer["columns"], len(answer["mean"]), answer["timestamps"][:2]) == (["flow"], 12, [12_000.0, 12_060.0])
    assert all(
        low < mean < high
        for [low], [mean], [high] in zip(
            answer["quantiles"]["0.1"], answer["mean"], answer["quantiles"]["0.9"], strict=True
        )
    )
    report = plant.call(f"/v1/fine_tuning/jobs/{done['id']}/report")
    assert set(report["plot_files"]) == {"forecast", "horizon"}, "nothing was trained by descent"
    for path in report["plot_files"].values():
        assert b"</svg>" in plant.bytes(path)
        assert plant.bytes(path.replace(".svg", ".png")).startswith(b"\x89PNG")


def test_a_plants_log_becomes_a_list_of_events(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three machines in one file, as a logger writes it: each fault is found, and its sensor blamed first."""
    simulate.write_files(tmp_path)
    written = {"timezone": "Europe/Berlin", "na_values": ["-9999"]}
    given = {"kind": "series", "timestamp": "Zeit", "group": "Maschine", "csv": written}
    done = plant.train(tmp_path / "normal.csv", "pumps", "anomaly", **given)
    assert done["result"]["decision"] == "promoted", done["result"]
    model = "ft:sensors:local:pumps"
    wait_for(plant, model)
    flags = [
        "--timestamp",
        "Zeit",
        "--group",
        "Maschine",
        "--csv",
        "timezone=Europe/Berlin",
        "--csv",
        "na_values=-9999",
    ]
    assert (
        sonde(["score", str(tmp_path / "live.csv"), "--model", model, "--url", plant.url, "--alpha", "0.01", *flags])
        == 0
    )
    said = capsys.readouterr().out
    assert "decimal comma" in said
    events = [line.split() for line in said.splitlines() if line.startswith("P-10")]
    for fault in simulate.FAULTS:
        begins = simulate.START + (simulate.NORMAL_READINGS + fault.rows.start) * simulate.PERIOD
        found = [line for line in events if line[0] == fault.machine and line[4] == "high"]
        assert [line[6] for line in found if _is_near(line[1], begins)] == [fault.column], said


def _is_near(text: str, moment: datetime) -> bool:
    return abs((datetime.fromisoformat(text) - moment).total_seconds()) < 3600
