"""Models of every kind by the Open Inference Protocol: their contracts, their outputs, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models.sensors.model import Readings
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.app import MakeApp
from tests.support.sensors import LOAD, PUMP, RECORDS, with_sensors
from tests.support.trained_models import train

HEADER = "Inference-Header-Content-Length"
STRANGE = "ft:fake:local:strange"
LABELS = ("card", "refund", "weather")
READINGS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.fixture(scope="module")
def pump() -> FakeSensor:
    return FakeSensor("series", window=3)


@pytest.fixture(scope="module")
def client(make_shared_app: MakeApp, tmp_path_factory: pytest.TempPathFactory, pump: FakeSensor) -> TestClient:
    encoder = FakeModel(prompts={"query": "find: "})
    app = make_shared_app(
        encoder,
        FakeModel("sorter", task="classification", labels=LABELS),
        FakeModel("ranker", task="rerank"),
        max_inputs=8,
        max_readings=50,
    )
    registry = app.state.registry
    train(registry, tmp_path_factory.mktemp("trained"), encoder, name=STRANGE, task="anomaly", labels=())
    registry.promote(STRANGE, 1, by="test", why="")
    app.state.manager.watcher.sync()
    sensors = (RECORDS, FakeSensor(fault=require_writable)), (PUMP, pump), (LOAD, FakeForecaster())
    return TestClient(with_sensors(app, *sensors))


def require_writable(readings: Readings) -> None:
    """PyTorch warns of memory that it may not write, once in a process."""
    if not readings.flags.writeable:
        raise UserWarning("readings: expected memory that may be written, got a request's body")


def texts(*values: str, name: str = "text", **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": list(values)} | changes


def readings(values: Any, name: str = "records", **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP64", "shape": [len(values), 2], "data": values} | changes


def infer(client: TestClient, model: str, *inputs: dict[str, Any], **fields: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **fields})


def outputs(client: TestClient, model: str, *inputs: dict[str, Any], **fields: Any) -> dict[str, np.ndarray[Any, Any]]:
    answer = infer(client, model, *inputs, **fields)
    assert answer.status_code == 200, answer.text
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]}


def described(client: TestClient, model: str) -> tuple[list[Any], list[Any]]:
    metadata = client.get(f"/v2/models/{model}").json()
    return tuple(
        [(one["name"], one["datatype"], one["shape"]) for one in metadata[side]] for side in ("inputs", "outputs")
    )  # type: ignore[return-value]


def test_each_kind_has_a_contract(client: TestClient) -> None:
    text = [("text", "BYTES", [-1])]
    assert described(client, "fake") == (text, [("embedding", "FP32", [-1, 16])])
    assert described(client, "sorter") == (text, [("label", "BYTES", [-1]), ("scores", "FP32", [-1, 3])])
    assert described(client, "ranker") == (
        [("query", "BYTES", [1]), ("documents", "BYTES", [-1])],
        [("relevance_score", "FP32", [-1])],
    )
    assert described(client, STRANGE) == (text, [("score", "FP32", [-1]), ("p_value", "FP64", [-1])])
    scored = [("score", "FP32", [-1]), ("p_value", "FP64", [-1]), ("contributions", "FP32", [-1, 2])]
    assert described(client, RECORDS) == ([("records", "FP64", [-1, 2])], scored)
    assert described(client, PUMP) == ([("series", "FP64", [-1, 2])], scored)
    forecast = [("mean", "FP64", [-1, 2]), ("quantiles", "FP64", [3, -1, 2])]
    assert described(client, LOAD) == ([("series", "FP64", [-1, 2])], forecast)


def test_all_models_are_listed(client: TestClient) -> None:
    assert client.get("/v2/models").json() == {"models": ["fake", "sorter", "ranker", STRANGE, RECORDS, PUMP, LOAD]}


def test_the_configuration_leaves_the_batch_out(client: TestClient) -> None:
    config = client.get("/v2/models/sorter/config").json()
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": []}]
    assert config["output"][1] == {"name": "scores", "data_type": "TYPE_FP32", "dims": [3]}
    assert config["dynamic_batching"] == {"priority_levels": 2, "default_priority_level": 1}
    series = client.get(f"/v2/models/{PUMP}/config").json()
    assert (series["max_batch_size"], series["input"][0]["dims"]) == (0, [-1, 2])
    assert series["input"][1] == {"name": "timestamps", "data_type": "TYPE_INT64", "dims": [-1], "optional": True}
    assert "dynamic_batching" not in series


def test_vectors_are_those_of_our_own_route(client: TestClient) -> None:
    expected = client.post("/v1/embeddings", json={"model": "fake", "input": ["my card", "hello"]}).json()
    made = outputs(client, "fake", texts("my card", "hello"))["embedding"]
    np.testing.assert_allclose(made, [item["embedding"] for item in expected["data"]], rtol=1e-6)
    column = texts("my card", "hello", shape=[2, 1], data=[["my card"], ["hello"]])
    np.testing.assert_array_equal(outputs(client, "fake", column)["embedding"], made)
    asked = outputs(client, "fake", texts("my card"), parameters={"prompt_name": "query"})["embedding"]
    assert not np.allclose(asked[0], made[0])


def test_raw_texts_and_vectors(client: TestClient) -> None:
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in ("mỹ card".encode(), b"hello"))
    one = texts("", "", parameters={"binary_data_size": len(raw)})
    del one["data"]
    header = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    answer = client.post("/v2/models/fake/infer", content=header + raw, headers={HEADER: str(len(header))})
    assert answer.status_code == 200, answer.text
    vectors = np.frombuffer(answer.content[int(answer.headers[HEADER]) :], np.float32).reshape(2, 16)
    np.testing.assert_allclose(vectors, outputs(client, "fake", texts("mỹ card", "hello"))["embedding"], rtol=1e-6)


def test_a_classifier_gives_its_best_label_and_all_scores(client: TestClient) -> None:
    expected = client.post("/v1/classify", json={"model": "sorter", "input": ["my card"]}).json()["data"][0]
    made = outputs(client, "sorter", texts("my card"))
    assert made["label"].tolist() == [expected["label"]]
    by_label = dict(zip(LABELS, made["scores"][0].tolist(), strict=True))
    assert by_label == pytest.approx({one["label"]: one["score"] for one in expected["labels"]})


def test_the_best_labels_as_triton_writes_them(client: TestClient) -> None:
    wanted = [{"name": "scores", "parameters": {"classification": 2}}]
    made = outputs(client, "sorter", texts("my card", "hello"), outputs=wanted)["scores"]
    assert made.shape == (2, 2)
    scores = outputs(client, "sorter", texts("my card", "hello"))["scores"]
    best = scores[0].argmax()
    assert made[0, 0] == f"{scores[0, best]:f}:{best}:{LABELS[best]}"
    [row] = outputs(
        client, "fake", texts("hello"), outputs=[{"name": "embedding", "parameters": {"classification": 99}}]
    )["embedding"]
    assert len(row) == 16
    assert all(len(value.split(":")) == 2 for value in row)


def test_documents_are_ranked_as_by_our_own_route(client: TestClient) -> None:
    documents = ["my card is lost", "hello world"]
    body = {"model": "ranker", "query": "card", "documents": documents}
    results = client.post("/v1/rerank", json=body).json()["results"]
    made = outputs(client, "ranker", texts("card", name="query"), texts(*documents, name="documents"))
    expected = [one["relevance_score"] for one in sorted(results, key=lambda one: one["index"])]
    np.testing.assert_allclose(made["relevance_score"], expected, rtol=1e-6)


def test_texts_are_scored_by_a_trained_detector(client: TestClient) -> None:
    body = {"model": STRANGE, "input": ["my card is lost", "pizza"]}
    expected = client.post("/v1/anomaly/score", json=body).json()["data"]
    made = outputs(client, STRANGE, texts("my card is lost", "pizza"))
    np.testing.assert_allclose(made["p_value"], [one["p_value"] for one in expected])
    np.testing.assert_allclose(made["score"], [one["score"] for one in expected], rtol=1e-6)


def test_records_are_scored_with_missing_values(client: TestClient) -> None:
    expected = client.post("/v1/anomaly/score", json={"model": RECORDS, "records": READINGS}).json()["data"]
    made = outputs(client, RECORDS, readings(READINGS))
    np.testing.assert_allclose(made["score"], [one["score"] for one in expected])
    np.testing.assert_allclose(made["p_value"], [one["p_value"] for one in expected])
    assert made["contributions"].shape == (3, 2)
    chosen = outputs(client, RECORDS, readings(READINGS), outputs=[{"name": "p_value"}])
    assert list(chosen) == ["p_value"]


def test_raw_records(client: TestClient) -> None:
    raw = np.array(READINGS, dtype=np.float64)
    one = readings(READINGS, parameters={"binary_data_size": raw.nbytes})
    del one["data"]
    header = json.dumps({"inputs": [one]}).encode()
    answer = client.post(
        f"/v2/models/{RECORDS}/infer", content=header + raw.tobytes(), headers={HEADER: str(len(header))}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == outputs(client, RECORDS, readings(READINGS))["score"].tolist()


def test_a_series_continues_with_the_state_of_its_answer(client: TestClient) -> None:
    whole = outputs(client, PUMP, readings([*READINGS, *READINGS], "series"))["score"]
    first = infer(client, PUMP, readings(READINGS, "series")).json()
    assert first["parameters"]["drift_detected"] is False
    state = {"parameters": {"state": first["parameters"]["state"]}}
    then = outputs(client, PUMP, readings(READINGS, "series"), **state)["score"]
    np.testing.assert_allclose(then, whole[3:])
    changed = infer(client, PUMP, readings(READINGS, "series"), parameters={"state": "AAAA"})
    assert changed.status_code == 422
    assert changed.json()["error"].startswith("state: ")


SECONDS = [1_795_428_000, 1_795_428_060, 1_795_428_120]
ISO = ["2026-11-23T10:00:00Z", "2026-11-23 10:01", "2026/11/23 10:02 UTC"]


def stamps(values: list[Any], datatype: str = "INT64", **changes: Any) -> dict[str, Any]:
    return {"name": "timestamps", "datatype": datatype, "shape": [len(values)], "data": values} | changes


@pytest.mark.parametrize(
    "sent",
    [stamps(SECONDS), *(stamps([10**unit * one for one in SECONDS]) for unit in (3, 6, 9)), stamps(ISO, "BYTES")],
    ids=["seconds", "milliseconds", "microseconds", "nanoseconds", "text"],
)
def test_a_series_has_timestamps_of_every_unit(client: TestClient, pump: FakeSensor, sent: dict[str, Any]) -> None:
    first = infer(client, PUMP, sent, readings(READINGS, "series"))
    assert first.status_code == 200, first.text
    assert pump.times[-1] is not None
    assert pump.times[-1].tolist() == SECONDS
    state = {"state": first.json()["parameters"]["state"]}
    again = infer(client, PUMP, readings(READINGS, "series"), sent, parameters=state)
    assert again.status_code == 422
    assert again.json()["error"].startswith("timestamps[0]: 2026-11-23T10:00:00Z is before the last one of the call")


def test_a_gap_since_the_call_before_is_told(client: TestClient) -> None:
    first = infer(client, PUMP, readings(READINGS, "series"), stamps(SECONDS)).json()
    later = stamps([SECONDS[-1] + 7200, SECONDS[-1] + 7260, SECONDS[-1] + 7320])
    state = {"state": first["parameters"]["state"]}
    answer = infer(client, PUMP, readings(READINGS, "series"), later, parameters=state).json()
    assert "are 7200 s apart" in answer["parameters"]["warnings"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (stamps(SECONDS[:2]), "timestamps: expected int64 or bytes [batch], got [2]: dimension 0 is 2, expected 3, as"),
        (stamps([1.5, 2.5, 3.5], "FP64"), "timestamps: expected int64 or bytes [batch], got dtype float64"),
        (stamps([*SECONDS[:2], SECONDS[0]]), "timestamps[2]: 2026-11-23T10:00:00Z is before the one before"),
        (stamps([-1, 0, 1]), "timestamps[0]: expected Unix seconds from 0"),
        (stamps(["noon", "1", "2"], "BYTES"), "timestamps[0]: expected ISO 8601 like 2026-11-23T10:00:00Z, got 'noon'"),
    ],
)
def test_wrong_timestamps_are_named(client: TestClient, sent: dict[str, Any], message: str) -> None:
    answer = infer(client, PUMP, readings(READINGS, "series"), sent)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]


def test_timestamps_go_with_series_alone(client: TestClient) -> None:
    for model, name in ((RECORDS, "records"), (LOAD, "series")):
        answer = infer(client, model, readings(READINGS, name), stamps(SECONDS))
        assert answer.json()["error"].startswith("inputs: no input 'timestamps'; the model has: "), answer.text


def test_a_forecast_has_a_mean_and_quantiles(client: TestClient) -> None:
    series = READINGS * 4
    expected = client.post("/v1/forecast", json={"model": LOAD, "series": series, "horizon": 2}).json()
    answer = infer(client, LOAD, readings(series, "series"), parameters={"horizon": 2})
    assert answer.json()["parameters"]["quantiles"] == "0.1,0.5,0.9"
    made = outputs(client, LOAD, readings(series, "series"), parameters={"horizon": 2})
    np.testing.assert_allclose(made["mean"], expected["mean"])
    np.testing.assert_allclose(made["quantiles"][2], expected["quantiles"]["0.9"])
    too_far = infer(client, LOAD, readings(series, "series"), parameters={"horizon": 999})
    assert too_far.status_code == 422
    assert "parameters.horizon: " in too_far.json()["error"]


@pytest.mark.parametrize(
    ("model", "one", "message"),
    [
        ("fake", texts("a", "b", shape=[1, 2]), "text: expected bytes [batch], got [1, 2]"),
        ("fake", texts(*"abcdefghi"), "dimension 0 is 9, expected 1..8"),
        ("fake", texts(shape=[0], data=[]), "dimension 0 is 0, expected 1..8"),
        ("fake", texts("a", "b", shape=[3]), "text: expected 3 values for shape [3], got 2"),
        ("fake", texts("a", data=[["a"], ["b"]], shape=[1]), "text: expected 1 value for shape [1], got more"),
        ("fake", texts("a", data=[["a"]]), "text: expected BYTES in lists, got other data (Expected"),
        ("fake", texts("a", data=[1]), "text: expected BYTES in lists, got other data (Expected `str`, got `int`)"),
        ("fake", texts("a", data=[""]), "text[0]: expected a text, got an empty string"),
        ("fake", texts("a", data=["a\0"]), "text[0]: the text has a NUL character"),
        ("fake", texts("a", datatype="INT64", data=[1]), "text: expected bytes [batch], got dtype int64"),
        ("fake", texts("a", name="input"), "inputs: no input 'input'; the model has: text"),
        ("ranker", texts("a", name="query"), "documents: expected bytes [n], got none"),
        (RECORDS, readings([[1.0]], shape=[1, 1]), "expected float64 [batch, 2], got [1, 1]: dimension 1 is 1"),
        (RECORDS, readings(READINGS, datatype="FP32"), "records: expected float64 [batch, 2], got dtype float32"),
        (RECORDS, readings([[1.0, 1e16]]), "records[0].flow: expected a number of at most 1e+15 (float64), got 1e+16"),
        (RECORDS, readings([[None, None]]), "records: 100% of the values are missing"),
        (PUMP, readings(READINGS[:2], "series"), "series: has 2 readings"),
        (LOAD, readings(READINGS[:1], "series"), "series: has 1 reading"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(client: TestClient, model: str, one: dict[str, Any], message: str) -> None:
    answer = infer(client, model, one)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\2\0\0\0a", "text: expected 6 bytes, as the length before text 0 says, got 5"),
        (b"\xff\xff\xff\xffa", "text: expected 4294967299 bytes, as the length before text 0 says, got 5"),
        (
            b"\1\0\0\0ab",
            "text: expected 1 text for shape [1], each after its length in 4 bytes; got 1, and 1 byte more",
        ),
        (b"", "text: expected 1 text for shape [1], each after its length in 4 bytes; got 0, and 0 bytes more"),
        (b"\1\0", "text: expected "),
        (b"\1\0\0\0\xff", "text[0]: expected UTF-8, got other bytes"),
    ],
)
def test_raw_texts_with_a_false_length_are_refused(client: TestClient, raw: bytes, message: str) -> None:
    one = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    header = json.dumps({"inputs": [one]}).encode()
    answer = client.post("/v2/models/fake/infer", content=header + raw, headers={HEADER: str(len(header))})
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]


def test_raw_texts_that_are_shorter_than_they_say_are_refused(client: TestClient) -> None:
    one = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}
    header = json.dumps({"inputs": [one]}).encode()
    answer = client.post("/v2/models/fake/infer", content=header + b"\1\0\0\0a", headers={HEADER: str(len(header))})
    assert answer.json() == {"error": "text: expected binary_data_size 9 bytes, got 5"}


def test_parameters_of_other_kinds_are_refused(client: TestClient) -> None:
    answer = infer(client, "sorter", texts("a"), parameters={"horizon": 3})
    assert answer.status_code == 422
    message = "parameters.horizon: sorter has no such parameter; those of its kind: truncate"
    assert answer.json() == {"error": message}
    label = infer(client, "sorter", texts("a"), outputs=[{"name": "label", "parameters": {"classification": 1}}])
    assert label.json() == {"error": "label: bytes has no best values: leave out classification"}


def test_long_texts_are_cut_and_the_answer_says_so(client: TestClient) -> None:
    long = " ".join(["hello"] * 99)
    answer = infer(client, "fake", texts(long, "hello")).json()
    assert answer["parameters"] == {"warnings": "1 text was cut to the model's length"}
    assert infer(client, "fake", texts(long), parameters={"truncate": False}).status_code == 422


def test_the_time_that_a_request_allows(make_app: MakeApp) -> None:
    model = FakeModel("slow")
    slow = TestClient(make_app(model))
    model.gate.clear()
    answer = infer(slow, "slow", texts("hello"), parameters={"timeout": 50_000, "priority": 1})
    model.gate.set()
    assert answer.status_code == 504
    assert answer.json()["error"].startswith("the request's time ran out")


@pytest.mark.parametrize(("priority", "bulk"), [(None, False), (0, False), (1, False), (2, True), (9, True)])
def test_a_low_priority_makes_a_request_bulk(make_app: MakeApp, priority: int | None, bulk: bool) -> None:
    app = make_app(FakeModel())
    engine = app.state.manager.find("fake").engine
    asked: list[bool] = []
    submit = engine.submit

    def watched(items: Any, **given: Any) -> Any:
        asked.append(given["bulk"])
        return submit(items, **given)

    engine.submit = watched
    parameters = {} if priority is None else {"priority": priority}
    assert infer(TestClient(app), "fake", texts("hello"), parameters=parameters).status_code == 200
    assert asked == [bulk]


def test_nulls_and_codecs_of_mlservers_types_are_read(client: TestClient) -> None:
    codec = {"content_type": "str", "headers": None}
    one = texts("hello", shape=[1, 1], parameters=codec)
    assert infer(client, "fake", one, id=None, outputs=None, parameters=codec).status_code == 200
    assert infer(client, "fake", one, model_name="fake").status_code == 200  # as KServe's client sends it
    answer = infer(client, "fake", texts("aGVsbG8=", parameters={"content_type": "base64"}))
    assert answer.status_code == 422
    assert "Invalid enum value 'base64'" in answer.text.replace("invalid", "Invalid")
