"""Anomaly scores of readings over HTTP: records, series, streams, and every invalid request."""

from __future__ import annotations

import functools
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.sensors.adaptive.detector import fit_adaptive
from models.sensors.fitting import fit_sensor
from models.sensors.model import AnomalyModel
from service.api.routes import sensor_anomaly
from service.serving.stream_state import MAX_CHARACTERS
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.app import MakeApp
from tests.support.sensors import LOAD, PUMP, RECORDS, put_in_service, with_sensors

OTHER = "ft:sensors:local:other"
SCORE = "/v1/anomaly/score"
REPLACED = "it was replaced by the value before it, or the column's median where there is none"


@pytest.fixture(scope="module")
def client(make_shared_app: MakeApp) -> TestClient:
    models = (RECORDS, FakeSensor()), (PUMP, FakeSensor("series", window=3)), (LOAD, FakeForecaster())
    return TestClient(with_sensors(make_shared_app(FakeModel(), max_readings=5000), *models))


def score(client: TestClient, **body: object) -> Any:
    answer = client.post(SCORE, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@functools.cache
def trained(detector: str) -> AnomalyModel:
    """A detector of series fitted to rows like those below."""
    normal = np.random.default_rng(3).normal([0, 5], [1, 2], (600, 2))
    columns = ("pressure", "flow")
    return (
        fit_adaptive([normal], columns) if detector == "adaptive" else fit_sensor("series", detector, columns, [normal])
    )


def rows(count: int) -> list[list[float]]:
    numbers = random.Random(7)
    return [[numbers.gauss(0, 1), numbers.gauss(5, 2)] for _ in range(count)]


def test_shares_that_would_make_too_large_an_answer_are_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": PUMP, "series": rows(100), "contributions": True}
    size = 100 * sum(len(f'"{name}"') + 14 for name in ("pressure", "flow"))
    monkeypatch.setattr(sensor_anomaly, "_MAX_SHARES_BYTES", size)
    assert len(score(client, **body)["data"]) == 100
    monkeypatch.setattr(sensor_anomaly, "_MAX_SHARES_BYTES", size - 1)
    refused = client.post(SCORE, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "contributions")
    assert "send fewer readings" in refused.json()["error"]["message"]
    assert len(score(client, **{**body, "contributions": False})["data"]) == 100


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["combined", "adaptive"])
@pytest.mark.parametrize("size", [1, 7, 50])
def test_what_jobs_train_streams_as_it_scores_at_once(make_app: MakeApp, detector: str, size: int) -> None:
    """The adaptive detector learns from every reading: all that it knows travels with the state."""
    app = make_app(FakeModel())
    put_in_service(app.state.manager, trained(detector))
    client = TestClient(app)
    series = [[a + 4 * (80 <= at < 100), b] for at, (a, b) in enumerate(rows(110))]
    whole = score(client, model=PUMP, series=series, contributions=True)
    pieces, state = list[Any](), None
    for at in [0, *range(60, len(series), size)]:
        part = series[at : 60 if at == 0 else at + size]
        answer = score(client, model=PUMP, series=part, state=state, contributions=True)
        pieces, state = pieces + answer["data"], answer["state"]
    for of in ("score", "p_value"):
        assert [row[of] for row in pieces] == pytest.approx([row[of] for row in whole["data"]], rel=1e-6)
    assert [row["is_anomaly"] for row in pieces] == [row["is_anomaly"] for row in whole["data"]]
    assert any(row["is_anomaly"] for row in pieces[80:100])
    assert [row["contributions"] for row in pieces] == [
        {column: pytest.approx(share, abs=1e-5) for column, share in row["contributions"].items()}
        for row in whole["data"]
    ]


def test_a_detector_that_learns_on_has_no_one_threshold(make_app: MakeApp) -> None:
    """Each of its p-values is of another moment: no score would be above those, and only those, that are anomalies."""
    app = make_app(FakeModel())
    put_in_service(app.state.manager, trained("adaptive"))
    put_in_service(app.state.manager, trained("level"), OTHER)
    client = TestClient(app)
    moving, staying = (score(client, model=model, series=rows(300)) for model in (PUMP, OTHER))
    assert (moving["threshold"], moving["warnings"]) == (None, [])
    assert [row["score"] >= staying["threshold"] for row in staying["data"]] == [
        row["is_anomaly"] for row in staying["data"]
    ]


