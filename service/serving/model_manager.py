"""The models in service: loaded, warmed up, found by name, be they named by the settings or trained and registered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from models.base import ModelMetadata, Task
from models.registry.artifact import Manifest
from models.registry.registry import Registry
from models.runtime import cpu
from models.source import ModelSource, parse_spec
from models.text.base import TextModel
from models.text.tokenization import Tokens
from service.config import Settings
from service.engine.admission import Admission
from service.engine.cache import LruCache, RowCache, Sized
from service.engine.device import ComputeDevice
from service.engine.engine import Engine
from service.engine.runner import Backend
from service.engine.scheduler import BatchLimits
from service.errors import ConfigError, ModelNotFound, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving.fine_tuned import Loader, sensor_card
from service.serving.registry_watcher import RegistryWatcher
from service.serving.sensor_model import ReadingsBackend, ReadingsItem, SensorModel, ServedSensor
from service.serving.servable import Servable
from service.serving.text_model import ServedText

log = logging.getLogger(__name__)

_ENDING = "the service is shutting down"
# What jobs call the base of models of numbers, which is no model.
SENSORS = "sensors"
_CPU_BATCH_TOKENS = 512
_GPU_BATCH_TOKENS = 16_384
# More than so many runners are taken only where they are asked for.
_MOST_RUNNERS = 4
_WARM_UP_BATCHES = ((1, 8), (8, 16), (4, 128))


class ModelManager:
    """Opens models and hands them out by name.

    `opened` is set once all models are loaded and warm; `problem` says why requests are not taken. Requests are
    counted over all models together, since they share the machine. Models that were trained come from the registry
    and change while it serves; a request resolves its model once and finishes on what it got.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, *, on_failure: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._on_failure = on_failure
        self._served: dict[str, ServedText] = {}
        self._admission = Admission(settings.max_queued_items, settings.max_queued_tokens, metrics)
        self._cache = RowCache(settings.cache_mb * 2**20)
        metrics.cache_bytes.set_function(lambda: self._cache.bytes)
        self._fitted: LruCache[str, Sized] = LruCache(settings.cache_mb * 2**20)
        self._devices: dict[str, ComputeDevice] = {}
        threads = settings.tokenizer_threads or min(cpu.count_cores(), 4)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        self.registry = Registry(settings.registry_directory)
        loader = Loader(self.registry, self._base, self._open_encoder, self._open_sensor, self._resources())
        self.watcher = RegistryWatcher(self.registry, loader.load, metrics, poll_s=settings.registry_poll_s)
        self.opened = False
        self.draining = False

    def open(self) -> None:
        """Load every model of the settings, then those in service in the registry, and keep watching that.

        Blocks; meant for a thread. Raises ConfigError, before it loads anything, when two are called the same, and
        ModelError when a model of the settings cannot be loaded; a trained one that cannot is reported and holds
        nobody up.
        """
        from models.loader import open_models

        names = [parse_spec(spec)[0] for spec in self._settings.model]
        for number, name in enumerate(names):
            _refuse_name(name, names[:number])
        for model in open_models(
            self._settings.model, self._settings.device, self._settings.dtype, self._settings.threads
        ):
            self.add(model)
        self.watcher.open()
        for alias in set(self.watcher.aliases) & set(self._served):
            log.warning(
                "alias %r, of %s, is not followed here: a model of the settings is called so",
                alias,
                self.watcher.aliases[alias],
            )
        self.opened = True

    def add(self, model: TextModel) -> ServedText:
        """Warm a model up and put it in service."""
        card = model.card
        _refuse_name(card.name, self._served)
        served = ServedText(model, self._engine(model), **self._resources())
        self._served[card.name] = served
        self._metrics.model_info.labels(card.name, card.version, card.task, card.device, card.dtype).set(1)
        self._metrics.device_memory.labels(card.device).set_function(model.memory_bytes)
        log.info(
            "model in service",
            extra={
                "model": served.label,
                "device": card.device,
                "dtype": card.dtype,
                "reason": card.reason,
                "forward": card.forward,
            },
        )
        return served

    def find(self, name: str | None) -> Servable:
        """The model called `name` or `name:version`, or that `name` is an alias of; without a name, the first one.

        Raises ModelNotFound naming what there is. A version of a trained model that has to be loaded first is not
        found here; `resolve` loads it.
        """
        self.require_ready()
        if name is None:
            return next(iter(self._served.values()))
        found = self._base(name) or self.watcher.find(name)
        if found is None:
            raise ModelNotFound(
                f"no model {name!r} here; there is: {', '.join(one.card.name for one in self.all())}", param="model"
            )
        return found

    async def resolve(self, name: str | None) -> Servable:
        """As `find`; a version of a trained model that is not the current one is loaded. Also raises Unservable."""
        self.require_ready()
        if name is None:
            return self.find(None)
        if found := self._base(name) or self.watcher.find(name):
            return found
        version = self.watcher.version_of(name)
        if version is None:
            return self.find(name)
        return await asyncio.get_running_loop().run_in_executor(self._loading, self.watcher.fetch, *version)

    async def resolve_for(self, task: Task, name: str | None) -> ServedText:
        """As `find_for`, with `resolve`."""
        return self.find_for(task, None) if name is None else self.require_task(await self.resolve(name), task)

    async def resolve_texts(self, name: str | None) -> ServedText:
        """As `resolve`; WrongTask for a model of numbers."""
        served = await self.resolve(name)
        if not isinstance(served, ServedText):
            raise WrongTask(
                f"{served.card.name} reads numbers, not texts; GET /v1/models/{served.card.name} has its signature",
                param="model",
            )
        return served

    def find_for(self, task: Task, name: str | None) -> ServedText:
        """The model called `name`, which must do `task`; without a name, the first one that does."""
        if name is None:
            self.require_ready()
            able = sorted(
                (one for one in self._with_texts() if _does(one, task)), key=lambda one: one.card.task != task
            )
            if not able:
                raise WrongTask(f"no model here does {task}; start one with --model", param="model")
            return able[0]
        return self.require_task(self.find(name), task)

    def require_task(self, served: Servable, task: Task) -> ServedText:
        """The same model. Raises WrongTask, naming the models that do `task` with texts, unless it is one of them."""
        if not isinstance(served, ServedText) or not _does(served, task):
            able = ", ".join(other.card.name for other in self._with_texts() if _does(other, task)) or "none here"
            does = served.card.task if isinstance(served, ServedText) else f"{served.card.task} with numbers"
            raise WrongTask(f"{served.card.name} does {does}, not {task}; models that do: {able}", param="model")
        return served

    def require_readings(self, served: Servable, task: Task) -> ServedSensor:
        """The same model. Raises WrongTask, naming the models that do `task` with numbers, unless it is one of them."""
        if not isinstance(served, ServedSensor) or served.card.task != task:
            able = (
                ", ".join(
                    one.card.name for one in self.all() if isinstance(one, ServedSensor) and one.card.task == task
                )
                or "none here"
            )
            reads = "numbers" if isinstance(served, ServedSensor) else "texts"
            raise WrongTask(
                f"{served.card.name} does {served.card.task} with {reads}; models for {task} of numbers: {able}",
                param="model",
            )
        return served

    def _with_texts(self) -> Iterable[ServedText]:
        return [one for one in self.all() if isinstance(one, ServedText)]

    def all(self) -> Iterable[Servable]:
        """Every model in service: those of the settings first, then the trained ones."""
        return [*self._served.values(), *self.watcher.current.values()]

    @property
    def problem(self) -> str | None:
        """Why requests are not taken now; None when they are."""
        if self.draining:
            return _ENDING
        return self._broken

    @property
    def _broken(self) -> str | None:
        if not self.opened:
            return "models are loading"
        if any(served.engine.failure for served in self.all()):
            return "a device is lost; the service restarts"
        return None

    def admit(self) -> None:
        """Raise Unavailable for a request that comes after the end has begun; those that came before are answered."""
        self._refuse_for(_ENDING if self.draining else None)

    def require_ready(self) -> None:
        """Raise Unavailable while no model can answer."""
        self._refuse_for(self._broken)

    def _refuse_for(self, problem: str | None) -> None:
        if problem:
            self._metrics.shed.labels("not_ready").inc()
            raise Unavailable(problem, retry_after_s=2)

    def stop(self) -> None:
        """Stop all engines after their batch in hand; whoever still waits is told that the service shuts down."""
        for served in self._served.values():
            served.engine.close()

    def close(self) -> None:
        """Stop, and let go of the threads."""
        self.watcher.close()
        self._loading.shutdown(wait=False, cancel_futures=True)
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _base(self, name: str) -> ServedText | None:
        """The model of the settings called `name` or `name:version`."""
        bare, _, version = name.partition(":")
        found = (
            self._served.get(name)
            or self._served.get(bare)
            or self._served.get(bare.removeprefix("sentence-transformers/"))
        )
        return (
            None
            if found is not None and version and name not in self._served and version != found.card.version
            else found
        )

    def _open_encoder(self, source: ModelSource) -> tuple[TextModel, Engine[Tokens]]:
        """A trained encoder where the settings want models to be, with an engine of its own."""
        from models.loader import load
        from models.runtime.placement import place

        placement = place(self._settings.device, self._settings.dtype)
        with self._device(str(placement.device)).sharing():
            model = load(source, placement)
        return model, self._engine(model)

    def _open_sensor(self, path: Path, manifest: Manifest) -> tuple[SensorModel, Engine[ReadingsItem[Any]]]:
        """A trained model of numbers that gives what it gave when it was trained, with an engine of its own."""
        from models.sensors.golden import reproduce
        from models.sensors.serialization import load_sensor

        model = load_sensor(path)
        card = sensor_card(model, manifest)
        with self._device(card.device).computing(alone=False):
            reproduce(manifest, model)
        return SensorModel(model, card), self._started(card, ReadingsBackend(), 1, RowCache(0))

    def _engine(self, model: TextModel) -> Engine[Tokens]:
        """A warm model's engine, running."""
        _warm_up(model, self._device(model.card.device), alone=not self.opened)
        return self._started(model.card, model, model.card.width, self._cache)

    def _started(self, card: ModelMetadata, backend: Backend[Any], width: int, cache: RowCache) -> Engine[Any]:
        engine: Engine[Any] = Engine(
            card.name,
            card.version,
            backend,
            width,
            limits=self.limits(card),
            cache=cache,
            metrics=self._metrics,
            device=self._device(card.device),
            on_failure=self._on_failure,
        )
        engine.start()
        return engine

    def _device(self, name: str) -> ComputeDevice:
        """What engines on one device share."""
        if name not in self._devices:
            self._devices[name] = self._cpu() if name.startswith("cpu") else ComputeDevice()
        return self._devices[name]

    def _cpu(self) -> ComputeDevice:
        import torch

        from models.runtime.threads import compute_threads

        threads = torch.get_num_threads()
        runners = self._settings.runners or min(threads, _MOST_RUNNERS)
        return ComputeDevice(runners, threads, compute_threads)

    def _resources(self) -> dict[str, Any]:
        """What all models share."""
        return {
            "admission": self._admission,
            "fitted": self._fitted,
            "pool": self._pool,
            "metrics": self._metrics,
            "max_request_tokens": self._settings.max_request_tokens,
        }

    def limits(self, card: ModelMetadata) -> BatchLimits:
        """How large a model's batches may be."""
        default = _CPU_BATCH_TOKENS if card.device.startswith("cpu") else _GPU_BATCH_TOKENS
        return BatchLimits(self._settings.max_batch_tokens or default, self._settings.max_batch_items, pads=card.pads)


def _refuse_name(name: str, taken: Container[str]) -> None:
    """Raise ConfigError where a model may not be called that: it is what jobs call the base of sensors, or another's
    name.
    """
    if name == SENSORS:
        raise ConfigError(
            f"jobs call the base of models of numbers {SENSORS!r}: take another name, --model NAME=…", param="model"
        )
    if name in taken:
        raise ConfigError(f"two models are called {name!r}: name one of them with --model NAME=…", param="model")


def _does(served: ServedText, task: Task) -> bool:
    """An encoder can rerank, too."""
    return served.card.task == task or (task == "rerank" and served.card.task == "embedding")


def _warm_up(model: TextModel, device: ComputeDevice, *, alone: bool) -> None:
    """Run batches of the common shapes, so that no caller pays for the first allocation or kernel choice."""
    word = model.text.encode(["warm"])[0].ids
    for items, tokens in _WARM_UP_BATCHES:
        length = min(tokens, model.card.max_tokens)
        filler = model.text.from_ids([int(word[len(word) // 2])] * length)
        with device.computing(alone=alone):
            model.forward([filler] * items)
