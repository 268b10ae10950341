"""The Open Inference Protocol over gRPC: tensors, keys, deadlines, health, and how errors come."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.errors import SondeError
from models.training.errors import HyperparameterError
from service.api.error_responses import STATUS
from service.auth import Keyring
from service.errors import BodyTooLarge, CannotListen, ConfigError, InvalidRequest, MalformedBody
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeSensor
from tests.support.app import MakeApp
from tests.support.sensors import PUMP, with_sensors
from tests.support.server import free_port

grpc = pytest.importorskip("grpc")
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

from service.inference_messages import SERVICE, message  # noqa: E402
from service.rpc.errors import status_and_message  # noqa: E402
from service.rpc.fields import parse  # noqa: E402
from service.rpc.server import RpcServer  # noqa: E402
from service.rpc.tensors import raw_values  # noqa: E402

Ask = Callable[..., Awaitable[Any]]
TEXTS = [b"my card", "thẻ".encode()]


def serve(app: FastAPI, work: Callable[[Ask, Any], Awaitable[Any]]) -> Any:
    """What `work` gives with a function that calls a method of the application's gRPC server."""

    async def run() -> Any:
        settings = app.state.settings.model_copy(update={"host": "127.0.0.1", "grpc_port": free_port()})
        server = RpcServer(app, settings, shared=False)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:

                async def ask(method: str, timeout: float = 20, metadata: Any = (), **fields: Any) -> Any:
                    call = channel.unary_unary(
                        f"/{SERVICE}/{method}",
                        request_serializer=lambda request: request.SerializeToString(),
                        response_deserializer=message(f"{method}Response").FromString,
                    )
                    return await call(message(f"{method}Request")(**fields), timeout=timeout, metadata=metadata)

                return await work(ask, channel)
        finally:
            await server.stop(0)

    return asyncio.run(run())


def ask_once(app: FastAPI, method: str, **fields: Any) -> Any:
    return serve(app, lambda ask, channel: ask(method, **fields))