def test_records_as_objects_or_rows(client: TestClient) -> None:
    objects = score(client, model=RECORDS, records=[{"flow": -30, "pressure": 1.5}, {"pressure": 0, "flow": 1}])
    lists = score(client, model=RECORDS, records=[[1.5, -30], [0, 1]])
    assert objects["data"] == lists["data"]
    strange, normal = objects["data"]
    assert strange == {
        "object": "anomaly",
        "index": 0,
        "score": 30.0,
        "p_value": pytest.approx(1 / 31),
        "is_anomaly": True,
        "contributions": None,
        "nearest": [],
        "truncated": False,
    }
    assert (normal["index"], normal["is_anomaly"]) == (1, False)
    assert list(objects) == [
        "object",
        "model",
        "data",
        "alpha",
        "threshold",
        "events",
        "drift",
        "state",
        "reference",
        "warnings",
        "usage",
    ]
    assert (objects["alpha"], objects["threshold"], objects["state"]) == (0.05, 19.0, None)
    assert objects["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "readings": 2}
    assert objects["reference"] == {"count": 1000, "cached": True, "truncated": 0}


def test_contributions_name_the_columns(client: TestClient) -> None:
    answer = score(client, model=RECORDS, records=[[1, -3], [0, 0]], contributions=True)
    assert [item["contributions"] for item in answer["data"]] == [
        {"pressure": 0.25, "flow": 0.75},
        {"pressure": 0, "flow": 0},
    ]


def test_alpha_decides_and_a_detector_that_cannot_tell_says_so(client: TestClient) -> None:
    assert not score(client, model=RECORDS, records=[[0, 30]], alpha=0.01)["data"][0]["is_anomaly"]
    assert score(client, model=RECORDS, records=[[0, 9]], alpha=0.1)["data"][0]["is_anomaly"], "at exactly alpha"
    answer = score(client, model=RECORDS, records=[[0, 30]], alpha=0.0001)
    assert answer["threshold"] is None
    assert "1000 independent normal readings cannot give a p-value below" in answer["warnings"][0]


@pytest.mark.parametrize("count", [128, 129, 3000])
def test_many_rows_are_as_few(client: TestClient, count: int) -> None:
    sent = rows(count)
    answer = score(client, model=RECORDS, records=sent)
    assert [item["index"] for item in answer["data"]] == list(range(count))
    assert [item["score"] for item in answer["data"]] == pytest.approx([max(map(abs, row)) for row in sent], rel=1e-6)


def test_headers_say_which_version_and_how_long(client: TestClient) -> None:
    answer = client.post(SCORE, json={"model": RECORDS, "records": [[1, 2]]})
    assert answer.headers["x-sonde-model"] == f"{RECORDS}:v1"
    assert answer.headers["x-sonde-truncated"] == "0"
    assert "inference;dur=" in answer.headers["server-timing"]


# --- streams
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 50])
def test_a_stream_scores_as_the_whole_series_does(client: TestClient, piece: int) -> None:
    sent = rows(53)
    whole = score(client, model=PUMP, series=sent, contributions=True)
    first = score(client, model=PUMP, series=sent[:3], contributions=True)
    data, state = first["data"], first["state"]
    for at in range(3, 53, piece):
        answer = score(client, model=PUMP, series=sent[at : at + piece], state=state, contributions=True)
        data, state = data + answer["data"], answer["state"]
    assert [{**item, "index": 0} for item in data] == [{**item, "index": 0} for item in whole["data"]]
    assert (state, answer["drift"]) == (whole["state"], whole["drift"])


