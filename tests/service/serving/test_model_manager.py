"""The hub: which model a name means, what it says when there is none, and when it is ready."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from models.base import Task
from models.errors import DeviceLost, ModelSourceError
from models.text.tokenization import Tokens
from service.config import Settings
from service.errors import ConfigError, ModelNotFound, Overloaded, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving.model_manager import Hub
from service.serving.servable import Caller
from tests.conftest import open_hub, text_model
from tests.fakes.model import FakeModel

WAIT_S = 5.0
ENCODER, OTHER = FakeModel("encoder"), FakeModel("team/other")
RERANKER = FakeModel("reranker", task="rerank")
CLASSIFIER = FakeModel("classifier", task="classification", labels=("good", "bad"))


@contextmanager
def hub_of(*models: FakeModel, metrics: Metrics | None = None, **settings: object) -> Iterator[Hub]:
    """An opened hub of fakes, closed in the end."""
    hub = open_hub(Settings.read(settings, {}), metrics or Metrics(), *models)
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def empty_hub(on_failure: Callable[[Exception], None] = lambda error: None, **settings: object) -> Iterator[Hub]:
    """A hub that nothing was loaded into, closed in the end."""
    hub = Hub(Settings.read(settings, {}), Metrics(), on_failure=on_failure)
    try:
        yield hub
    finally:
        hub.close()


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
    with hub_of(ENCODER, OTHER) as hub:
        assert hub.find(name).card.name == found


def test_a_name_that_begins_like_the_prefix_is_found_as_it_is() -> None:
    with hub_of(ENCODER, FakeModel("sentence-transformers/encoder", width=4)) as hub:
        assert hub.find("sentence-transformers/encoder").card.width == 4
        assert hub.find("sentence-transformers/encoder:0").card.width == 4
        assert hub.find("encoder").card.width == 16


@pytest.mark.parametrize("name", ["", "Encoder", "other", "encoder:1", "encoder:0:0", "sentence-transformers/", "elsewhere/encoder"])
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    with hub_of(ENCODER, OTHER) as hub, pytest.raises(ModelNotFound, match=r"there is: encoder, team/other$") as caught:
        hub.find(name)
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
    with hub_of(ENCODER, CLASSIFIER, RERANKER) as hub:
        assert hub.find_for(task, name).card.name == found


def test_an_encoder_reranks_where_there_is_nothing_better() -> None:
    with hub_of(CLASSIFIER, ENCODER, OTHER) as hub:
        assert hub.find_for("rerank", None).card.name == "encoder"


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("embedding", "classifier", r"^classifier does classification, not embedding; models that do: encoder, team/other$"),
        ("rerank", "classifier", r"models that do: encoder, team/other$"),
        ("classification", "encoder", r"^encoder does embedding, not classification; models that do: classifier$"),
    ],
)
def test_the_wrong_task_says_who_does_it(task: Task, name: str, message: str) -> None:
    with hub_of(ENCODER, OTHER, CLASSIFIER) as hub, pytest.raises(WrongTask, match=message) as caught:
        hub.find_for(task, name)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("name", "message"), [(None, r"^no model here does classification; start one with --model$"), ("encoder", "models that do: none here$")]
)
def test_a_task_that_no_model_does(name: str | None, message: str) -> None:
    with hub_of(ENCODER) as hub, pytest.raises(WrongTask, match=message):
        hub.find_for("classification", name)


def test_two_models_of_one_name_are_refused_and_the_first_goes_on() -> None:
    first, second = FakeModel("twin"), FakeModel("twin")
    with hub_of(first) as hub:
        with pytest.raises(ConfigError, match=r"two models are called 'twin': name one of them with --model NAME=") as caught:
            hub.add(second)
        assert [one.label for one in hub.all()] == ["twin:0"]
        assert asyncio.run(text_model(hub, "twin").rows(["hello"], Caller(), "embedding")).values.shape == (1, 16)
    assert caught.value.param == "model"
    assert second.batches == []


def not_ready(hub: Hub) -> AbstractContextManager[pytest.ExceptionInfo[Unavailable]]:
    return pytest.raises(Unavailable, match=str(hub.problem))


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
    with hub_of(ENCODER, metrics=metrics) as hub:
        hub.opened, hub.draining = opened, draining
        assert hub.problem == problem
        if problem is None:
            hub.admit()
            hub.require_ready()
            return
        refusing: list[Callable[[], object]] = [hub.admit] * draining
        if not opened:
            refusing += [hub.require_ready, lambda: hub.find("encoder"), lambda: hub.find_for("embedding", None)]
        for ask in refusing:
            with pytest.raises(Unavailable) as caught:
                ask()
            assert caught.value.retry_after_s == 2
    assert metrics.registry.get_sample_value("sonde_shed_total", {"reason": "not_ready"}) == len(refusing)


def test_whoever_was_inside_when_the_end_began_is_still_served() -> None:
    with hub_of(ENCODER) as hub:
        hub.draining = True
        assert hub.find("encoder").card.name == "encoder"


def test_a_lost_device_makes_all_of_it_unready_and_is_told() -> None:
    broken, told, known = threading.Event(), threading.Event(), []

    def lose(batch: Sequence[Tokens]) -> None:
        if broken.is_set():
            raise DeviceLost("gone")

    def on_failure(error: Exception) -> None:
        known.append(error)
        told.set()

    with empty_hub(on_failure) as hub:
        hub.add(FakeModel("good"))
        bad = hub.add(FakeModel("bad", fault=lose))
        hub.opened = True
        hub.require_ready()
        broken.set()
        with pytest.raises(Unavailable, match="device is lost"):
            asyncio.run(bad.rows(["hello"], Caller(), "embedding"))
        assert told.wait(WAIT_S)
        assert hub.problem == "a device is lost; the service restarts"
        with not_ready(hub):
            hub.find("good")
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
def test_batches_are_as_large_as_the_device_likes_unless_told(device: str, settings: dict[str, Any], tokens: int, items: int) -> None:
    with empty_hub(**settings) as hub:
        limits = hub.limits(replace(FakeModel("fake").card, device=device, pads=items == 7))
    assert (limits.max_tokens, limits.max_items, limits.pads) == (tokens, items, items == 7)


def test_a_model_is_warm_before_it_is_in_service() -> None:
    in_service: list[list[str]] = []

    with empty_hub() as hub:
        hub.add(FakeModel("cold", max_tokens=64, fault=lambda batch: in_service.append([one.label for one in hub.all()])))
        assert in_service == [[], [], []]
        assert [one.label for one in hub.all()] == ["cold:0"]


@pytest.mark.parametrize(("max_tokens", "lengths"), [(64, [10, 18, 64]), (12, [10, 12, 12])])
def test_the_warm_up_runs_common_shapes_within_the_models_length(max_tokens: int, lengths: list[int]) -> None:
    model = FakeModel(max_tokens=max_tokens)
    with hub_of(model):
        shapes = [(len(batch), {item.count for item in batch}) for batch in model.batches]
    assert shapes == [(1, {lengths[0]}), (8, {lengths[1]}), (4, {lengths[2]})]


def test_a_model_that_fails_to_warm_up_is_not_in_service() -> None:
    def fail(batch: Sequence[Tokens]) -> None:
        raise ModelSourceError("broken")

    with empty_hub() as hub:
        with pytest.raises(ModelSourceError, match="broken"):
            hub.add(FakeModel(fault=fail))
        assert list(hub.all()) == []


def test_open_loads_the_models_of_the_settings_and_is_then_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    with empty_hub(model=("a", "b"), device="cpu", dtype="float32", threads=2) as hub:

        def load(*how: object) -> Iterator[FakeModel]:
            asked.extend(how)
            for name in ("a", "b"):
                assert hub.problem == "models are loading"
                yield FakeModel(name)

        monkeypatch.setattr("models.loader.open_models", load)
        hub.open()
        assert hub.problem is None
        assert [one.card.name for one in hub.all()] == ["a", "b"]
    assert asked == [("a", "b"), "cpu", "float32", 2]


@pytest.mark.parametrize(("specs", "twice"), [(("x/twin", "other", "twin"), "twin"), (("twin=a", "twin=b"), "twin")])
def test_two_of_one_name_are_refused_before_anything_is_loaded(specs: tuple[str, ...], twice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.loader.open_models", lambda *_: pytest.fail("loaded"))
    with empty_hub(model=specs) as hub, pytest.raises(ConfigError, match=f"two models are called '{twice}'"):
        hub.open()


def test_a_model_that_cannot_be_loaded_leaves_it_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> Iterator[FakeModel]:
        yield FakeModel("a")
        raise ModelSourceError("nothing there")

    monkeypatch.setattr("models.loader.open_models", load)
    with empty_hub() as hub:
        with pytest.raises(ModelSourceError, match="nothing there"):
            hub.open()
        assert hub.problem == "models are loading"


def test_the_metrics_tell_of_a_model_in_service() -> None:
    metrics = Metrics()
    with hub_of(ENCODER, metrics=metrics):
        about = {"model": "encoder", "version": "0", "task": "embedding", "device": "cpu", "dtype": "float32"}
        assert metrics.registry.get_sample_value("sonde_model_info", about) == 1
        assert metrics.registry.get_sample_value("sonde_device_memory_bytes", {"device": "cpu"}) == 0


def test_models_share_the_room_of_the_service() -> None:
    async def ask_both(hub: Hub) -> None:
        waiting = asyncio.create_task(text_model(hub, "one").rows(["hello"], Caller(), "embedding"))
        await asyncio.sleep(0)
        try:
            with pytest.raises(Overloaded):
                await text_model(hub, "other").rows(["hello"], Caller(), "embedding")
        finally:
            held.gate.set()
            await waiting

    held = FakeModel("one")
    with hub_of(held, FakeModel("other"), max_queued_items=1) as hub:
        held.gate.clear()
        asyncio.run(ask_both(hub))


def test_models_share_a_cache_but_no_rows() -> None:
    async def ask(hub: Hub) -> list[int]:
        return [
            (await text_model(hub, name).rows(["hello"], Caller(), "embedding")).values.shape[1] for name in ("small", "large", "small")
        ]

    with hub_of(FakeModel("small", width=4), FakeModel("large", width=8)) as hub:
        assert asyncio.run(ask(hub)) == [4, 8, 4]


def test_a_closed_hub_computes_nothing_more() -> None:
    with hub_of(FakeModel()) as hub:
        served = text_model(hub, "fake")
    with pytest.raises(Unavailable, match="shutting down"):
        asyncio.run(served.rows(["hello"], Caller(), "embedding"))