def refused(app: FastAPI, method: str, **fields: Any) -> Any:
    """The error of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        ask_once(app, method, **fields)
    return caught.value


def text(**changes: Any) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": TEXTS}} | changes


def values(answer: Any, dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    raw = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return [np.frombuffer(part, dtype).reshape(tuple(one.shape)) for one, part in raw]


def test_values_in_contents_and_raw_give_what_http_gives(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    answer = ask_once(app, "ModelInfer", model_name="fake", id="seven", inputs=[text()])
    assert (answer.model_name, answer.model_version, answer.id) == ("fake", "0", "seven")
    [vectors] = values(answer)
    body = {"model": "fake", "input": [one.decode() for one in TEXTS]}
    expected = [one["embedding"] for one in TestClient(app).post("/v1/embeddings", json=body).json()["data"]]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in TEXTS)
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [2, 1]}]
    [again] = values(ask_once(app, "ModelInfer", model_name="fake", inputs=inputs, raw_input_contents=[raw]))
    np.testing.assert_array_equal(again, vectors)


def test_a_series_with_its_state_and_timestamps(make_app: MakeApp) -> None:
    sensor = FakeSensor("series", window=1)
    app = with_sensors(make_app(FakeModel()), (PUMP, sensor))
    series = {"name": "series", "datatype": "FP64", "shape": [1, 2], "contents": {"fp64_contents": [1.0, 2.0]}}
    fields = {"model_name": PUMP, "inputs": [series], "outputs": [{"name": "p_value"}]}
    answer = ask_once(app, "ModelInfer", **fields)
    [p_values] = values(answer, np.float64)
    assert p_values.shape == (1,)
    assert answer.parameters["drift_detected"].bool_param is False
    state = {"state": {"string_param": answer.parameters["state"].string_param}}
    assert ask_once(app, "ModelInfer", parameters=state, **fields).parameters["state"].string_param
    timestamps = {
        "name": "timestamps",
        "datatype": "INT64",
        "shape": [1],
        "contents": {"int64_contents": [1_795_428_000_000]},
    }
    ask_once(app, "ModelInfer", **{**fields, "inputs": [series, timestamps]})
    assert [None if times is None else times.tolist() for times in sensor.times] == [None, None, [1_795_428_000.0]]
    config = ask_once(app, "ModelConfig", name=PUMP).config
    assert [one.optional for one in config.input] == [False, True]


def test_statistics_of_one_model_and_of_all(make_app: MakeApp) -> None:
    async def work(ask: Ask, channel: Any) -> None:
        await ask("ModelInfer", model_name="fake", inputs=[text()])
        [one] = (await ask("ModelStatistics", name="fake")).model_stats
        assert (one.name, one.version, one.inference_count, one.execution_count) == ("fake", "0", 2, 1)
        assert one.inference_stats.compute_infer.count == 1
        everything = (await ask("ModelStatistics")).model_stats
        assert {each.name for each in everything} == {"fake", "judge"}
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await ask("ModelStatistics", name="none")

    serve(make_app(FakeModel(), FakeModel("judge", task="classification")), work)


def test_the_server_and_its_models_describe_themselves(make_app: MakeApp) -> None:
    async def work(ask: Ask, channel: Any) -> None:
        assert (await ask("ServerLive")).live
        assert (await ask("ServerReady")).ready
        assert (await ask("ServerMetadata")).name == "sonde"
        assert (await ask("ModelReady", name="fake")).ready
        metadata = await ask("ModelMetadata", name="fake")
        assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [("text", "BYTES", [-1])]
        config = (await ask("ModelConfig", name="fake")).config
        assert (config.name, config.backend, config.max_batch_size) == ("fake", "sonde", 2048)
        [entry] = config.input
        assert (entry.name, config.DESCRIPTOR.file.enum_types_by_name["DataType"].values[entry.data_type].name) == (
            "text",
            "TYPE_STRING",
        )
        assert config.dynamic_batching.priority_levels == 2
        [entry] = (await ask("RepositoryIndex")).models
        assert (entry.name, entry.state) == ("fake", "READY")
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
        async for found in stub.ServerReflectionInfo(iter([asked])):
            assert b"ModelInferRequest" in found.file_descriptor_response.file_descriptor_proto[0]

    serve(make_app(FakeModel()), work)


def test_calls_that_were_taken_before_the_shutdown_are_answered(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    app.state.manager.draining = True
    assert values(ask_once(app, "ModelInfer", model_name="fake", inputs=[text()]))[0].shape[0] == 2


def test_health_says_that_models_are_loading(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    app.state.manager.opened = False

    async def work(ask: Ask, channel: Any) -> None:
        assert not (await ask("ServerReady")).ready
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        app.state.manager.opened = True
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        async for said in watch:
            assert said.status == health_pb2.HealthCheckResponse.SERVING
            break
        watch.cancel()

    serve(app, work)


@pytest.mark.parametrize(
    ("fields", "code", "details"),
    [
        ({"model_name": "nobody", "inputs": [text()]}, "NOT_FOUND", "no model 'nobody' here; there is: fake"),
        ({"inputs": [text(shape=[3])]}, "INVALID_ARGUMENT", "text: expected 3 texts for shape [3]"),
        ({"inputs": [text(shape=[1, 2])]}, "INVALID_ARGUMENT", "text: expected bytes [batch], got [1, 2]"),
        ({"inputs": [text(shape=[-1])]}, "INVALID_ARGUMENT", "inputs[0].shape[0]: expected `int` >= 0, got -1"),
        ({"inputs": [text(datatype="INT8")]}, "INVALID_ARGUMENT", "text: expected bytes [batch], got dtype int8"),
        (
            {"inputs": [text(shape=[1] * 70)]},
            "INVALID_ARGUMENT",
            "inputs[0].shape: expected at most 64 dimensions, got 70",
        ),
        ({"inputs": []}, "INVALID_ARGUMENT", "inputs: expected `array` of length >= 1, got 0 items"),
        ({"inputs": [text()], "raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT", "raw_input_contents: expected"),
        (
            {"inputs": [text()], "parameters": {"horizon": {"int64_param": 3}}},
            "INVALID_ARGUMENT",
            "parameters.horizon: fake has no such parameter",
        ),
        ({"inputs": [text()], "parameters": {"sequence_id": {"int64_param": 3}}}, "INVALID_ARGUMENT", "unknown field"),
    ],
)
def test_what_does_not_fit_is_refused(make_app: MakeApp, fields: dict[str, Any], code: str, details: str) -> None:
    error = refused(make_app(FakeModel()), "ModelInfer", **{"model_name": "fake", **fields})
    assert error.code() == grpc.StatusCode[code]
    assert details in error.details()
    assert dict(error.trailing_metadata())["x-sonde-error"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"datatype": "FP16"}, "text: expected raw_input_contents, or contents"),
        ({"datatype": "INT8"}, "text: expected INT8 in int_contents, got bytes_con"),
        ({"datatype": "INT8", "contents": {"int_contents": [300, 1]}}, "text: expected INT8, -128 to 127, got 300"),
        ({"datatype": "INT8", "contents": {"int_contents": [1] * 9}}, "text: expected 2 values for shape [2], got 9"),
    ],
)
def test_contents_that_do_not_fit_are_refused(changes: dict[str, Any], expected: str) -> None:
    request = message("ModelInferRequest")(inputs=[text(**changes)])
    with pytest.raises(InvalidRequest, match=re.escape(expected)):
        raw_values(request)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    size, length = len(content), b""
    while size > 0x7F:
        size, length = size >> 7, length + bytes([size & 0x7F | 0x80])
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (_field(5, b"") * 20_000, BodyTooLarge),  # inputs
        (_field(7, b"") * 20_000, BodyTooLarge),  # raw values
        (_field(4, b"") * 20_000, BodyTooLarge),  # parameters
        (_field(5, _field(5, _field(8, b"") * 20_000)), BodyTooLarge),  # texts of an input
        (_field(5, _field(3, b"\1" * 20_000)), BodyTooLarge),  # sizes of a shape
        (b"\x78\x00" * 20_000, BodyTooLarge),  # of no field's number
        (_field(1, b"fake")[:-1], MalformedBody),
        (b"\x7b" * 100, MalformedBody),  # groups within each other
        (b"\x08" + b"\xff" * 100, MalformedBody),  # a number without an end
        (_field(1, b"\xff"), MalformedBody),  # not UTF-8
    ],
)
def test_fields_are_counted_before_a_message_is_parsed(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse("ModelInferRequest", content, 10_000)


def test_a_message_is_read_once_its_key_is_known(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(FakeModel())
    keyring = Keyring(app.state.settings.keys_file)
    keyring.create(["infer"])
    app.state.checks._keyring = keyring
    parsed: list[str] = []
    monkeypatch.setattr("service.rpc.calls.parse", lambda name, content, most: parsed.append(name))
    error = refused(app, "ModelInfer", model_name="fake", id="a" * (4 << 20))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert parsed == []


def test_a_message_that_does_not_come_is_late(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    app.state.settings = app.state.settings.model_copy(update={"default_timeout_s": 0.2})

    async def work(ask: Ask, channel: Any) -> None:
        async def nothing() -> Any:
            await asyncio.sleep(30)
            yield b""

        call = channel.stream_unary(f"/{SERVICE}/ModelInfer")(nothing(), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "the message did not come within 0.2 s" in caught.value.details()

    serve(app, work)


def test_watching_is_limited_and_ends_with_the_server(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.rpc.server._MOST_WATCHING", 1)
    settings = make_app(FakeModel()).state.settings.model_copy(update={"host": "127.0.0.1", "grpc_port": free_port()})
    server = RpcServer(make_app(FakeModel()), settings, shared=False)

    async def run() -> None:
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(health_pb2.HealthCheckRequest()).read()
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            began = time.monotonic()
            stopping = asyncio.create_task(server.stop(20))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await stopping
            assert time.monotonic() - began < 10

    asyncio.run(run())


def test_keys_and_scopes_are_those_of_http(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    keyring = Keyring(app.state.settings.keys_file)
    _, infer_only = keyring.create(["infer"])
    app.state.checks._keyring = keyring

    async def code(ask: Ask, method: str, *metadata: tuple[str, str], **fields: Any) -> Any:
        try:
            await ask(method, metadata=metadata, **fields)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def work(ask: Ask, channel: Any) -> None:
        infer = {"model_name": "fake", "inputs": [text()]}
        assert await code(ask, "ServerLive") == grpc.StatusCode.OK
        assert await code(ask, "ModelInfer", **infer) == grpc.StatusCode.UNAUTHENTICATED
        for header in ("authorization", f"Bearer {infer_only}"), ("x-api-key", infer_only):
            assert await code(ask, "ModelInfer", header, **infer) == grpc.StatusCode.OK
            load = {"model_name": "fake"}
            assert await code(ask, "RepositoryModelLoad", header, **load) == grpc.StatusCode.PERMISSION_DENIED

    serve(app, work)


def test_a_deadline_ends_the_work_and_is_counted(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    model = FakeModel()
    app = make_app(model)
    model.gate.clear()
    with caplog.at_level(logging.INFO, "sonde"):
        error = refused(
            app, "ModelInfer", model_name="fake", inputs=[text()], parameters={"timeout": {"int64_param": 50_000}}
        )
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details().startswith("the request's time ran out")
        late = refused(app, "ModelInfer", timeout=0.1, model_name="fake", inputs=[text()])
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    model.gate.set()
    assert app.state.metrics.deadline_missed._value.get() >= 1
    routes = {sample.labels["route"] for family in app.state.metrics.requests.collect() for sample in family.samples}
    assert f"/{SERVICE}/ModelInfer" in routes


def test_a_model_of_the_settings_is_not_unloaded(make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    assert ask_once(app, "RepositoryModelLoad", model_name="fake") is not None
    error = refused(app, "RepositoryModelUnload", model_name="fake")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "fake is a model of the settings" in error.details()
    config = refused(app, "RepositoryModelLoad", model_name="fake", parameters={"config": {"string_param": "{}"}})
    assert config.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_port_that_is_taken_is_said(make_app: MakeApp) -> None:
    app = make_app(FakeModel())

    async def start_twice() -> None:
        settings = app.state.settings.model_copy(update={"host": "127.0.0.1", "grpc_port": free_port()})
        first, second = (RpcServer(app, settings, shared=False) for _ in range(2))
        await first.start()
        try:
            await second.start()
        finally:
            await first.stop(0)

    with pytest.raises(CannotListen, match="--grpc-port: "):
        asyncio.run(start_twice())


def test_without_the_extra_the_setting_is_refused(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    from service import rpc

    app = make_app(FakeModel())
    assert rpc.open_rpc(app, app.state.settings, shared=False) is None
    monkeypatch.setitem(__import__("sys").modules, "grpc_health.v1.health_pb2", None)
    with pytest.raises(ConfigError, match="sonde\\[grpc\\]"):
        rpc.open_rpc(app, app.state.settings.model_copy(update={"grpc_port": 8001}), shared=False)


def test_a_message_of_other_letters_fits_a_header(make_app: MakeApp) -> None:
    error = refused(make_app(FakeModel()), "ModelReady", name="漢" * 900)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert error.details().startswith("no model '漢")
    error = refused(make_app(FakeModel()), "ModelReady", name="a" * 100_000)
    assert error.details() == f"no model '{'a' * 80}'…, a name of 100000 characters, here"


@pytest.mark.parametrize(
    "kind", [kind for kind, status in STATUS.items() if 400 <= status < 500 and kind is not HyperparameterError]
)
def test_faults_of_the_caller_have_a_status_that_says_so(kind: type[SondeError]) -> None:
    _, code, _ = status_and_message(kind("no"))
    assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
