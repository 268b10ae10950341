"""The model manager: opens models, finds them by name or task, and tells readiness."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, cast

from models.images.model import ImageModel
from models.images.reader import ImageLimits
from models.metadata import Task
from models.registry.registry import Registry
from models.runtime import cpu
from models.source import ModelSource, parse_spec
from models.text.model import TextModel
from service.config import Settings
from service.engine.cache import LruCache, Sized
from service.errors import ModelNotFound, Unavailable, WrongTask
from service.metrics import Metrics
from service.serving.engine_factory import EngineFactory
from service.serving.image_kinds import serve_images
from service.serving.image_model import ReadsImages
from service.serving.image_program import serve_program
from service.serving.model_names import require_free_name, require_known
from service.serving.model_opener import LocalModelOpener, ModelOpener, OpenedImages, OpenedProgram
from service.serving.program_model import ServedProgram
from service.serving.registry_watcher import RegistryWatcher
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Admission, Servable, ServingContext
from service.serving.text_model import ServedText
from service.serving.text_recognition import ServedRecognizer
from service.serving.version_loader import VersionLoader

log = logging.getLogger(__name__)

ServedT = TypeVar("ServedT", bound=Servable)

# Of a change for another one of the same name. A frozen process loses its lock before, and a request takes two locks.
MAX_WAIT_S = 4.8
_SHUTTING_DOWN = "the service is shutting down"
# No name is longer; a body may have millions of characters for one.
_LONGEST_NAME = 1024


class ModelManager:
    """Opens models and finds them by name.

    `opened` is set once all models are loaded and warm; `problem` says why requests are refused. One admission counts
    the requests of all models, since they share the machine. Fine-tuned models come from the registry and change while
    the service runs; a request resolves its model once and finishes with it.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
        opener: ModelOpener | None = None,
        located: Iterable[ModelSource] | None = None,
    ) -> None:
        """`located` are the models of `--model` that read texts or images, where a thread finds them already."""
        self._settings = settings
        self._metrics = metrics
        self._image_limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        self._configured: dict[str, Servable] = {}
        threads = settings.tokenizer_threads or min(cpu.count_cores(), 4)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        admission = Admission(settings.max_queued_items, settings.max_queued_tokens, metrics)
        fitted = LruCache[str, Sized](settings.cache_mb * 2**20)
        self.context = ServingContext(admission, fitted, self._pool, metrics, settings.max_request_tokens)
        self.engines = EngineFactory(settings, metrics, on_failure)
        self.registry = Registry(settings.registry_directory, max_wait_s=MAX_WAIT_S)
        self._opener = opener or LocalModelOpener(settings, self.engines, located, lambda: self._alone)
        shared = self.registry, self.engines, self._opener, self.context
        loader = VersionLoader(*shared, self._find_configured, self._image_limits)
        self.watcher = RegistryWatcher(self.registry, loader.load, metrics, poll_s=settings.registry_poll_s)
        self._opening: Future[None] | None = None
        self._alone = True
        self.opened = False
        self.draining = False

    def start_opening(self, *, alone: bool = True) -> Future[None]:
        """Call `open` in a thread, unless that has begun; the result says when it has ended, or raises why it failed.

        `alone`: from now on this process does nothing else meanwhile. Only what is measured first blocks. The thread
        computes with all threads, and must end. OpenMP counts those of an idle thread, too, and then takes twice as
        long for one short text (decision 16).
        """
        self._alone = alone
        if self._opening is None:
            self._opening = Future()
            self._opener.measure()
            threading.Thread(target=self._open_for, args=(self._opening,), name="open-models", daemon=True).start()
        return self._opening

    def _open_for(self, opening: Future[None]) -> None:
        try:
            self.open()
        except Exception as error:  # the caller that waits gets it
            opening.set_exception(error)
        else:
            opening.set_result(None)

    def open(self) -> None:
        """Load the models of the settings, then those in the registry, and keep watching it.

        Blocks; meant for a thread. Raises ConfigError for two models of one name, before it loads any, and ModelError
        when a model of the settings cannot be loaded. A fine-tuned one that cannot is reported and stops nothing.
        """
        names = [parse_spec(spec)[0] for spec in self._settings.model]
        for number, name in enumerate(names):
            require_free_name(name, names[:number])
        require_known(self._settings.trust_native, [parse_spec(spec)[0] for spec in self._settings.programs])
        for opened in self._opener.open_configured():
            if isinstance(opened, OpenedImages):
                self._serve(serve_images(opened, self.context, self._image_limits))
            elif isinstance(opened, OpenedProgram):
                self._serve(serve_program(opened, self.context, self._image_limits))
            else:
                self._serve(ServedText(*opened, self.context))
        self.watcher.open()
        for alias in set(self.watcher.aliases) & set(self._configured):
            target = self.watcher.aliases[alias]
            log.warning("alias %r of %s is ignored here: a model of the settings has this name", alias, target)
        self.opened = True

    def add(self, model: TextModel) -> ServedText:
        """Put a model of texts in service."""
        require_free_name(model.metadata.name, self._configured)
        return self._serve(ServedText(model, self.engines.start_rows(model), self.context))

    def add_images(self, model: ImageModel) -> Servable:
        """Warm a model of images up and put it in service."""
        require_free_name(model.metadata.name, self._configured)
        opened = OpenedImages.start(model, self.engines, alone=not self.opened)
        return self._serve(serve_images(opened, self.context, self._image_limits))

    def _serve(self, served: ServedT) -> ServedT:
        metadata = served.metadata
        self._configured[metadata.name] = served
        self._metrics.put_in_service(metadata)
        facts = {name: getattr(metadata, name) for name in ("device", "dtype", "reason", "forward")}
        log.info("model in service", extra={"model": served.label} | facts)
        return served

    def find(self, name: str | None) -> Servable:
        """The model with a name, `name:version` or alias; without a name, the first one.

        Raises ModelNotFound naming the models in service. Only `resolve` finds versions that must be loaded first.
        """
        self.require_ready()
        if name is None:
            return next(iter(self._configured.values()))
        if found := self._find_loaded(name):
            return found
        raise ModelNotFound(f"no model {name!r} here; there is: {_names_of(self.all())}", param="model")

    async def resolve(self, name: str | None) -> Servable:
        """Find a model; load a version that is not the current one. Raises Unservable, too.

        Before it raises ModelNotFound, it looks at the registry: a job may have published the name just now.
        """
        self.require_ready()
        if name is None:
            return self.find(None)
        if len(name) > _LONGEST_NAME:
            raise ModelNotFound(f"no model {name[:80]!r}…, a name of {len(name)} characters, here", param="model")
        with suppress(ModelNotFound):
            if found := self._find_loaded(name):
                return found
        run = asyncio.get_running_loop().run_in_executor
        if (version := self.watcher.version_of(name)) is not None:
            return await run(self._loading, self.watcher.fetch, *version)
        await run(self._loading, self.watcher.look, time.monotonic())
        return self.find(name)

    async def resolve_for(self, task: Task, name: str | None) -> ServedText:
        """Find a model for a task as `find_for` does; load it as `resolve` does."""
        return self.find_for(task, None) if name is None else self.require_task(await self.resolve(name), task)

    async def resolve_texts(self, name: str | None) -> ServedText:
        """Resolve a text model. Raises WrongTask for a model of readings or images."""
        return self.require_texts(await self.resolve(name))

    def require_texts(self, served: Servable) -> ServedText:
        """The same model. Raises WrongTask for a model of readings or images."""
        if isinstance(served, ServedText):
            return served
        reads = f"reads {served.reads}, not texts; GET /v1/models/{served.metadata.name} has its signature"
        raise WrongTask(f"{served.metadata.name} {reads}", param="model")

    async def resolve_images(self, task: Task, name: str | None) -> ReadsImages:
        """Find a model that does `task` with images; without a name, the first one. Raises WrongTask naming others."""
        if name is not None:
            return self.require_images(await self.resolve(name), task)
        if able := self._that_do(task, ReadsImages):
            return able[0]
        raise WrongTask(f"no model here does {task} with images; start one with --model", param="model")

    def require_images(self, served: Servable, task: Task) -> ReadsImages:
        """The same model. Raises WrongTask naming others, unless it does `task` with images."""
        if isinstance(served, ReadsImages) and served.metadata.task == task:
            return served
        raise _does_other(served, f"models that do {task} with images", self._that_do(task, ReadsImages))

    async def resolve_recognizer(self, name: str | None) -> ServedRecognizer:
        """Find a model that writes the text of images. Raises WrongTask naming others."""
        return cast(ServedRecognizer, await self.resolve_images("ocr", name))  # as every model of this task is

    async def resolve_any_images(self, name: str | None) -> ReadsImages:
        """Find a model that reads images, whatever it does. Raises WrongTask naming others."""
        readers = self._in_service(ReadsImages)
        served = readers[0] if name is None and readers else await self.resolve(name)
        if isinstance(served, ReadsImages):
            return served
        reads = f"{served.metadata.name} reads {served.reads}, not images"
        raise WrongTask(f"{reads}; models that read images: {_names_of(readers)}", param="model")

    def find_for(self, task: Task, name: str | None) -> ServedText:
        """The model called `name`, which must do `task`; without a name, the first one that does."""
        if name is not None:
            return self.require_task(self.find(name), task)
        self.require_ready()
        able = sorted(self._text_models_for(task), key=lambda served: served.metadata.task != task)
        if not able:
            raise WrongTask(f"no model here does {task} with texts; start one with --model", param="model")
        return able[0]

    def require_task(self, served: Servable, task: Task) -> ServedText:
        """The same model. Raises WrongTask naming others, unless it is a text model for `task`."""
        if isinstance(served, ServedText) and _does(served, task):
            return served
        raise _does_other(served, f"models that do {task} with texts", self._text_models_for(task))

    def require_readings(self, served: Servable, task: Task) -> ServedSensor:
        """The same model. Raises WrongTask naming others, unless it is a sensor model for `task`."""
        if isinstance(served, ServedSensor) and served.metadata.task == task:
            return served
        raise _does_other(served, f"models for {task} of readings", self._that_do(task, ServedSensor))

    async def resolve_program(self, task: Task, name: str | None) -> ServedProgram:
        """Find a program that does `task`; without a name, the first one. Raises WrongTask naming others."""
        if name is None and (able := self._that_do(task, ServedProgram)):
            return able[0]
        return self.require_program(await self.resolve(name), task)

    def require_program(self, served: Servable, task: Task) -> ServedProgram:
        """The same model. Raises WrongTask naming others, unless it is a program that does `task`."""
        if isinstance(served, ServedProgram) and served.metadata.task == task:
            return served
        raise _does_other(served, f"programs that do {task}", self._that_do(task, ServedProgram))

    def configured(self) -> Iterable[Servable]:
        """The models of the settings."""
        return self._configured.values()

    def all(self) -> Iterable[Servable]:
        """Every model in service: those of the settings first, then the fine-tuned ones."""
        return [*self._configured.values(), *self.watcher.current.values()]

    @property
    def problem(self) -> str | None:
        """Why requests are refused now; None when they are taken."""
        return _SHUTTING_DOWN if self.draining else self._unready

    @property
    def _unready(self) -> str | None:
        if not self.opened:
            return "models are loading"
        if any(engine.failure for served in self.all() for engine in served.engines):
            return self._opener.lost
        return None

    def admit(self) -> None:
        """Raise Unavailable for a request that comes after the shutdown has begun."""
        self._raise_unavailable(_SHUTTING_DOWN if self.draining else None)

    def require_ready(self) -> None:
        """Raise Unavailable while no model can answer."""
        self._raise_unavailable(self._unready)

    def _raise_unavailable(self, problem: str | None) -> None:
        if problem:
            self._metrics.shed.labels("not_ready").inc()
            raise Unavailable(problem, retry_after_s=2)

    def stop(self) -> None:
        """Stop the settings' models after their batches; waiting requests get Unavailable."""
        for served in self._configured.values():
            for engine in served.engines:
                engine.close()

    def close(self) -> None:
        """Stop all engines and threads."""
        self._opener.close()
        self.watcher.close()
        self._loading.shutdown(wait=False, cancel_futures=True)
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _find_loaded(self, name: str) -> Servable | None:
        return self._find_configured(name) or self.watcher.find(name)

    def _find_configured(self, name: str) -> Servable | None:
        """The settings' model `name` or `name:version`, `sentence-transformers/` left out."""
        if exact := self._configured.get(name):
            return exact
        bare, _, version = name.partition(":")
        found = self._configured.get(bare) or self._configured.get(bare.removeprefix("sentence-transformers/"))
        return found if found is not None and version in ("", found.metadata.version) else None

    def _in_service(self, kind: type[ServedT]) -> list[ServedT]:
        return [served for served in self.all() if isinstance(served, kind)]

    def _that_do(self, task: Task, kind: type[ServedT]) -> list[ServedT]:
        self.require_ready()
        return [served for served in self._in_service(kind) if served.metadata.task == task]

    def _text_models_for(self, task: Task) -> Iterable[ServedText]:
        return [served for served in self._in_service(ServedText) if _does(served, task)]


def _names_of(models: Iterable[Servable]) -> str:
    """Their names, for a message."""
    return ", ".join(served.metadata.name for served in models) or "none here"


def _does_other(served: Servable, able_are: str, able: Iterable[Servable]) -> WrongTask:
    return WrongTask(f"{served.metadata.name} does {served.does}; {able_are}: {_names_of(able)}", param="model")


def _does(served: ServedText, task: Task) -> bool:
    """Whether a model does a task. Encoders can rerank, too."""
    return served.metadata.task == task or (task == "rerank" and served.metadata.task == "embedding")