def test_drift_is_told(client: TestClient) -> None:
    before = score(client, model=PUMP, series=[[0, 0]] * 3)
    assert before["drift"] == {"detected": False, "p_value": 1.0}
    assert not any("drift" in warning for warning in before["warnings"])
    after = score(client, model=PUMP, series=[[0, 0], [0, 0], [0, 999]])
    assert after["drift"]["detected"] is True
    assert "drift: alpha no longer holds, 1 of 3 readings here have p <= 0.05" in "".join(after["warnings"])
    quiet = score(client, model=PUMP, series=[[0, 0], [0, 0], [0, 999]], alpha=0.0005)
    assert quiet["drift"]["detected"] is True
    assert not any(warning.startswith("drift") for warning in quiet["warnings"])


def test_the_detector_gets_the_times_of_the_readings_that_stay(make_app: MakeApp) -> None:
    sensor = FakeSensor("series", window=1)
    client = TestClient(with_sensors(make_app(FakeModel()), (PUMP, sensor)))
    score(
        client,
        model=PUMP,
        series=rows(3),
        timestamps=["1970-01-01T00:00:10Z", "1970-01-01", "1970-01-01T01:00+00:00"],
        late="drop",
    )
    score(client, model=PUMP, series=rows(2))
    assert [None if times is None else times.tolist() for times in sensor.times] == [[10, 3600], None]


def test_timestamps_are_remembered_from_call_to_call(client: TestClient) -> None:
    first = score(
        client,
        model=PUMP,
        series=rows(3),
        timestamps=["2026-11-23T10:00:00Z", "2026-11-23T10:01:00Z", "2026-11-23T10:02:00Z"],
    )
    assert first["warnings"] == []
    between = score(client, model=PUMP, series=rows(1), state=first["state"])
    late = {"model": PUMP, "series": rows(1), "state": between["state"]}
    refused(
        client,
        "timestamps[0]",
        "is before the last one of the call before",
        **late,
        timestamps=["2026-11-23T10:01:30Z"],
    )
    assert score(client, **late, timestamps=[1795428180])["data"]


def test_a_gap_is_told(client: TestClient) -> None:
    [warning] = score(client, model=PUMP, series=rows(3), timestamps=[0, 60, 7260])["warnings"]
    assert "7200 s apart, the model knows readings every 60 s" in warning


def test_a_gap_between_two_calls_is_told(client: TestClient) -> None:
    first = score(client, model=PUMP, series=rows(3), timestamps=[0, 60, 120])
    [warning] = score(client, model=PUMP, series=rows(2), timestamps=[259_320, 259_380], state=first["state"])[
        "warnings"
    ]
    before = "the last timestamp of the call before and timestamps[0]"
    assert warning == f"{before} are 259200 s apart, the model knows readings every 60 s: a gap"
    assert score(client, model=PUMP, series=rows(1), timestamps=[180], state=first["state"])["warnings"] == []
    [warning] = score(client, model=PUMP, series=rows(2), timestamps=[420, 7620], state=first["state"])["warnings"]
    assert "timestamps[0] and [1] are 7200 s apart" in warning, "the longest, as in one call"


def test_readings_without_times_are_no_gap(client: TestClient) -> None:
    state = score(client, model=PUMP, series=rows(3), timestamps=[0, 60, 120])["state"]
    for _ in range(2):
        state = score(client, model=PUMP, series=rows(500), state=state)["state"]
    late = score(client, model=PUMP, series=rows(1), timestamps=[60_180], state=state)
    assert late["warnings"] == []
    assert score(client, model=PUMP, series=rows(1), timestamps=[259_200], state=late["state"])["warnings"]


# --- what is refused
# ----------------------------------------------------------------------------------------------------


def refused(
    client: TestClient, param: str, why: str, *, code: str = "invalid_value", path: str = SCORE, **body: object
) -> None:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, code), answer.text
    assert why in error["message"]


def test_a_wrong_row_is_named_with_shape_and_dtype(client: TestClient) -> None:
    refused(client, "records[1]", '["n", 2], dtype float64', model=RECORDS, records=[[1, 2], [1, 2, 3]])
    refused(
        client,
        "series[2].flow",
        "expected a number (float64) or null, got a string",
        model=PUMP,
        series=[[1, 2], [1, 2], [1, "x"]],
    )
    refused(client, "records[0].heat", "no such column", model=RECORDS, records=[{"pressure": 1, "flow": 2, "heat": 3}])
    many = rows(3000)
    many[2500][1] = True
    refused(client, "records[2500].flow", "got a boolean", model=RECORDS, records=many)


