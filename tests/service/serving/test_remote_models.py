"""Fronts compute in an engine that they share: same rows, one queue, and each front's faults are its own."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.errors import ModelSourceError
from models.registry.registry import Registry
from models.source import ModelSource
from models.text.model import TextModel
from models.text.tokenization import Tokens
from service.config import Settings
from service.engine.engine import Engine
from service.engine.frames import Cancel, Rows, encode
from service.engine.request import Request
from service.errors import BackendError, BodyTooLarge, ClientGone, Overloaded, Unavailable
from service.metrics import Metrics
from service.processes.server_process import ServerProcess
from service.serving.engine_factory import EngineFactory
from service.serving.engine_link import RECONNECTING, EngineLink
from service.serving.engine_server import EngineServer
from service.serving.fine_tuned import FineTunedModel
from service.serving.front_connection import FrontConnection
from service.serving.model_manager import ModelManager
from service.serving.model_opener import LocalModelOpener, OpenedImages, OpenedProgram, OpenedText
from service.serving.remote_models import RemoteEngine, RemoteModel, RemoteModelOpener
from service.serving.servable import Caller, wait_for_rows
from tests.fakes.model import FakeModel
from tests.support.trained_models import open_fake_encoders, own_encoder, train

TIMEOUT_S = 20.0


class FakeOpener:
    """Models that are there already; versions by the name of their directory."""

    lost = ""

    def __init__(self, settings: Settings, metrics: Metrics, *models: FakeModel) -> None:
        self.engines = EngineFactory(settings, metrics, lambda error: None)
        self.models = models
        self.versions: dict[str, FakeModel] = {}
        self.loads = 0

    def measure(self) -> None: ...

    def open_configured(self) -> Iterator[OpenedText]:
        yield from map(self._start, self.models)

    def open_program(self, source: ModelSource) -> OpenedProgram:
        raise NotImplementedError

    def open_version(self, source: ModelSource) -> OpenedText | OpenedImages:
        self.loads += 1
        if source.path.name not in self.versions:
            raise ModelSourceError(f"nothing in {source.path.name}")
        return self._start(self.versions[source.path.name])

    def close(self) -> None:
        """Nothing waits."""

    def _start(self, model: FakeModel) -> OpenedText:
        return cast(TextModel, model), self.engines.start_rows(cast(TextModel, model))


class FakeProcess:
    """What the engine server needs of its process."""

    has_parent = True

    def __init__(self) -> None:
        self.make: Callable[[], asyncio.Protocol] = lambda: asyncio.Protocol()
        self.states: list[str] = []
        self.closings = 0

    def take_connections(self, make: Callable[[], asyncio.Protocol]) -> None:
        self.make = make

    def send_state(self, state: str) -> None:
        self.states.append(state)

    def closed(self) -> None:
        self.closings += 1


class Bench:
    """An engine, and fronts on it, in one event loop."""

    def __init__(self, *models: FakeModel, **settings: Any) -> None:
        self.settings = Settings.read({"model": [m.metadata.name for m in models], "device": "cpu", **settings})
        self.metrics, self.process = Metrics(), FakeProcess()
        self.source = FakeOpener(self.settings, self.metrics, *models)
        self.server = self._new_server()
        self.failures: list[Exception] = []
        self.transports: list[asyncio.Transport] = []
        self.asked = 0

    def restart(self) -> None:
        """Another engine process, with the same models."""
        self.server = self._new_server()
        self.server.start()

    async def connect(self, link: EngineLink) -> FrontConnection:
        """Do what the supervisor does for `link`."""
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        made = self.process.make()
        for protocol, end in ((made, theirs), (link, ours)):
            transport, _ = await loop.connect_accepted_socket(lambda protocol=protocol: protocol, end)  # type: ignore[misc]
            self.transports.append(transport)
        return cast(FrontConnection, made)

    def link(self) -> EngineLink:
        def ask() -> None:
            self.asked += 1

        return EngineLink(ask, self.failures.append)

    async def front(self) -> tuple[EngineLink, list[tuple[RemoteModel, RemoteEngine]]]:
        """A front with the models of the settings."""
        link = self.link()
        await self.connect(link)
        source = RemoteModelOpener(self.settings, link, self.metrics)
        opened = await asyncio.to_thread(lambda: list(source.open_configured()))
        return link, cast(list[tuple[RemoteModel, RemoteEngine]], opened)

    def _new_server(self) -> EngineServer:
        return EngineServer(self.settings, self.metrics, cast(ServerProcess, self.process), self.source)


def run(test: Callable[[Bench], Awaitable[None]], *models: FakeModel, **settings: Any) -> None:
    """Run a test with an engine that serves."""

    async def main() -> None:
        bench = Bench(*models, **settings)
        bench.server.start()
        try:
            await asyncio.wait_for(cast(Any, test(bench)), TIMEOUT_S)
        finally:
            for model in models:
                model.gate.set()
            await bench.server.close()
            for transport in bench.transports:  # the loop may end before it has read that the other end is closed
                transport.abort()

    asyncio.run(main())


async def rows(request: Request) -> np.ndarray[Any, Any]:
    return await wait_for_rows(request)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # `run` limits it
        await asyncio.sleep(0.005)


def texts(model: RemoteModel, *some: str) -> list[Tokens]:
    return model.text.encode(list(some))


def test_rows_are_those_of_the_model_in_the_order_of_the_items() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        items = texts(model, "a b", "c", "a b", "one two three")
        request = engine.submit(items)
        assert np.array_equal(await rows(request), fake.forward(items))
        assert model.metadata == fake.metadata
        assert engine.tokens_per_s > 0

    run(test, fake)


def test_a_front_computes_its_heads_with_the_threads_of_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", set_to.append)

    async def test(bench: Bench) -> None:
        link = bench.link()
        await bench.connect(link)
        settings = bench.settings.model_copy(update={"threads": 3})
        await asyncio.to_thread(lambda: list(RemoteModelOpener(settings, link, bench.metrics).open_configured()))
        assert 3 in set_to

    run(test, FakeModel())


def test_prompt_lengths_and_token_types_reach_the_model() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        _, [(_, engine)] = await bench.front()
        ids = np.array([1, 2, 3], dtype=np.int32)
        items = [Tokens(ids, 3, np.array([0, 1, 1], dtype=np.int32), 2), Tokens(ids, 3, None, 1)]
        await rows(engine.submit(items))
        seen = {item.prompt_tokens: np.asarray(item.types).tolist() for item in fake.batches[-1]}
        assert seen == {1: [0, 0, 0], 2: [0, 1, 1]}

    run(test, fake, cache_mb=0)


def test_fronts_share_rows_of_the_cache() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        (_, [(model, one)]), (_, [(_, other)]) = await bench.front(), await bench.front()
        await rows(one.submit(texts(model, "the same")))
        computed = len(fake.batches)
        await rows(other.submit(texts(model, "the same")))
        assert len(fake.batches) == computed

    run(test, fake)


def test_clients_of_two_fronts_share_the_engine_fairly() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        (_, [(model, one)]), (_, [(_, other)]) = await bench.front(), await bench.front()
        fake.gate.clear()
        fake.entered.clear()
        first = one.submit(texts(model, "first"), client="a")
        await until(fake.entered.is_set)
        bulk = [one.submit(texts(model, *["two words"] * 4), client="a") for _ in range(10)]
        mine = other.submit(texts(model, *["three of mine"] * 8), client="b")
        await until(lambda: bench.server.admission.items == 49)
        fake.gate.set()
        for request in (first, *bulk, mine):
            await rows(request)
        length = mine.items[0].count
        with_mine = [at for at, batch in enumerate(fake.batches[-12:]) if length in [item.count for item in batch]]
        assert with_mine[-1] < 6  # a queue without clients takes them last

    run(test, fake, max_batch_items=4, runners=1, threads=1, cache_mb=0)


def test_overload_counts_the_requests_of_all_fronts() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        (_, [(model, one)]), (_, [(_, other)]) = await bench.front(), await bench.front()
        fake.gate.clear()
        held = one.submit(texts(model, *(f"text {at}" for at in range(8))))
        await until(lambda: bench.server.admission.items == 8)
        with pytest.raises(Overloaded, match="8 items are waiting, 10 are allowed") as refused:
            await rows(other.submit(texts(model, "a", "b", "c")))
        assert refused.value.retry_after_s >= 1
        fake.gate.set()
        await rows(held)
        await rows(other.submit(texts(model, "a", "b", "c")))
        assert (bench.server.admission.items, bench.server.admission.tokens) == (0, 0)

    run(test, fake, max_queued_items=10)


def test_a_faulty_item_fails_its_own_request() -> None:
    def fault(batch: Sequence[Tokens]) -> None:
        if any(12 < item.count < 16 for item in batch):
            raise RuntimeError("boom")

    fake = FakeModel(fault=fault)

    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        good, bad = engine.submit(texts(model, "ok")), engine.submit(texts(model, " ".join("abcdefghijk")))
        await rows(good)
        with pytest.raises(BackendError, match="failed on this input"):
            await rows(bad)

    run(test, fake)


def test_a_cancelled_request_leaves_the_engine() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        fake.gate.clear()
        fake.entered.clear()
        first = engine.submit(texts(model, "first"))
        await until(fake.entered.is_set)
        request = engine.submit(texts(model, "two words"))
        await until(lambda: bench.server.admission.items == 2)
        engine.cancel(request, ClientGone("hung up"))
        await until(lambda: bench.server.admission.items == 1)
        fake.gate.set()
        await rows(first)
        await rows(engine.submit(texts(model, "now three words")))
        assert engine.waiting == (0, 0)
        assert request.items[0].count not in [item.count for batch in fake.batches[-2:] for item in batch]

    run(test, fake, runners=1, threads=1)


def test_deadlines_move_at_the_front_as_batches_are_computed() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        fake.gate.clear()
        deadline = time.monotonic() + 1000
        first = engine.submit(texts(model, *(f"text {at}" for at in range(6))), deadline=deadline, patience_s=2000)
        await until(lambda: bench.server.admission.items == 6)
        [front] = bench.server._fronts
        [submission] = front._open.values()
        submission.request.computed(0.1)
        await until(lambda: first.deadline is not None and first.deadline > deadline + 500)
        fake.gate.set()
        await rows(first)

    run(test, fake, default_timeout_s=0.2)


def test_a_front_that_dies_costs_its_own_requests_alone(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        (link, [(model, one)]), (_, [(_, other)]) = await bench.front(), await bench.front()
        fake.gate.clear()
        lost, kept = one.submit(texts(model, "a")), other.submit(texts(model, "b"))
        await until(lambda: bench.server.admission.items == 2)
        assert link._transport is not None
        link._transport.abort()
        await until(lambda: bench.server.admission.items == 1)
        fake.gate.set()
        await rows(kept)
        with pytest.raises(Unavailable, match=RECONNECTING):
            await rows(lost)
        assert bench.process.closings == 1
        assert "the connection to the engine has ended, another is asked for: 1 request failed" in caplog.messages

    run(test, fake)


def test_tokens_too_many_for_a_frame_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        monkeypatch.setattr("service.engine.frames.MAX_FRAME_BYTES", 100)
        with pytest.raises(BodyTooLarge, match="100 are allowed: send fewer inputs"):
            engine.submit(texts(model, *"abcdefghijklmnopqrstuvwxyz"))
        monkeypatch.undo()
        await rows(engine.submit(texts(model, "a")))

    run(test, FakeModel())


def test_rows_too_many_for_a_frame_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        monkeypatch.setattr("service.engine.frames.MAX_FRAME_BYTES", 500)
        with pytest.raises(BackendError, match="500 are allowed: send fewer inputs"):
            await rows(engine.submit(texts(model, *"abcdefghij")))
        await rows(engine.submit(texts(model, "a")))

    run(test, FakeModel())


@pytest.mark.parametrize(
    "bytes_",
    [struct.pack("<I", 2**32 - 1), struct.pack("<I", 3) + b"\xc1\xc1\xc1", encode(Cancel(1))[:-1]],
    ids=["too long", "no msgpack", "torn"],
)
def test_a_frame_that_cannot_be_read_ends_that_connection_alone(
    bytes_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        ours, theirs = socket.socketpair()
        with ours:
            await asyncio.get_running_loop().connect_accepted_socket(bench.process.make, theirs)
            await until(lambda: len(bench.server._fronts) == 2)
            ours.sendall(bytes_)
            ours.shutdown(socket.SHUT_WR)
            await until(lambda: len(bench.server._fronts) == 1)
        await rows(engine.submit(texts(model, "still there")))

    run(test, FakeModel())
    assert any("that cannot be read" in line or "within a frame" in line for line in caplog.messages)
    assert not any(record.exc_info for record in caplog.records)


def test_rows_that_do_not_fit_their_request_fail_it_at_once() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        _, [(model, engine)] = await bench.front()
        [connection] = bench.server._fronts
        fake.gate.clear()
        request = engine.submit(texts(model, "one"))
        connection.send(Rows(request.number, b"\0" * 4, 0.0, 0.0, 0.0))
        with pytest.raises(Unavailable, match=RECONNECTING):
            await asyncio.wait_for(rows(request), TIMEOUT_S / 4)

    run(test, fake)


def test_without_an_engine_requests_get_503_and_with_the_next_one_rows() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        link, [(model, engine)] = await bench.front()
        assert engine.failure is None
        fake.gate.clear()
        lost = engine.submit(texts(model, "a"))
        await until(lambda: bench.server.admission.items == 1)
        next(iter(bench.server._fronts)).abort()
        with pytest.raises(Unavailable) as refused:
            await rows(lost)
        assert refused.value.retry_after_s == 2
        with pytest.raises(Unavailable):
            engine.submit(texts(model, "b"))
        await until(lambda: bench.asked == 1)
        fake.gate.set()
        await bench.server.close()
        bench.restart()
        await bench.connect(link)
        await until(lambda: engine.failure is None)
        await rows(engine.submit(texts(model, "b")))
        assert bench.failures == []

    run(test, fake)


def test_a_front_ends_when_the_next_engine_has_another_model() -> None:
    async def test(bench: Bench) -> None:
        link, _ = await bench.front()
        next(iter(bench.server._fronts)).abort()
        await until(lambda: bench.asked == 1)
        await bench.server.close()
        bench.source.models = (FakeModel(version="1"),)
        bench.restart()
        await bench.connect(link)
        await until(lambda: bool(bench.failures))
        assert "fake:1 instead of fake:0" in str(bench.failures[0])
        assert link.lost is not None

    run(test, FakeModel())


def test_a_draining_engine_answers_what_it_has_and_the_front_leaves_it() -> None:
    fake = FakeModel()

    async def test(bench: Bench) -> None:
        link, [(model, engine)] = await bench.front()
        fake.gate.clear()
        inside = engine.submit(texts(model, "a"))
        await until(lambda: bench.server.admission.items == 1)
        bench.server._on_signal()
        await until(lambda: link.lost is not None)
        with pytest.raises(Unavailable):
            engine.submit(texts(model, "b"))
        fake.gate.set()
        await rows(inside)
        await until(lambda: not bench.server._fronts)
        await until(bench.server._ended.is_set)
        assert bench.process.states == ["ready", "draining"]

    run(test, fake)


def test_a_version_is_loaded_once_and_stays_until_no_front_holds_it(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.source.versions["v1"] = FakeModel("tuned", version="abc")
        source = ModelSource("tuned", tmp_path / "v1", "trained", "abc")
        (first, _), (second, _) = await bench.front(), await bench.front()
        opened = []
        for link in (first, second):
            remote = RemoteModelOpener(bench.settings, link, bench.metrics)
            opened.append(await asyncio.to_thread(remote.open_version, source))
        assert bench.source.loads == 1
        (model, one), (_, other) = cast(list[OpenedText], opened)
        one.close()
        await asyncio.sleep(0.05)
        await rows(other.submit(texts(cast(RemoteModel, model), "a")))
        found = bench.server.find("tuned:abc")
        assert found is not None
        local = cast(Engine[Tokens], found[1])
        other.close()
        await until(lambda: bench.server.find("tuned:abc") is None)
        await until(lambda: not any(runner._thread.is_alive() for runner in local._runners))

    run(test, FakeModel())


def test_a_version_of_a_front_that_dies_is_unloaded(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.source.versions["v1"] = FakeModel("tuned", version="abc")
        link, _ = await bench.front()
        remote = RemoteModelOpener(bench.settings, link, bench.metrics)
        await asyncio.to_thread(remote.open_version, ModelSource("tuned", tmp_path / "v1", "trained", "abc"))
        assert bench.server.find("tuned:abc") is not None
        next(iter(bench.server._fronts)).abort()
        await until(lambda: bench.server.find("tuned:abc") is None)

    run(test, FakeModel())


def test_fine_tuned_models_follow_the_registry_in_each_front_and_in_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeModel()
    open_fake_encoders(monkeypatch)
    registry = Registry(tmp_path / "models")
    head, tuned = "ft:fake:team:head", "ft:fake:team:tuned"
    train(registry, tmp_path, fake, name=head)
    own_encoder(registry, tmp_path, seed=1, name=tuned)

    async def test(bench: Bench) -> None:
        bench.source.open_version = LocalModelOpener(bench.settings, bench.source.engines).open_version  # type: ignore[method-assign]
        managers = []
        for _ in range(2):
            link = bench.link()
            await bench.connect(link)
            source = RemoteModelOpener(bench.settings, link, bench.metrics)
            managers.append(ModelManager(bench.settings, Metrics(), opener=source))
            await asyncio.to_thread(managers[-1].open)
        try:
            for version in (1, 2):
                for name in (head, tuned):
                    registry.promote(name, version, by="a test", why="promoted")
                for manager in managers:
                    await asyncio.to_thread(manager.watcher.sync)
                    served = [manager.find(name) for name in (head, tuned)]
                    assert [one.label for one in served] == [f"{head}:v{version}", f"{tuned}:v{version}"]
                    assert isinstance(served[0], FineTunedModel)
                    output = await served[0].rows(["hello"], Caller(), "classification")
                    assert served[0].logits(output.values, output.tokens).argmax() == 0
                    assert served[0].metadata.labels[0] == f"v{version}"
                    del served
                if version == 1:
                    held = managers[1].find(tuned)  # a request of the second front
                    first = set(bench.server._models) - {"fake:0"}
                    await asyncio.to_thread(train, registry, tmp_path, fake, name=head)
                    await asyncio.to_thread(lambda: own_encoder(registry, tmp_path, seed=2, name=tuned))
            assert len(first) == 1
            assert first < set(bench.server._models)
            await rows(held.engine.submit(fake.text.encode(["still computed"])))
            del held
            gc.collect()
            await asyncio.to_thread(managers[1].watcher.sync)
            await until(lambda: not first & set(bench.server._models))
        finally:
            for manager in managers:
                await asyncio.to_thread(manager.close)

    run(test, fake, home=tmp_path, registry_poll_s=3600)


def test_a_version_that_cannot_be_loaded_is_refused_as_it_is_here(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        link, _ = await bench.front()
        remote = RemoteModelOpener(bench.settings, link, bench.metrics)
        with pytest.raises(ModelSourceError, match="nothing in v9"):
            await asyncio.to_thread(remote.open_version, ModelSource("tuned", tmp_path / "v9", "", "x"))

    run(test, FakeModel())


@pytest.mark.parametrize("connected", [False, True])
def test_a_wait_for_a_model_ends_when_the_service_does(connected: bool) -> None:
    async def test(bench: Bench) -> None:
        link = bench.link()
        ours, theirs = socket.socketpair()
        with theirs:  # an engine that does not answer
            if connected:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: link, ours)
            waiting = asyncio.create_task(
                asyncio.to_thread(
                    lambda: list(RemoteModelOpener(bench.settings, link, bench.metrics).open_configured())
                )
            )
            await asyncio.sleep(0.05)
            link.close()
            with pytest.raises(Unavailable, match="shutting down"):
                await waiting
        ours.close()

    run(test, FakeModel())
