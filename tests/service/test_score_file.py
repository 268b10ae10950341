"""`sonde score`: a CSV by a running service or by the registry, the same either way."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.registry.registry import Registry
from models.sensors.adaptive.detector import fit_adaptive
from models.sensors.fitting import fit_sensor
from models.training.data.table import Table
from service.cli import main
from service.client import Client
from service.client.pieces import rows_per_request
from service.config import Settings
from service.score_output import ScoredRows, draw
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.app import MakeApp
from tests.support.artifacts import staging
from tests.support.sensors import LOAD, PUMP, RECORDS, put_in_service, sensor_manifest, with_sensors


@pytest.fixture
def service(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service that is called without a socket."""
    models = (PUMP, FakeSensor("series", window=3)), (RECORDS, FakeSensor()), (LOAD, FakeForecaster())
    return reached(TestClient(with_sensors(make_app(), *models)), monkeypatch)


def reached(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The service of all clients from now on."""

    def pass_on(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        answer = client.request(request.method, path, content=request.content, headers=dict(request.headers))
        return httpx.Response(answer.status_code, content=answer.content)

    connect_by(pass_on, monkeypatch)
    return client


def connect_by(answer: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all clients ask a function instead of a socket."""

    def connect(*arguments: Any, **options: Any) -> Client:
        http = httpx.Client(base_url="http://localhost", transport=httpx.MockTransport(answer))
        return Client(*arguments, **options, http=http)

    monkeypatch.setattr("service.score_file.Client", connect)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "pump.csv"
    rows = [f"2026-11-23T10:{n // 60:02}:{n % 60:02},{n % 3},{90 if n == 50 else n % 2},note" for n in range(100)]
    path.write_text("\n".join(["at,flow,pressure,remark", *rows]) + "\n")
    return path


def score(*arguments: str) -> int:
    return main(["score", *arguments])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_a_series_by_a_service(
    service: TestClient, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "scores.csv", tmp_path / "out.png"
    flags = (
        "--url",
        "http://localhost",
        "--timestamp",
        "at",
        "--out",
        str(out),
        "--plot",
        str(plot),
        "--alpha",
        "0.02",
    )
    assert score(str(table), "--model", PUMP, *flags) == 0
    rows = read_rows(out)
    assert len(rows) == 100
    assert [row["line"] for row in rows if row["is_anomaly"] == "1"] == ["52"]
    assert rows[50]["timestamp"] == "2026-11-23T10:00:50+00:00"
    assert float(rows[50]["contribution_pressure"]) > 0.9
    assert plot.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "100 rows, 1 anomaly at alpha 0.02 (1.0 %)" in said
    assert "columns with the largest contribution: pressure" in said
    event = said.splitlines()[said.splitlines().index("1 event") + 2]
    assert event.split()[:4] == ["2026-11-23T10:00:50+00:00", "2026-11-23T10:00:50+00:00", "1", "low"]


def test_what_separates_cells_is_told_as_in_training(service: TestClient, table: Path, tmp_path: Path) -> None:
    for name, separator in (("comma", ","), ("semicolon", ";"), ("tab", "\t")):
        (tmp_path / name).write_text(table.read_text().replace(",", separator), encoding="utf-8-sig")
        flags = ("--url", "http://localhost", "--timestamp", "at", "--out", str(tmp_path / f"{name}.csv"))
        assert score(str(tmp_path / name), "--model", PUMP, *flags) == 0
        assert (tmp_path / f"{name}.csv").read_text() == (tmp_path / "comma.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("time", ["{}", "{}000", "{}000000000", "now", "shift {} of 3", "2026-11-23 {}"])
def test_whatever_the_time_is_written_like_it_is_drawn(service: TestClient, tmp_path: Path, time: str) -> None:
    rows = [f"{time.format(1767225600 + n)},{n % 3},{n % 2}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["at,flow,pressure", *rows]))
    flags = ("--url", "http://localhost", "--timestamp", "at", "--plot", str(tmp_path / "t.svg"))
    assert score(str(tmp_path / "t.csv"), "--model", PUMP, *flags) == 0
    assert (tmp_path / "t.svg").read_bytes().startswith(b"<?xml")


def test_each_time_is_written_once_for_the_plot_and_once_for_the_events(
    service: TestClient, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Counter[float]()

    def counted(seconds: float, zone: object) -> str:
        written[seconds] += 1
        return str(seconds)

    monkeypatch.setattr("service.score_output.to_iso", counted)
    monkeypatch.setattr("service.plots.series", lambda data: None)
    monkeypatch.setattr("service.plots.render", lambda plot, kind: b"")
    flags = ("--url", "http://localhost", "--timestamp", "at", "--plot", str(tmp_path / "t.svg"))
    assert score(str(table), "--model", PUMP, *flags) == 0
    assert set(written.values()) == {2}
    assert len(written) == 100


@pytest.mark.slow
def test_in_several_requests_as_in_one(
    service: TestClient, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, numbers in (("one", 200), ("several", 14), ("window", 2)):  # of two columns each
        monkeypatch.setattr("service.client.pieces._MAX_VALUES", numbers)
        for model in (PUMP, RECORDS):
            assert (
                score(
                    str(table),
                    "--model",
                    model,
                    "--url",
                    "http://localhost/",
                    "--out",
                    str(tmp_path / f"{name}-{model}"),
                )
                == 0
            )
    for model in (PUMP, RECORDS):
        for name in ("several", "window"):
            assert (tmp_path / f"one-{model}").read_text() == (tmp_path / f"{name}-{model}").read_text()


@pytest.mark.parametrize(
    ("columns", "window", "rows"), [(1, 1, 10_000), (20, 64, 10_000), (82, 64, 2_439), (5_000, 64, 64)]
)
def test_a_request_has_as_many_rows_as_a_body_may_and_a_window_needs(columns: int, window: int, rows: int) -> None:
    assert rows_per_request(columns, window) == rows


def test_a_full_request_is_a_body_that_is_taken() -> None:
    longest = len(f"{-sys.float_info.max}, ")
    assert rows_per_request(82, 64) * 82 * longest < Settings().max_body_bytes / 2


def test_a_wide_table_is_scored(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    columns = tuple(f"c{number}" for number in range(82))
    app = with_sensors(make_app(max_body_bytes=40_000), (PUMP, FakeSensor("series", columns, window=3)))
    reached(TestClient(app), monkeypatch)
    monkeypatch.setattr("service.client.pieces._MAX_VALUES", 1_000)
    (tmp_path / "wide.csv").write_text("\n".join(",".join(row) for row in [columns, *[["0.123456789"] * 82] * 100]))
    assert (
        score(
            str(tmp_path / "wide.csv"), "--model", PUMP, "--url", "http://localhost", "--out", str(tmp_path / "out.csv")
        )
        == 0
    )
    assert len(read_rows(tmp_path / "out.csv")) == 100


def publish(directory: Path) -> None:
    """A version of a detector in the registry of `directory / "home"`."""
    registry = Registry(directory / "home" / "models")
    registry.publish(
        PUMP, staging(directory / "staged", {"sensor.json": "{}"}), lambda version: sensor_manifest(version=version)
    )
    registry.promote(PUMP, 1, by="test", why="")


def test_the_registry_gives_what_the_service_gives(
    service: TestClient, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path)
    monkeypatch.setattr("models.sensors.serialization.load_sensor", lambda path: FakeSensor("series", window=3))
    by_service, by_registry = tmp_path / "a.csv", tmp_path / "b.csv"
    assert score(str(table), "--model", PUMP, "--url", "http://localhost", "--out", str(by_service)) == 0
    for name in (PUMP, f"{PUMP}:v1"):
        assert score(str(table), "--model", name, "--home", str(tmp_path / "home"), "--out", str(by_registry)) == 0
        assert by_registry.read_text() == by_service.read_text()


def test_a_file_that_lacks_most_values_is_refused_either_way(
    service: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path)
    monkeypatch.setattr("models.sensors.serialization.load_sensor", lambda path: FakeSensor("series", window=3))
    (tmp_path / "t.csv").write_text("flow,pressure\n" + "1,2\n" * 4 + ",\n1,\n" * 6)
    for where in (("--url", "http://localhost"), ("--home", str(tmp_path / "home"))):
        assert score(str(tmp_path / "t.csv"), "--model", PUMP, *where) == 1
        assert "56% of the values are missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "model", "flags", "said"),
    [
        ("flow,pressure\n1,2\n1,x\n", RECORDS, (), "t.csv, line 3, column 'pressure': expected a number, got 'x'"),
        (
            "flow,pressure\n" + "1,2\n" * 70 + "-9999,2\n",
            RECORDS,
            (),
            "column 'flow' has -9999 1 time, first on line 72, far from all other values",
        ),
        ("flow,pressure\n1,2\n", RECORDS, ("--csv", "decimals=,"), "--csv decimals"),
        ("flow,pressure\n1\n", RECORDS, (), "t.csv, line 2: expected 2 cells as in the header, got 1"),
        ("flow,pressure\n1,2\n1,2,3\n", RECORDS, (), "t.csv, line 3: expected 2 cells as in the header, got 3"),
        ("flow,flow,pressure\n1,2,3\n", RECORDS, (), "t.csv, line 1, column 'flow': expected each column once"),
        (
            "flow,pressure\n-2e15,1\n",
            RECORDS,
            (),
            "line 2, column 'flow': expected a number of at most 1e+15 either way, got -2000000000000000.0",
        ),
        ("flow,pressure\ninf,1\n", RECORDS, (), "t.csv, line 2, column 'flow': expected a finite number, got inf"),
        ("flow\n1\n", RECORDS, (), "t.csv: expected a column 'pressure', got 'flow'"),
        ("flow,pressure\n1,2\n", RECORDS, ("--timestamp", "at"), "expected a column 'at', got 'flow', 'pressure'"),
        ("flow,pressure\n", RECORDS, (), "t.csv: expected rows of readings, got none"),
        ("", RECORDS, (), "a header and rows, got an empty file"),
        ("flow,pressure\n1,2\n", PUMP, (), "the file has 1 row, the model needs at least 3"),
        ("flow,pressure\n1,2\n", LOAD, (), "is not a sensor model that detects anomalies"),
        ("flow,pressure\n1,2\n", "fake", (), "is not a sensor model that detects anomalies"),
        ("flow,pressure\n1,2\n", "ft:sensors:local:none", (), "no model 'ft:sensors:local:none'"),
        ("flow,pressure\n1,2\n", RECORDS, ("--plot", "out.pdf"), "expected a file that ends in .png or .svg"),
        ("flow,pressure\n1,2\n", RECORDS, ("--alpha", "7"), "--alpha"),
        ("flow,pressure\n1,2\n", RECORDS, ("--out", "/dev/full"), "--out /dev/full: No space left on device"),
    ],
)
def test_what_cannot_be_scored_says_why(
    service: TestClient,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    model: str,
    flags: tuple[str, ...],
    said: str,
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert score(str(path), "--model", model, "--url", "http://localhost", *flags) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (
            ["10:02", "10:01", "10:00"],
            "line 3, at: 2026-11-23T10:01:00Z is before the one on line 2, 2026-11-23T10:02:00Z; expected increasing",
        ),
        (
            ["10:00", "10:01", "10:01"],
            "line 4, at: 2026-11-23T10:01:00Z repeats the one on line 3, 2026-11-23T10:01:00Z; expected increasing",
        ),
        (["10:00", "10:01", "10:01+01:00"], "line 4, at: 2026-11-23T09:01:00Z is before the one on line 3"),
    ],
)
def test_a_series_in_another_order_is_refused(
    service: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str], times: list[str], said: str
) -> None:
    path = tmp_path / "{t}.csv"
    path.write_text("\n".join(["at,flow,pressure", *[f"2026-11-23T{time},1,2" for time in times]]))
    flags = ("--url", "http://localhost", "--timestamp", "at", "--out", str(tmp_path / "out.csv"))
    assert score(str(path), "--model", PUMP, *flags) == 1
    assert f"{path.name}, {said}" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert score(str(path), "--model", RECORDS, *flags) == 0, "records are judged each by itself"


def test_what_learns_on_has_no_threshold_and_is_not_called_untrained(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sensor = fit_adaptive([np.random.default_rng(0).normal(size=(600, 2))], ("pressure", "flow"))
    app = make_app()
    put_in_service(app.state.manager, sensor)
    reached(TestClient(app), monkeypatch)
    publish(tmp_path)
    monkeypatch.setattr("models.sensors.serialization.load_sensor", lambda path: sensor)
    drawn = list[dict[str, object]]()

    def drawing(data: dict[str, dict[str, object]]) -> None:
        drawn.append(data["threshold"])

    monkeypatch.setattr("service.plots.series", drawing)
    monkeypatch.setattr("service.plots.render", lambda plot, kind: b"")
    for where in (("--url", "http://localhost"), ("--home", str(tmp_path / "home"))):
        assert score(str(table), "--model", PUMP, *where, "--plot", str(tmp_path / "out.png")) == 0
        assert "too few" not in capsys.readouterr().out
        assert score(str(table), "--model", PUMP, *where, "--alpha", "0.0001") == 0
        assert "calibrated on too few normal readings for alpha 0.0001" in capsys.readouterr().out
    assert drawn == [{"0.05": None}] * 2


def test_a_file_s_times_reach_the_detector(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the service's requests and by the model of the home alike, before 1970 too."""
    sensor = FakeSensor("series", window=1)
    app = make_app()
    put_in_service(app.state.manager, sensor)
    reached(TestClient(app), monkeypatch)
    publish(tmp_path)
    monkeypatch.setattr("models.sensors.serialization.load_sensor", lambda path: sensor)
    path = tmp_path / "old.csv"
    path.write_text("at,flow,pressure\n1969-12-31T23:59:59.5,1,2\n1970-01-01T00:00:30,1,2\n")
    for where in (("--url", "http://localhost"), ("--home", str(tmp_path / "home"))):
        assert score(str(path), "--model", PUMP, *where, "--timestamp", "at") == 0
    assert [None if times is None else times.tolist() for times in sensor.times] == [[-0.5, 30]] * 2


@pytest.mark.parametrize("place", ["none/x.svg", "taken.svg", "pump.csv/x.svg"])
@pytest.mark.parametrize("flag", ["--out", "--plot"])
def test_where_nothing_can_be_written_nothing_is_scored(
    table: Path, capsys: pytest.CaptureFixture[str], flag: str, place: str
) -> None:
    (table.parent / "taken.svg").mkdir()
    assert score(str(table), "--model", PUMP, "--url", "http://127.0.0.1:1", flag, str(table.parent / place)) == 1
    assert f"{flag}: expected a file in a directory that exists, got {table.parent / place}" in capsys.readouterr().err


def answering(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response) -> list[httpx.Request]:
    """The requests to a service that answers as scripted."""
    asked, script = list[httpx.Request](), iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return next(script)

    connect_by(answer, monkeypatch)
    return asked


@pytest.mark.parametrize("answer", [b"[]", b'{"object":"model","id":"m"}', b"[" * 100_000])
def test_a_service_of_another_kind(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    answering(monkeypatch, httpx.Response(200, content=answer))
    assert score(str(table), "--model", PUMP, "--url", "http://other") == 1
    assert "is not a route of Sonde" in capsys.readouterr().err


def test_a_key_is_not_sent_where_a_service_redirects(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, httpx.Response(302, headers={"location": "http://elsewhere/"}))
    assert score(str(table), "--model", PUMP, "--url", "http://other", "--key", "secret") == 1
    assert "HTTP status 302" in capsys.readouterr().err
    assert [request.url.host for request in asked] == ["localhost"]


@pytest.mark.parametrize("count", [0, 99, 101])
def test_an_answer_with_another_number_of_scores_is_refused(
    service: TestClient, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    item = {"index": 0, "score": 1.0, "p_value": 0.5, "is_anomaly": False, "contributions": None}
    about = service.get(f"/v1/models/{RECORDS}").json()
    scores = {"model": RECORDS, "data": [item] * count, "alpha": 0.05, "threshold": None, "reference": {"count": 9},
              "drift": None, "state": None, "warnings": []}  # fmt: skip
    answering(monkeypatch, httpx.Response(200, json=about), httpx.Response(200, json=scores))
    assert score(str(table), "--model", RECORDS, "--url", "http://other") == 1
    assert f"expected 100 scores, one a reading, got {count}" in capsys.readouterr().err


def test_events_are_in_the_order_of_the_file(
    service: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{at % 3},{90 if at in (5, 95, 110) else at % 2}" for at in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["flow,pressure", *rows]))
    assert score(str(tmp_path / "t.csv"), "--model", PUMP, "--url", "http://localhost", "--alpha", "0.02") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[lines.index("3 events") + 2 :]] == ["7", "97", "112"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "no answer from the service"),
        ("http://127.0.0.1:abc", "expected an address like"),
        ("http://[::1", "expected an address like"),
        ("nowhere", "expected an address like"),
    ],
)
def test_a_service_that_is_not_there(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    monkeypatch.setattr("service.client.client.time.sleep", lambda seconds: None)
    assert score(str(table), "--model", PUMP, "--url", url) == 1
    assert said in capsys.readouterr().err


def test_a_registry_without_the_model(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(str(table), "--model", PUMP, "--home", str(tmp_path)) == 1
    assert "has no version in service" in capsys.readouterr().err


def test_a_file_of_a_plant_is_scored_as_it_is_trained_on(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    normal = np.random.default_rng(0).normal(size=(600, 2))
    put_in_service(app.state.manager, fit_sensor("series", "level", ("pressure", "flow"), [normal]))
    reached(TestClient(app), monkeypatch)
    rows = [f"27.11.2026 10:{at:02};{'' if at == 3 else '0,25'};{9 if at > 40 else '0,5'}" for at in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["Zeit;pressure;flow", ";bar;l/min", *rows]), encoding="cp1252")
    out = tmp_path / "out.csv"
    flags = ("--url", "http://localhost", "--timestamp", "Zeit", "--csv", "timezone=Europe/Berlin", "--out", str(out))
    assert score(str(path), "--model", PUMP, *flags) == 0
    said = capsys.readouterr().out
    assert "read as: semicolon, a row of units left out (bar, l/min), decimal comma, day first, Europe/Berlin" in said
    assert "pressure: 1 value is missing" in said
    assert "open" in said.splitlines()[-1]
    assert read_rows(out)[0]["timestamp"] == "2026-11-27T10:00:00+01:00"


def test_each_machine_is_drawn_as_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    count = 6
    table = Table(("a",), np.arange(count * 1.0)[:, None], np.arange(count) + 2, groups=("x", "y") * 3)
    p_values = np.array([1, 1, 1, 0.01, 1, 1])
    found = ScoredRows(np.zeros(count), p_values, np.ones((count, 1)), None, 999, None)
    drawn = list[dict[str, Any]]()
    monkeypatch.setattr("service.plots.series", drawn.append)
    monkeypatch.setattr("service.plots.render", lambda plot, kind: b"")
    draw(tmp_path / "out.png", table, found, ("a",), 0.05, window=2)
    assert drawn[0]["columns"] == {"a": [0, 2, 4, 1, 3, 5]}
    assert (drawn[0]["anomalies"], drawn[0]["marks"]) == ([4], {"a": [4]})