def raw(client: TestClient, body: str) -> Any:
    return client.post(SCORE, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("number", ["-NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("body", "param"),
    [("[[1, 2], [1, {}]]", "records[1][1]"), ('[{{"pressure": 1, "flow": {}}}, [NaN]]', "records[0].flow")],
)
def test_numbers_that_are_none_are_named(client: TestClient, number: str, body: str, param: str) -> None:
    answer = raw(client, f'{{"model": "{RECORDS}", "records": {body.format(number)}}}')
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "malformed_body"), answer.text
    assert "expected a finite number" in error["message"]


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 30, "18446744073709551615"])
def test_huge_whole_numbers_are_refused(client: TestClient, number: str) -> None:
    answer = raw(client, f'{{"model": "{RECORDS}", "records": [[1, {number}]]}}')
    assert answer.json()["error"]["param"] in ("records[0].flow", "records[0][1]")
    assert answer.status_code in (400, 422)


def test_exactly_one_of_texts_records_and_series(client: TestClient) -> None:
    for given in (
        {},
        {"records": [[1, 2]], "series": [[1, 2]]},
        {"input": "a", "records": [[1, 2]]},
        {"records": None},
    ):
        answer = client.post(SCORE, json={"model": RECORDS, **given})
        assert answer.status_code == 422, answer.text
        assert "give exactly one of input, images, records, series" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("model", "field"), [(RECORDS, "series"), (PUMP, "records")])
def test_records_and_series_are_not_mistaken(client: TestClient, model: str, field: str) -> None:
    body: dict[str, Any] = {"model": model, field: [[1, 2]]}
    refused(client, field, "float64 of shape", **body)


def test_texts_and_readings_are_not_mistaken(client: TestClient) -> None:
    refused(
        client,
        "input",
        'reads records, float64 of shape ["n", 2] (pressure, flow); got texts',
        model=RECORDS,
        input="hello",
    )
    refused(client, "model", "reads texts, not readings", code="wrong_task", model="fake", records=[[1, 2]])
    refused(client, "model", "with readings", code="wrong_task", path="/v1/embeddings", model=PUMP, input="hello")
    refused(
        client, "model", "reads readings, not texts", code="wrong_task", path="/v1/classify", model=PUMP, input="hello"
    )
    refused(
        client, "model", "with readings", code="wrong_task", path="/v2/rerank", model=PUMP, query="a", documents=["b"]
    )
    refused(client, "model", "reads readings, not texts", code="wrong_task", path="/v1/tokenize", model=PUMP, input="a")
    refused(client, "model", "reads readings, not texts", code="wrong_task", model=LOAD, series=[[1, 2]])


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("reference", {"model": RECORDS, "records": [[1, 2]], "reference": ["a", "b"]}),
        ("timestamps", {"model": RECORDS, "records": [[1, 2]], "timestamps": [1]}),
        ("state", {"model": RECORDS, "records": [[1, 2]], "state": "AA"}),
        ("contributions", {"model": "fake", "input": "a", "reference": ["a", "b"], "contributions": True}),
        ("records", {"model": RECORDS, "records": []}),
        ("records", {"model": RECORDS, "records": {"flow": 1}}),
        ("series", {"model": PUMP, "series": "1,2"}),
        ("timestamps", {"model": PUMP, "series": [[1, 2]] * 3, "timestamps": [1, 2]}),
        ("timestamps", {"model": PUMP, "series": [[1, 2]] * 3, "timestamps": []}),
        ("timestamps[2]", {"model": PUMP, "series": [[1, 2]] * 3, "timestamps": [1, 2, 2]}),
        ("timestamps[1]", {"model": PUMP, "series": [[1, 2]] * 3, "timestamps": [5, 2, 6]}),
        ("timestamps[0]", {"model": PUMP, "series": [[1, 2]] * 3, "timestamps": ["soon", "b", "c"]}),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(client: TestClient, param: str, body: dict[str, Any]) -> None:
    refused(client, param, param.partition("[")[0], **body)


