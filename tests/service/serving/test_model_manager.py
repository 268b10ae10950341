"""The model manager: which model a name means, its errors, and when it is ready."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import DeviceLost, ModelSourceError
from models.metadata import ImageSignature, Task
from models.runtime.autotune_cache import autotune_cache
from models.source import ModelSource
from models.text.tokenization import Tokens
from service.config import Settings
from service.errors import ConfigError, ModelNotFound, Overloaded, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving import engine_factory
from service.serving.engine_factory import EngineFactory
from service.serving.model_manager import ModelManager
from service.serving.model_opener import LocalModelOpener
from service.serving.servable import Caller
from tests.fakes.model import FakeModel
from tests.support.app import open_manager, text_model
from tests.support.server import wait_until

WAIT_S = 5.0
ENCODER, OTHER = FakeModel("encoder"), FakeModel("team/other")
RERANKER = FakeModel("reranker", task="rerank")
CLASSIFIER = FakeModel("classifier", task="classification", labels=("good", "bad"))


@contextmanager
def manager_of(*models: FakeModel, metrics: Metrics | None = None, **settings: object) -> Iterator[ModelManager]:
    """An open manager of fakes."""
    manager = open_manager(Settings.read(settings), metrics or Metrics(), *models)
    try:
        yield manager
    finally:
        manager.close()


@contextmanager
def empty_manager(
    on_failure: Callable[[Exception], None] = lambda error: None, **settings: object
) -> Iterator[ModelManager]:
    """A manager without models."""
    manager = ModelManager(Settings.read(settings), Metrics(), on_failure=on_failure)
    try:
        yield manager
    finally:
        manager.close()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "encoder"),  # the first one
        ("encoder", "encoder"),
        ("team/other", "team/other"),
        ("encoder:0", "encoder"),
        ("team/other:0", "team/other"),
        ("sentence-transformers/encoder", "encoder"),
        ("sentence-transformers/encoder:0", "encoder"),
    ],
)
def test_models_are_found_by_name(name: str | None, found: str) -> None:
    with manager_of(ENCODER, OTHER) as manager:
        assert manager.find(name).metadata.name == found


def test_a_name_that_begins_like_the_prefix_is_found_as_it_is() -> None:
    with manager_of(ENCODER, FakeModel("sentence-transformers/encoder", width=4)) as manager:
        assert manager.find("sentence-transformers/encoder").metadata.width == 4
        assert manager.find("sentence-transformers/encoder:0").metadata.width == 4
        assert manager.find("encoder").metadata.width == 16


@pytest.mark.parametrize(
    "name", ["", "Encoder", "other", "encoder:1", "encoder:0:0", "sentence-transformers/", "elsewhere/encoder"]
)
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    with (
        manager_of(ENCODER, OTHER) as manager,
        pytest.raises(ModelNotFound, match=r"there is: encoder, team/other$") as caught,
    ):
        manager.find(name)
    assert f"no model {name!r} here" in str(caught.value)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("task", "name", "found"),
    [
        ("embedding", None, "encoder"),
        ("classification", None, "classifier"),
        ("rerank", None, "reranker"),  # a cross-encoder before an encoder
        ("rerank", "encoder", "encoder"),  # which can do it too
        ("rerank", "reranker", "reranker"),
        ("classification", "classifier:0", "classifier"),
    ],
)
def test_models_are_found_by_task(task: Task, name: str | None, found: str) -> None:
    with manager_of(ENCODER, CLASSIFIER, RERANKER) as manager:
        assert manager.find_for(task, name).metadata.name == found


def test_an_encoder_reranks_where_there_is_nothing_better() -> None:
    with manager_of(CLASSIFIER, ENCODER, OTHER) as manager:
        assert manager.find_for("rerank", None).metadata.name == "encoder"


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        (
            "embedding",
            "classifier",
            r"^classifier does classification; models that do embedding with texts: encoder, team/other$",
        ),
        ("rerank", "classifier", r"models that do rerank with texts: encoder, team/other$"),
        (
            "classification",
            "encoder",
            r"^encoder does embedding; models that do classification with texts: classifier$",
        ),
    ],
)
def test_the_wrong_task_says_who_does_it(task: Task, name: str, message: str) -> None:
    with manager_of(ENCODER, OTHER, CLASSIFIER) as manager, pytest.raises(WrongTask, match=message) as caught:
        manager.find_for(task, name)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, r"^no model here does classification with texts; start one with --model$"),
        ("encoder", "models that do classification with texts: none here$"),
    ],
)
def test_a_task_that_no_model_does(name: str | None, message: str) -> None:
    with manager_of(ENCODER) as manager, pytest.raises(WrongTask, match=message):
        manager.find_for("classification", name)


def test_two_models_of_one_name_are_refused_and_the_first_goes_on() -> None:
    first, second = FakeModel("twin"), FakeModel("twin")
    with manager_of(first) as manager:
        with pytest.raises(
            ConfigError, match=r"two models are called 'twin': name one of them with --model NAME="
        ) as caught:
            manager.add(second)
        assert [one.label for one in manager.all()] == ["twin:0"]
        assert asyncio.run(text_model(manager, "twin").rows(["hello"], Caller(), "embedding")).values.shape == (1, 16)
    assert caught.value.param == "model"
    assert second.batches == []


def not_ready(manager: ModelManager) -> AbstractContextManager[pytest.ExceptionInfo[Unavailable]]:
    return pytest.raises(Unavailable, match=str(manager.problem))


@pytest.mark.parametrize(
    ("opened", "draining", "problem"),
    [
        (True, False, None),
        (False, False, "models are loading"),
        (True, True, "the service is shutting down"),
        (False, True, "the service is shutting down"),
    ],
)
def test_requests_are_taken_only_while_it_is_ready(opened: bool, draining: bool, problem: str | None) -> None:
    metrics = Metrics()
    with manager_of(ENCODER, metrics=metrics) as manager:
        manager.opened, manager.draining = opened, draining
        assert manager.problem == problem
        if problem is None:
            manager.admit()
            manager.require_ready()
            return
        refusing: list[Callable[[], object]] = [manager.admit] * draining
        if not opened:
            refusing += [
                manager.require_ready,
                lambda: manager.find("encoder"),
                lambda: manager.find_for("embedding", None),
            ]
        for ask in refusing:
            with pytest.raises(Unavailable) as caught:
                ask()
            assert caught.value.retry_after_s == 2
    assert metrics.registry.get_sample_value("sonde_shed_total", {"reason": "not_ready"}) == len(refusing)


def test_whoever_was_inside_when_the_end_began_is_still_served() -> None:
    with manager_of(ENCODER) as manager:
        manager.draining = True
        assert manager.find("encoder").metadata.name == "encoder"


def test_a_lost_device_makes_all_of_it_unready_and_is_told() -> None:
    broken, told, known = threading.Event(), threading.Event(), []

    def lose(batch: Sequence[Tokens]) -> None:
        if broken.is_set():
            raise DeviceLost("gone")

    def on_failure(error: Exception) -> None:
        known.append(error)
        told.set()

    with empty_manager(on_failure) as manager:
        manager.add(FakeModel("good"))
        bad = manager.add(FakeModel("bad", fault=lose))
        manager.opened = True
        manager.require_ready()
        broken.set()
        with pytest.raises(Unavailable, match="device is lost"):
            asyncio.run(bad.rows(["hello"], Caller(), "embedding"))
        assert told.wait(WAIT_S)
        assert manager.problem == "a device is lost; the service restarts"
        with not_ready(manager):
            manager.find("good")
    assert [type(error) for error in known] == [DeviceLost]


@pytest.mark.parametrize(
    ("device", "settings", "tokens", "items"),
    [
        ("cpu", {}, 512, 256),
        ("cuda", {}, 16_384, 256),
        ("cuda:1", {}, 16_384, 256),
        ("mps", {}, 16_384, 256),
        ("cpu", {"max_batch_tokens": 99, "max_batch_items": 7}, 99, 7),
        ("cuda:0", {"max_batch_tokens": 99, "max_batch_items": 7}, 99, 7),
    ],
)
def test_batches_are_as_large_as_the_device_likes_unless_told(
    device: str, settings: dict[str, Any], tokens: int, items: int
) -> None:
    with empty_manager(**settings) as manager:
        limits = manager.engines.limits(replace(FakeModel("fake").metadata, device=device, pads=items == 7))
    assert (limits.max_tokens, limits.max_items, limits.pads) == (tokens, items, items == 7)


@pytest.mark.parametrize(
    ("device", "task", "settings", "tokens"),
    [
        ("cpu", "embedding", {}, 1_024),
        ("cpu", "embedding", {"max_batch_tokens": 99}, 99),
        ("cuda", "embedding", {}, 16_384),
        ("cpu", "ocr", {}, 4_096),
    ],
)
def test_batches_of_images_are_larger_on_a_cpu(device: str, task: Task, settings: dict[str, Any], tokens: int) -> None:
    image = ImageSignature(224, 224, (0.5,) * 3, (0.5,) * 3, 1 / 255)
    with empty_manager(**settings) as manager:
        metadata = replace(FakeModel("fake").metadata, device=device, task=task, image=image)
        assert manager.engines.limits(metadata).max_tokens == tokens


def test_open_loads_the_models_of_the_settings_and_is_then_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("service.serving.model_opener.locate", "located {}".format)

    with empty_manager(model=("a", "b"), device="cpu", dtype="float32", threads=2) as manager:

        def load(sources: Iterable[object], *how: object) -> Iterator[FakeModel]:
            asked.extend([*sources, *how])
            for name in ("a", "b"):
                assert manager.problem == "models are loading"
                yield FakeModel(name)

        monkeypatch.setattr("models.loader.open_models", load)
        manager.open()
        assert manager.problem is None
        assert [one.metadata.name for one in manager.all()] == ["a", "b"]
    assert asked[:-1] == ["located a", "located b", "cpu", "float32", 2]


def test_models_that_a_thread_locates_are_not_located_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    def load(sources: Iterable[object], *_: object) -> Iterator[FakeModel]:
        asked.extend(sources)
        return iter(())

    monkeypatch.setattr("models.loader.open_models", load)
    monkeypatch.setattr(LocalModelOpener, "measure", lambda _: None)
    found = ModelSource("a", tmp_path, "elsewhere", "1")
    settings = Settings(model=("a",))
    source = LocalModelOpener(settings, EngineFactory(settings, Metrics(), lambda _: None), [found])
    assert list(source.open_configured()) == []
    assert asked == [found]


@pytest.mark.parametrize(("specs", "twice"), [(("x/twin", "other", "twin"), "twin"), (("twin=a", "twin=b"), "twin")])
def test_two_of_one_name_are_refused_before_anything_is_loaded(
    specs: tuple[str, ...], twice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.loader.open_models", lambda *_: pytest.fail("loaded"))
    with empty_manager(model=specs) as manager, pytest.raises(ConfigError, match=f"two models are called '{twice}'"):
        manager.open()


def test_a_model_that_cannot_be_loaded_leaves_it_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Iterator[FakeModel]:
        yield FakeModel("a")
        raise ModelSourceError("nothing there")

    monkeypatch.setattr("models.loader.open_models", load)
    with empty_manager() as manager:
        with pytest.raises(ModelSourceError, match="nothing there"):
            manager.open()
        assert manager.problem == "models are loading"


def test_models_are_opened_once_in_a_thread_after_the_machine_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, str]] = []

    def note(what: str) -> None:
        order.append((what, threading.current_thread().name))

    def load(*_: object) -> Iterator[FakeModel]:
        note("load")
        yield FakeModel("a")

    monkeypatch.setattr(LocalModelOpener, "measure", lambda source: note("measure"))
    monkeypatch.setattr("models.loader.open_models", load)
    with empty_manager(model=("a",)) as manager:
        opening = manager.start_opening()
        assert manager.start_opening() is opening
        opening.result(WAIT_S)
        assert manager.problem is None
    here = threading.current_thread().name
    assert order == [("measure", here), ("measure", "open-models"), ("load", "open-models")]


def test_models_are_checked_with_all_threads_once_nothing_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    imports_end, second_check = threading.Event(), threading.Event()

    def load(*arguments: Any) -> Iterator[FakeModel]:
        before = torch.get_num_threads()
        torch.set_num_threads(4)
        for event in (imports_end, second_check):
            with arguments[-1]():
                used.append(torch.get_num_threads())
            event.set()
            assert second_check.wait(WAIT_S)
        torch.set_num_threads(before)  # new threads take the number that was set last
        yield FakeModel("a")

    monkeypatch.setattr(LocalModelOpener, "measure", lambda _: None)
    monkeypatch.setattr("models.loader.open_models", load)
    with empty_manager(model=("a",)) as manager:
        opening = manager.start_opening(alone=False)
        assert imports_end.wait(WAIT_S)
        manager.start_opening()
        second_check.set()
        opening.result(WAIT_S)
    assert used == [3, 4]


def test_whoever_waits_for_the_models_gets_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Iterator[FakeModel]:
        raise ModelSourceError("nothing there")

    monkeypatch.setattr("models.loader.open_models", load)
    with empty_manager() as manager, pytest.raises(ModelSourceError, match="nothing there"):
        manager.start_opening().result(WAIT_S)


def test_results_of_autotuning_are_kept_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept: list[Path | None] = []
    monkeypatch.setattr(autotune_cache, "keep_in", kept.append)
    monkeypatch.setattr("models.loader.open_models", lambda *_: iter([FakeModel("a")]))
    with empty_manager(home=tmp_path, model=("a",)) as manager:
        manager.open()
    assert kept == [tmp_path / "races.json"]


def test_the_metrics_tell_of_a_model_in_service() -> None:
    metrics = Metrics()
    with manager_of(ENCODER, metrics=metrics):
        about = {"model": "encoder", "version": "0", "task": "embedding", "device": "cpu", "dtype": "float32"}
        about["reason"] = ENCODER.metadata.reason
        assert metrics.registry.get_sample_value("sonde_model_info", about) == 1
        assert metrics.registry.get_sample_value("sonde_device_memory_bytes", {"device": "cpu"}) == 0


def test_the_memory_gauge_keeps_no_model_alive() -> None:
    metrics, model = Metrics(), FakeModel()
    factory = EngineFactory(Settings.read({}), metrics, lambda error: None)
    engine, seen = factory.start_rows(model), weakref.ref(model)
    engine.close()
    del model, engine
    wait_until(lambda: (gc.collect(), seen())[1] is None)
    assert metrics.registry.get_sample_value("sonde_device_memory_bytes", {"device": "cpu"}) == 0


@pytest.mark.parametrize(("runners", "passes"), [(1, False), (2, True)])
def test_short_batches_pass_others_where_each_runner_has_a_thread(
    runners: int, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute_short() -> None:
        with device.computing(alone=False, short=True):
            begun.set()

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(engine_factory, "compute_threads", lambda threads, alone: nullcontext())
    settings = Settings.read({"runners": runners})
    device = EngineFactory(settings, Metrics(), lambda error: None).device("cpu")
    begun, short = threading.Event(), threading.Thread(target=compute_short)
    with ExitStack() as others:
        for _ in range(runners):
            others.enter_context(device.computing(alone=False))
        short.start()
        assert begun.wait(WAIT_S if passes else 0.05) == passes
    short.join(WAIT_S)


def test_models_share_the_room_of_the_service() -> None:
    async def ask_both(manager: ModelManager) -> None:
        waiting = asyncio.create_task(text_model(manager, "one").rows(["hello"], Caller(), "embedding"))
        await asyncio.sleep(0)
        try:
            with pytest.raises(Overloaded):
                await text_model(manager, "other").rows(["hello"], Caller(), "embedding")
        finally:
            held.gate.set()
            await waiting

    held = FakeModel("one")
    with manager_of(held, FakeModel("other"), max_queued_items=1) as manager:
        held.gate.clear()
        asyncio.run(ask_both(manager))


def test_models_share_a_cache_but_no_rows() -> None:
    async def ask(manager: ModelManager) -> list[int]:
        return [
            (await text_model(manager, name).rows(["hello"], Caller(), "embedding")).values.shape[1]
            for name in ("small", "large", "small")
        ]

    with manager_of(FakeModel("small", width=4), FakeModel("large", width=8)) as manager:
        assert asyncio.run(ask(manager)) == [4, 8, 4]


def test_a_closed_manager_computes_nothing_more() -> None:
    with manager_of(FakeModel()) as manager:
        served = text_model(manager, "fake")
    with pytest.raises(Unavailable, match="shutting down"):
        asyncio.run(served.rows(["hello"], Caller(), "embedding"))
