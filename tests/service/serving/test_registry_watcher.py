"""Promotions while requests run: seen soon, without a failed request; a broken version leaves the old one serving."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from models.linalg import normalize
from models.registry.registry import Registry
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.errors import ModelNotFound, Unservable
from service.metrics import Metrics
from service.serving.fine_tuned import LiveVersion
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller
from tests.fakes.model import FakeModel
from tests.support.app import open_manager, text_model
from tests.support.artifacts import NAME
from tests.support.server import wait_until
from tests.support.size import Size
from tests.support.trained_models import open_fake_encoders, own_encoder, train

OTHER = "ft:fake:team:other"
BY: dict[str, Any] = {"by": "test", "why": ""}


@dataclass
class Serving:
    """A model manager over one fake encoder, and the registry that it watches."""

    manager: ModelManager
    registry: Registry
    metrics: Metrics
    base: FakeModel
    where: Path
    app: FastAPI

    def train(self, **changes: Any) -> int:
        return train(self.registry, self.where, self.base, **changes)

    def promote(self, version: int, name: str = NAME) -> None:
        self.registry.promote(name, version, **BY)

    def label(self, asked: str = NAME) -> str:
        return self.manager.find(asked).label

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def make_one(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    managers: list[ModelManager] = []

    def make(**settings: Any) -> Serving:
        chosen = Settings.read({"home": tmp_path / "home", "device": "cpu", **settings})
        metrics, base = Metrics(), FakeModel("fake")
        manager = open_manager(chosen, metrics, base)
        managers.append(manager)
        # As another process would: a registry of its own on the same directory.
        registry = Registry(chosen.registry_directory)
        return Serving(
            manager, registry, metrics, base, tmp_path, create_app(chosen, manager, Keyring(chosen.keys_file), metrics)
        )

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def serving(make_one: Callable[..., Serving]) -> Serving:
    """The watcher's thread does not run: tests call `sync`."""
    return make_one()


def engines(name: str = NAME) -> int:
    """How many versions of a trained encoder are computed with: each has one first runner."""
    return sum(thread.name == f"engine-{name}-0" for thread in threading.enumerate())