def test_a_series_shorter_than_the_window(client: TestClient) -> None:
    refused(client, "series", "has 2 readings, ft:sensors:local:pump needs at least 3", model=PUMP, series=[[1, 2]] * 2)


def test_a_state_that_is_not_this_models(make_app: MakeApp) -> None:
    app = with_sensors(make_app(), (PUMP, FakeSensor("series")))
    client = TestClient(app)
    state = score(client, model=PUMP, series=[[1, 2]])["state"]
    bad = "A" if state[40] != "A" else "B"
    for wrong in (f"{state[:40]}{bad}{state[41:]}", state[:-4], "nonsense!", "", "A" * (MAX_CHARACTERS + 1)):
        refused(client, "state", "state: ", code="invalid_state", model=PUMP, series=[[1, 2]], state=wrong)
    put_in_service(app.state.manager, FakeSensor("series"), OTHER, files={"sensor.json": "another"})
    refused(
        client,
        "state",
        "another model or version made it",
        code="invalid_state",
        model=OTHER,
        series=[[1, 2]],
        state=state,
    )


def test_any_replica_goes_on(make_app: MakeApp) -> None:
    one, other = (TestClient(with_sensors(make_app(), (PUMP, FakeSensor("series")))) for _ in range(2))
    begun = score(one, model=PUMP, series=rows(5))["state"]
    assert score(one, model=PUMP, series=rows(2), state=begun) == score(other, model=PUMP, series=rows(2), state=begun)


def test_ten_million_rows_are_refused(make_app: MakeApp) -> None:
    client = TestClient(
        with_sensors(make_app(max_readings=1000), (RECORDS, FakeSensor()), (PUMP, FakeSensor("series")))
    )
    refused(client, "records", "1001 items, 1000 are allowed", model=RECORDS, records=[[1, 2]] * 1001)
    refused(client, "series", "1001 items, 1000 are allowed", model=PUMP, series=[[1, 2]] * 1001)
    body = '{"model": "' + RECORDS + '", "records": [' + "[1,2]," * 10_000_000 + "[1,2]]}"
    answer = raw(client, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_the_catalog_has_the_contract(client: TestClient) -> None:
    metadata = client.get(f"/v1/models/{PUMP}").json()
    assert (metadata["task"], metadata["dtype"], metadata["base"]) == ("anomaly", "float64", "sensors")
    assert metadata["signature"]["inputs"][0]["columns"] == ["pressure", "flow"]
    assert {one["id"] for one in client.get("/v1/models").json()["data"]} >= {PUMP, RECORDS, LOAD}


# --- forecasts
# ----------------------------------------------------------------------------------------------------------

FORECAST = "/v1/forecast"


def test_a_forecast_goes_on_from_the_last_reading(client: TestClient) -> None:
    times = [f"2026-11-23T10:0{minute}:00Z" for minute in range(4)]
    body = {
        "model": LOAD,
        "series": [[1, 2], [1, 2], [1, 2], [3, 4]],
        "horizon": 2,
        "quantiles": [0.1, 0.5],
        "timestamps": times,
    }
    answer = client.post(FORECAST, json=body)
    assert answer.json() == {
        "object": "forecast",
        "model": LOAD,
        "columns": ["pressure", "flow"],
        "timestamps": ["2026-11-23T10:04:00Z", "2026-11-23T10:05:00Z"],
        "step": "60 s",
        "mean": [[3, 4], [3, 4]],
        "quantiles": {"0.1": [[pytest.approx(2.6), pytest.approx(3.6)]] * 2, "0.5": [[3, 4], [3, 4]]},
        "warnings": [],
        "usage": {"prompt_tokens": 0, "total_tokens": 0, "readings": 4},
    }
    assert answer.headers["x-sonde-model"] == f"{LOAD}:v1"


def test_a_forecast_by_default(client: TestClient) -> None:
    objects = [{"flow": 2, "pressure": 1}] * 5
    answer = client.post(FORECAST, json={"model": LOAD, "series": objects}).json()
    assert (len(answer["mean"]), list(answer["quantiles"]), answer["timestamps"]) == (8, ["0.1", "0.5", "0.9"], None)


@pytest.mark.parametrize(
    ("param", "change"),
    [
        ("series", {"series": [[1, 2]] * 3}),
        ("series[3].flow", {"series": [[1, 2]] * 3 + [[1, "2"]]}),
        ("series", {"series": [[None, 2], [1, None], [None, None], [None, 1]]}),
        ("series", {"series": []}),
        ("series", {"series": None}),
        ("horizon", {"horizon": 9}),
        ("horizon", {"horizon": 0}),
        ("horizon", {"horizon": True}),
        ("quantiles[0]", {"quantiles": [0.0]}),
        ("quantiles[1]", {"quantiles": [0.1, 1.0]}),
        ("quantiles[0]", {"quantiles": ["0.1"]}),
        ("quantiles", {"quantiles": [0.1, 0.1]}),
        ("quantiles", {"quantiles": 0.1}),
        ("timestamps", {"timestamps": [1, 2, 3]}),
        ("timestamps[2]", {"timestamps": [1, 2, 2, 3]}),
    ],
)
def test_a_forecast_that_cannot_be_made(client: TestClient, param: str, change: dict[str, Any]) -> None:
    refused(client, param, "", path=FORECAST, **{"model": LOAD, "series": [[1, 2]] * 4, **change})


@pytest.mark.parametrize(
    ("level", "came"),
    [("0", "0"), ("0.0", "0.0"), ("1", "1"), ("-0.1", "-0.1"), ("true", "a boolean"), ('"a"', "a string")],
)
def test_what_is_no_quantile_is_told_with_what_came(client: TestClient, level: str, came: str) -> None:
    content = f'{{"model": "{LOAD}", "series": [[1, 2]], "quantiles": [0.5, {level}]}}'
    answer = client.post(FORECAST, content=content, headers={"content-type": "application/json"})
    assert answer.json()["error"]["message"] == f"quantiles[1]: expected a number above 0 and below 1, got {came}"


def test_a_quantile_of_lists_within_lists_is_refused_as_any_other(client: TestClient) -> None:
    deep = "[" * 1000 + "]" * 1000
    content = f'{{"model": "{LOAD}", "series": [[1, 2]], "quantiles": [{deep}]}}'
    answer = client.post(FORECAST, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "quantiles[0]")


def test_only_forecasters_forecast(client: TestClient) -> None:
    for model in (PUMP, "fake"):
        refused(
            client,
            "model",
            f"models for forecast of readings: {LOAD}",
            code="wrong_task",
            path=FORECAST,
            model=model,
            series=[[1, 2]],
        )


def test_missing_readings_are_filled_and_told(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    put_in_service(app.state.manager, trained("level"))
    client = TestClient(app)
    series: list[Any] = [{"pressure": a, "flow": b} for a, b in rows(60)]
    series[40] = {"flow": series[39]["flow"]}
    answer = score(client, model=PUMP, series=series)
    assert answer["warnings"] == [f"pressure: 1 of 60 values is missing; {REPLACED}"]
    repeated = score(client, model=PUMP, series=[*series[:40], series[39], *series[41:]])
    assert answer["data"] == repeated["data"]
    refused(client, "series", "68% of the values are missing", model=PUMP, series=[{}] * 40 + series[40:])


def test_nan_is_a_missing_reading(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    put_in_service(app.state.manager, trained("level"))
    client = TestClient(app)
    series: list[list[float]] = [[pressure, flow] for pressure, flow in rows(60)]
    body = json.dumps({"model": PUMP, "series": [*series[:40], [math.nan, 1], *series[41:]], "alpha": 0.5})
    answer = raw(client, body).json()
    assert answer["warnings"] == [f"pressure: 1 of 60 values is missing; {REPLACED}"]
    assert answer["data"] == raw(client, body.replace("NaN", "null")).json()["data"]
    assert "NaN" in raw(client, body.replace(PUMP, "NaN")).json()["error"]["message"], "a string stays"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ('"alpha": NaN', "alpha"),
        ('"state": NaN', "state"),
        ('"events": {"gap": NaN}', "events.gap"),
        ('"timestamps": [NaN]', "timestamps[0]"),
    ],
)
def test_nan_is_nothing_but_a_reading(client: TestClient, more: str, param: str) -> None:
    answer = raw(client, f'{{"model": "{PUMP}", "series": [[NaN, 1]], {more}}}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["error"]["message"].endswith("got NaN")


@pytest.mark.parametrize("space", ["", " " * 80])
def test_a_fault_is_placed_as_the_body_came(client: TestClient, space: str) -> None:
    rows = ", ".join([f"[NaN, 1]{space}"] * 4000)
    body = f'{{"model": "{PUMP}", "series": [{rows}], "alpha" 0.5}}'
    column = body.index(" 0.5") + 2
    assert f"line 1 column {column} (char {column - 1})" in raw(client, body).json()["error"]["message"]


def test_a_missing_value_is_carried_over_from_the_call_before(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    put_in_service(app.state.manager, trained("level"))
    client = TestClient(app)
    series: list[Any] = rows(40)
    state = score(client, model=PUMP, series=series)["state"]
    carried = score(client, model=PUMP, series=[[None, 5.0]], state=state)
    said = score(client, model=PUMP, series=[[series[-1][0], 5.0]], state=state)
    assert carried["data"] == said["data"]
    assert carried["warnings"] == [f"pressure: 1 of 1 value is missing; {REPLACED}"]


def test_late_readings_are_left_out_where_that_is_asked_for(client: TestClient) -> None:
    body = {"model": PUMP, "series": rows(6), "timestamps": [10, 11, 11, 12, 9, 13]}
    refused = client.post(SCORE, json=body)
    assert refused.json()["error"]["param"] == "timestamps[2]"
    answer = score(client, **body, late="drop")
    assert [row["index"] for row in answer["data"]] == [0, 1, 3, 5]
    told = "2 readings were left out, since their timestamps are not later than those before: 2, 4"
    assert told in answer["warnings"]
    plain = {"model": PUMP, "series": [row for at, row in enumerate(rows(6)) if at not in {2, 4}]}
    kept = score(client, **plain, timestamps=[10, 11, 12, 13])
    assert [row["score"] for row in answer["data"]] == [row["score"] for row in kept["data"]]
    again = client.post(SCORE, json={**body, "late": "drop", "state": answer["state"]})
    assert again.status_code == 422
    assert "none is later than" in again.json()["error"]["message"]


def test_events_are_carried_over_calls(client: TestClient) -> None:
    normal = [[0.0, 0.0]] * 10
    series = [*normal, [0.0, 90.0], [0.0, 95.0], *normal, [80.0, 0.0]]
    stamps = [f"2026-11-29T10:{minute:02}:00Z" for minute in range(len(series))]
    answer = score(client, model=PUMP, series=series, timestamps=stamps, events={"gap": 3})
    first, second = answer["events"]
    assert (first["start"]["timestamp"], first["open"]) == ("2026-11-29T10:10:00Z", False)
    assert first["start"]["index"] == 10
    assert first["columns"][0]["name"] == "flow"
    assert (second["start"], second["end"], second["open"]) == (
        {"index": 22, "timestamp": "2026-11-29T10:22:00Z"},
        None,
        True,
    )
    later = [f"2026-11-29T10:{23 + minute:02}:00Z" for minute in range(10)]
    ended = score(client, model=PUMP, series=normal, timestamps=later, events={"gap": 3}, state=answer["state"])
    assert ended["events"][0]["start"] == {"index": -1, "timestamp": "2026-11-29T10:22:00Z"}
    assert ended["events"][0]["open"] is False
    assert answer["data"][0]["contributions"] is None, "not asked for"


def test_without_events_there_are_none_and_records_have_none(client: TestClient) -> None:
    assert score(client, model=PUMP, series=rows(5))["events"] is None
    answer = client.post(SCORE, json={"model": RECORDS, "records": rows(5), "events": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "events")