def count_loads(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions that are loaded from now on."""
    loads: list[int] = []
    load = serving.manager.watcher._load

    def counted(name: str, version: int) -> LiveVersion:
        loads.append(version)
        return load(name, version)

    monkeypatch.setattr(serving.manager.watcher, "_load", counted)
    return loads


# --- following the registry
# -------------------------------------------------------------------------------------------------


def test_what_was_promoted_is_served_and_what_was_rolled_back_is_again(serving: Serving) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    assert (serving.label(), serving.metric("sonde_model_generation", model=NAME)) == (f"{NAME}:v1", 1)
    serving.promote(serving.train())
    assert serving.label() == f"{NAME}:v1", "until it is looked at"
    serving.manager.watcher.sync()
    assert (serving.label(), serving.metric("sonde_model_generation", model=NAME)) == (f"{NAME}:v2", 2)
    serving.registry.rollback(NAME, **BY)
    serving.manager.watcher.sync()
    assert (serving.label(), serving.metric("sonde_model_generation", model=NAME)) == (f"{NAME}:v1", 3)
    assert serving.metric("sonde_reload_failures_total", model=NAME) is None


def test_what_was_withdrawn_is_served_no_more(serving: Serving) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    serving.registry.withdraw(NAME, **BY)
    serving.manager.watcher.sync()
    with pytest.raises(ModelNotFound, match="has no version in service"):
        serving.manager.find(NAME)
    assert serving.metric("sonde_model_generation", model=NAME) is None
    serving.registry.delete_all(NAME)
    serving.manager.watcher.sync()
    with pytest.raises(ModelNotFound, match=f"no model '{NAME}' here; there is: fake$"):
        serving.manager.find(NAME)


def test_nothing_is_loaded_while_the_registry_stays_as_it_is(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count_loads(serving, monkeypatch)
    serving.promote(serving.train())
    for _ in range(5):
        serving.manager.watcher.sync()
    serving.train()
    serving.registry.set_alias("prod", NAME)
    serving.manager.watcher.sync()
    assert loads == [1]


def test_back_and_forth_between_two_looks_loads_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (serving.train(), serving.train()):
        serving.promote(version)
    serving.manager.watcher.sync()
    serving.promote(1)
    serving.promote(2)
    monkeypatch.setattr(
        serving.manager.watcher, "_load", lambda name, version: pytest.fail("there was nothing to load")
    )
    serving.manager.watcher.sync()
    assert (serving.label(), serving.metric("sonde_model_generation", model=NAME)) == (f"{NAME}:v2", 4)


@pytest.mark.slow
@pytest.mark.parametrize("poll_s", [1.0, 0.05])
def test_a_promotion_by_another_process_is_seen_within_two_seconds(
    make_one: Callable[..., Serving], poll_s: float
) -> None:
    serving = make_one(registry_poll_s=poll_s)
    serving.promote(serving.train())
    serving.manager.watcher.open()
    assert serving.label() == f"{NAME}:v1", "what is in service is there from the start"
    serving.promote(serving.train())
    began = time.monotonic()
    wait_until(lambda: serving.label() == f"{NAME}:v2", 2.0)
    assert time.monotonic() - began < poll_s + 1.0


def test_after_a_poke_it_is_seen_at_once(make_one: Callable[..., Serving]) -> None:
    serving = make_one(registry_poll_s=3600)
    serving.manager.watcher.open()
    serving.promote(serving.train())
    serving.manager.watcher.poke()
    wait_until(lambda: serving.manager.watcher.find(NAME) is not None)


# --- when something is wrong
# ------------------------------------------------------------------------------------------------


def spoil(serving: Serving, version: int) -> None:
    (serving.registry.path(NAME, version) / "report.md").write_text("changed")


def test_a_corrupt_version_leaves_the_old_one_serving(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    serving.promote(serving.train())
    spoil(serving, 2)
    with caplog.at_level(logging.ERROR):
        serving.manager.watcher.sync()
    assert serving.label() == f"{NAME}:v1"
    assert serving.metric("sonde_reload_failures_total", model=NAME) == 1
    assert serving.metric("sonde_model_generation", model=NAME) == 1, "what serves, not what ought to"
    assert "2/report.md has SHA-256" in caplog.text
    assert f"{NAME}:v2, generation 2" in caplog.text


def test_a_corrupt_first_version_says_why_it_does_not_serve(serving: Serving) -> None:
    serving.promote(serving.train())
    spoil(serving, 1)
    serving.manager.watcher.sync()
    with pytest.raises(Unservable, match=f"{NAME} cannot be served: 1/report.md has SHA-256") as caught:
        serving.manager.find(NAME)
    assert caught.value.retry_after_s == 30


def test_one_broken_model_holds_up_no_other(serving: Serving) -> None:
    serving.promote(serving.train())
    serving.promote(serving.train(name=OTHER), OTHER)
    spoil(serving, 1)
    serving.manager.watcher.sync()
    assert serving.label(OTHER) == f"{OTHER}:v1"
    assert serving.metric("sonde_reload_failures_total", model=OTHER) is None


def test_what_failed_is_tried_again_later_and_at_once_when_promoted_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    for clocked in (serving.manager.watcher, serving.manager.watcher._failures):
        monkeypatch.setattr(clocked, "_clock", lambda: now[0])
    serving.promote(serving.train())
    spoil(serving, 1)
    for _ in range(3):
        serving.manager.watcher.sync()
        serving.registry.set_alias("x", NAME)  # something else changes
    assert serving.metric("sonde_reload_failures_total", model=NAME) == 1
    now[0] += 31
    serving.manager.watcher.sync()
    assert serving.metric("sonde_reload_failures_total", model=NAME) == 2
    (serving.registry.path(NAME, 1) / "report.md").write_text("# report")
    now[0] += 31
    serving.manager.watcher.sync()
    assert serving.label() == f"{NAME}:v1"


def test_an_error_that_nobody_foresaw_is_logged_and_not_told(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def burst(name: str, version: int) -> LiveVersion:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(serving.manager.watcher, "_load", burst)
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    with pytest.raises(Unservable) as caught:
        serving.manager.find(NAME)
    assert "secret" not in caught.value.message
    assert "/secret/path" in caplog.text


def test_a_registry_that_cannot_be_read_leaves_everything_as_it_is(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()

    def fail() -> object:
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(serving.manager.registry, "stamp", fail)
        serving.manager.watcher.sync()
    assert serving.label() == f"{NAME}:v1"
    assert serving.metric("sonde_reload_failures_total", model="registry") == 1
    (serving.registry._root / "ft--fake--team--intents" / "current.json").write_text("{")
    serving.manager.watcher.sync()
    assert serving.label() == f"{NAME}:v1"
    assert serving.metric("sonde_reload_failures_total", model=NAME) == 1


# --- names
# ------------------------------------------------------------------------------------------------------------------


def test_a_version_can_be_asked_for_and_is_loaded_on_demand(serving: Serving) -> None:
    async def check() -> None:
        for version in (serving.train(), serving.train()):
            serving.promote(version)
        serving.manager.watcher.sync()
        assert (await serving.manager.resolve(f"{NAME}:v2")) is serving.manager.find(NAME)
        old = await serving.manager.resolve(f"{NAME}:v1")
        assert old.label == f"{NAME}:v1"
        assert (await serving.manager.resolve(f"{NAME}:v1")) is old
        with pytest.raises(ModelNotFound, match=r"has no version 3; there is: v1, v2"):
            await serving.manager.resolve(f"{NAME}:v3")
        serving.promote(1)
        serving.manager.watcher.sync()
        assert serving.manager.find(NAME) is old, "what is loaded already is not loaded again"

    asyncio.run(check())


def test_two_versions_are_kept_beside_the_current_one(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        for _ in range(4):
            serving.train()
        serving.promote(4)
        serving.manager.watcher.sync()
        loads = count_loads(serving, monkeypatch)
        for version in (1, 2, 1, 3, 1, 4, 2):
            assert (await serving.manager.resolve(f"{NAME}:v{version}")).label == f"{NAME}:v{version}"
        assert loads == [1, 2, 3, 2], "the one used longest ago goes first"

    asyncio.run(check())


def test_many_who_ask_for_a_version_at_once_load_it_once(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        serving.train()
        loads = count_loads(serving, monkeypatch)
        found = await asyncio.gather(*(serving.manager.resolve(f"{NAME}:v1") for _ in range(20)))
        assert len({id(one) for one in found}) == 1
        assert loads == [1]

    asyncio.run(check())


def test_a_version_that_cannot_be_loaded_says_why_and_is_not_tried_again_at_once(serving: Serving) -> None:
    async def check() -> None:
        serving.train()
        spoil(serving, 1)
        for _ in range(3):
            with pytest.raises(Unservable, match=f"{NAME}:v1 cannot be served: 1/report.md has SHA-256"):
                await serving.manager.resolve(f"{NAME}:v1")

    asyncio.run(check())
    assert serving.metric("sonde_reload_failures_total", model=NAME) == 1


def test_a_deleted_version_is_forgotten(serving: Serving) -> None:
    async def check() -> None:
        serving.train()
        await serving.manager.resolve(f"{NAME}:v1")
        serving.registry.delete(NAME, 1)
        serving.manager.watcher.sync()
        with pytest.raises(ModelNotFound, match="has no version 1; there is: none"):
            await serving.manager.resolve(f"{NAME}:v1")

    asyncio.run(check())


def test_aliases_lead_to_models_and_versions(serving: Serving) -> None:
    async def check() -> None:
        for _ in range(2):
            serving.train()
        serving.promote(2)
        serving.registry.set_alias("prod", NAME)
        serving.registry.set_alias("old", f"{NAME}:v1")
        serving.manager.watcher.sync()
        assert [(await serving.manager.resolve(alias)).label for alias in ("prod", "old")] == [
            f"{NAME}:v2",
            f"{NAME}:v1",
        ]
        serving.registry.remove_alias("prod")
        serving.manager.watcher.sync()
        with pytest.raises(ModelNotFound, match="no model 'prod' here"):
            await serving.manager.resolve("prod")

    asyncio.run(check())


@pytest.mark.parametrize(
    "name", ["ft:fake:team:nothing", "ft:fake:team", "ft:..:team:intents", "ft:fake:team:intents:1", "ft:0"]
)
def test_an_unknown_name_says_what_there_is(serving: Serving, name: str) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    with pytest.raises(ModelNotFound, match=f"there is: fake, {NAME}$"):
        serving.manager.find(name)
    with pytest.raises(ModelNotFound, match=f"there is: fake, {NAME}$"):
        asyncio.run(serving.manager.resolve(name))


def test_without_a_name_a_model_of_the_settings_comes_first(serving: Serving) -> None:
    serving.promote(serving.train())
    serving.manager.watcher.sync()
    assert [one.label for one in serving.manager.all()] == ["fake:0", f"{NAME}:v1"]
    assert serving.manager.find(None).label == "fake:0"
    assert serving.manager.find_for("classification", None).label == f"{NAME}:v1", "nobody else does"


def test_open_loads_what_is_in_service_before_requests_are_taken(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.loader.open_models", lambda *how: iter(()))
    serving.promote(serving.train())
    serving.manager.opened = False
    serving.manager.open()
    assert serving.label() == f"{NAME}:v1"
    assert serving.metric("sonde_ready") == 1


def test_an_alias_that_a_model_of_the_settings_hides_is_logged(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("models.loader.open_models", lambda *how: iter(()))
    serving.promote(serving.train())
    serving.registry.set_alias("prod", NAME)
    serving.registry.set_alias("fake", NAME)  # by a service that served no model called so
    serving.manager.open()
    assert serving.label("fake") == "fake:0"
    assert [record.message for record in caplog.records if "alias" in record.message] == [
        f"alias 'fake' of {NAME} is ignored here: a model of the settings has this name"
    ]


# --- encoders of their own
# --------------------------------------------------------------------------------------------------


def expected(seed: int, text: str) -> Any:
    model = FakeModel(seed=seed)
    return normalize(model.forward(model.text.encode([text])))[0]


@pytest.mark.slow
def test_an_old_encoder_is_unloaded_when_its_last_request_is_done(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_fake_encoders(monkeypatch)
    versions = [own_encoder(serving.registry, serving.where, seed=seed) for seed in (1, 2)]
    serving.promote(versions[0])
    serving.manager.watcher.sync()
    held = [text_model(serving.manager, NAME)]  # as a request does that is about to compute
    serving.promote(versions[1])
    serving.manager.watcher.sync()
    assert serving.label() == f"{NAME}:v2"
    for _ in range(3):
        serving.manager.watcher.sync()
    assert engines() == 2, "a request still holds the old one"
    rows = asyncio.run(held[0].rows(["hello"], Caller(), "embedding"))
    assert rows.values[0] == pytest.approx(expected(1, "hello"), abs=1e-6)
    held.clear()
    gc.collect()
    serving.manager.watcher.sync()
    assert engines() == 1
    serving.manager.close()
    assert engines() == 0


def test_versions_share_a_cache_but_no_rows(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    open_fake_encoders(monkeypatch)
    for seed in (1, 2):
        serving.promote(own_encoder(serving.registry, serving.where, seed=seed))
        serving.manager.watcher.sync()
        for _ in range(2):
            rows = asyncio.run(text_model(serving.manager, NAME).rows(["hello"], Caller(), "embedding"))
            assert rows.values[0] == pytest.approx(expected(seed, "hello"), abs=1e-6)


def test_the_engines_of_failed_loads_are_ended(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.promote(own_encoder(serving.registry, serving.where, seed=1))
    monkeypatch.setattr(
        "models.loader.load", lambda source, placement: FakeModel(source.name, version=source.version, seed=9)
    )
    serving.manager.watcher.sync()
    with pytest.raises(Unservable, match="golden inputs: differs"):
        serving.manager.find(NAME)
    assert engines() == 0


# --- under load
# -------------------------------------------------------------------------------------------------------------

Ask = Callable[[httpx.AsyncClient, int], Awaitable[tuple[str, bool]]]


async def classify(client: httpx.AsyncClient, number: int) -> tuple[str, bool]:
    """Ask for a class; the label must be the one that only the version of the header gives."""
    texts = [f"my card is lost w{number % 500}", "hello w{number % 7}"]
    answer = await client.post("/v1/classify", json={"model": NAME, "input": texts})
    assert answer.status_code == 200, answer.text
    label = answer.headers["x-sonde-model"]
    return label, {item["label"] for item in answer.json()["data"]} == {label.rpartition(":")[2]}


SEEDS = 6


async def embed(client: httpx.AsyncClient, number: int) -> tuple[str, bool]:
    """Ask for vectors; they must be those of the version of the header, which is made with its number as seed."""
    texts = [f"my card is lost w{number % 500}", f"hello w{number % 7}"]
    answer = await client.post("/v1/embeddings", json={"model": NAME, "input": texts})
    assert answer.status_code == 200, answer.text
    label = answer.headers["x-sonde-model"]
    seed = int(label.rpartition(":v")[2])
    got = np.array([item["embedding"] for item in answer.json()["data"]])
    return label, bool(np.allclose(got, [expected(seed, text) for text in texts], atol=1e-5))


@asynccontextmanager
async def load(
    app: FastAPI, ask: Ask, workers: int
) -> AsyncIterator[tuple[list[tuple[str, bool]], list[BaseException]]]:
    """Run workers that ask until the block ends; yield their answers and failures."""
    answers: list[tuple[str, bool]] = []
    failed: list[BaseException] = []
    stop = False

    async def work(client: httpx.AsyncClient, worker: int) -> None:
        number = worker
        while not stop:
            number += workers
            try:
                answers.append(await ask(client, number))
            except BaseException as error:  # to be shown by the test
                failed.append(error)
                raise

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        tasks = [asyncio.create_task(work(client, worker)) for worker in range(workers)]
        try:
            yield answers, failed
        finally:
            stop = True
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["heads", "encoders"])
def test_promotions_under_load_fail_no_request_and_mix_no_versions(
    make_one: Callable[..., Serving], monkeypatch: pytest.MonkeyPatch, kind: str, size: Size
) -> None:
    open_fake_encoders(monkeypatch)
    promotions = size.of(8, 50)
    serving = make_one(registry_poll_s=0.02)
    for seed in range(1, SEEDS + 1):
        serving.train() if kind == "heads" else own_encoder(serving.registry, serving.where, seed=seed)
    serving.promote(1)
    serving.manager.watcher.open()

    async def check() -> tuple[list[tuple[str, bool]], list[BaseException]]:
        async with load(serving.app, classify if kind == "heads" else embed, workers=8) as (answers, failed):
            for number in range(promotions):
                version = 1 + (number + 1) % SEEDS
                await asyncio.to_thread(serving.promote, version)
                began = time.monotonic()
                seen = len(answers)
                while all(label != f"{NAME}:v{version}" for label, _ in answers[seen:]):
                    assert time.monotonic() - began < 2.0, f"promotion {number} was not seen"
                    assert not failed
                    await asyncio.sleep(0.005)
        return answers, failed

    answers, failed = asyncio.run(check())
    assert failed == []
    assert all(right for _, right in answers)
    assert len({label for label, _ in answers}) == SEEDS
    assert len(answers) > 50
    assert serving.metric("sonde_model_generation", model=NAME) == promotions + 1
    assert serving.metric("sonde_reload_failures_total", model=NAME) is None
    gc.collect()
    serving.manager.watcher.poke()
    wait_until(lambda: engines() == (0 if kind == "heads" else 1))


@pytest.mark.slow
@pytest.mark.real
def test_a_real_head_on_minilm_is_swapped_while_it_serves(tmp_path: Path) -> None:
    from models.loader import load as load_model
    from models.runtime.placement import place
    from models.source import locate

    settings = Settings.read({"home": tmp_path / "home", "device": "cpu", "registry_poll_s": 0.05})
    metrics = Metrics()
    manager = ModelManager(settings, metrics)
    model = load_model(locate("all-MiniLM-L6-v2"), place("cpu"))
    manager.add(model)
    name = "ft:all-MiniLM-L6-v2:local:intents"
    registry = Registry(settings.registry_directory)
    try:
        for _ in range(2):
            train(registry, tmp_path, model, name=name, detector=True)
        registry.promote(name, 1, **BY)
        manager.watcher.open()
        manager.opened = True
        app = create_app(settings, manager, Keyring(settings.keys_file), metrics)

        async def ask(client: httpx.AsyncClient, number: int) -> tuple[str, bool]:
            body = {"model": name, "input": ["please help, my card is lost w3", f"text number {number}"]}
            answer = await client.post("/v1/classify", json=body)
            assert answer.status_code == 200, answer.text
            label = answer.headers["x-sonde-model"]
            data = answer.json()["data"]
            return label, {item["label"] for item in data} == {label.rpartition(":")[2]} and data[0][
                "p_value"
            ] is not None

        async def check() -> list[tuple[str, bool]]:
            async with load(app, ask, workers=2) as (answers, failed):
                for version in (2, 1, 2):
                    await asyncio.to_thread(registry.promote, name, version, **BY)
                    async with asyncio.timeout(30):
                        while not answers or answers[-1][0] != f"{name}:v{version}":
                            assert not failed
                            await asyncio.sleep(0.005)
            return answers

        answers = asyncio.run(check())
        assert all(right for _, right in answers)
    finally:
        manager.close()
