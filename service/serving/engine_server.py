"""The engine process: one copy of each model, for all fronts."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvloop

from models.images.patches import PatchFeatures
from models.metadata import Computable
from models.source import ModelSource
from service.config import Settings
from service.engine.frames import Draining, OpenConfigured, Opened, OpenedPatches, OpenProgram, OpenVersion, failure
from service.engine.row_engine import RowEngine
from service.errors import ConfigError
from service.metrics import Metrics
from service.serving.engine_factory import EngineFactory
from service.serving.front_connection import FrontConnection
from service.serving.model_opener import LocalModelOpener, ModelOpener, OpenedImages, OpenedProgram, OpenedText
from service.serving.program_model import DescribedProgram
from service.serving.servable import Admission
from service.serving.tensor_frames import write_facts

if TYPE_CHECKING:
    from service.processes.server_process import ServerProcess

AnyOpened = OpenedText | OpenedImages | OpenedProgram
# A model and its engine.
Started = tuple[Computable, RowEngine[Any]]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_DEADLINES_S = 1.0


class EngineServer:
    """Loads models, and serves the fronts that are connected, on the event loop.

    A version of a fine-tuned model stays until no front holds it. One admission counts the requests of all fronts.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, process: ServerProcess, source: ModelOpener | None = None
    ) -> None:
        self.exit_code = 0
        self.admission = Admission(settings.max_queued_items, settings.max_queued_tokens, metrics)
        self._settings = settings
        self._process = process
        self._source = source or LocalModelOpener(settings, EngineFactory(settings, metrics, self._fail))
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        self._configured: list[AnyOpened] = []
        self._models: dict[str, Started] = {}
        self._opening = asyncio.Lock()
        self._fronts: set[FrontConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._draining = False
        self._loop = asyncio.get_running_loop()

    async def run(self) -> int:
        """Serve until a signal or a failure; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)
        self.start()
        await self._ended.wait()
        await self.close()
        return self.exit_code

    def start(self) -> None:
        """Load the models and take fronts."""
        self._process.take_connections(lambda: FrontConnection(self))
        self._start(self._load_configured())
        self._start(self._send_moved_deadlines())

    async def close(self) -> None:
        """Leave all fronts, and end the engines."""
        for front in list(self._fronts):
            front.abort()
        for task in self._tasks:
            task.cancel()
        for _, engine in list(self._models.values()):  # fronts that go meanwhile release theirs
            await asyncio.to_thread(engine.close)

    def connected(self, front: FrontConnection) -> None:
        """A front has come."""
        self._fronts.add(front)

    def disconnected(self, front: FrontConnection) -> None:
        """A front has gone: give up what it alone held."""
        self._fronts.discard(front)
        self._process.closed()
        for label in front.models:
            self.release(label)

    def find(self, label: str) -> Started | None:
        """A model that is loaded."""
        return self._models.get(label)

    def open(self, front: FrontConnection, frame: OpenConfigured | OpenVersion) -> None:
        """Load a model unless it is there, and send it to the front."""
        self._start(self._open(front, frame))

    def release(self, label: str) -> None:
        """Unload a version that no front holds any more."""
        held = any(label in front.models for front in self._fronts)
        configured = any(label == _started(opened)[0].metadata.label for opened in self._configured)
        if not held and not configured and (found := self._models.pop(label, None)) is not None:
            self._start(asyncio.to_thread(found[1].close))
            log.info("model unloaded", extra={"model": label})

    async def _open(self, front: FrontConnection, frame: OpenConfigured | OpenVersion) -> None:
        try:
            async with self._opening:
                model, found = await self._find_or_load(frame)
                if front in self._fronts:
                    front.models[model.metadata.label] += 1
                else:
                    self.release(model.metadata.label)
        except Exception as error:  # a broken model may make a library raise anything
            log.warning("a model could not be opened: %s", error)
            front.send(failure(frame.number, error))
            return
        text = getattr(model, "text", None)
        tokenizer = "" if text is None else await asyncio.to_thread(text.to_json)
        patches = None if found is None else OpenedPatches(found.metadata, found.channels)
        ends = getattr(model, "ends", ())
        program = write_facts(cast(DescribedProgram, model)) if hasattr(model, "contract") else b""
        front.send(Opened(frame.number, model.metadata, model.memory_bytes(), tokenizer, ends, patches, program))

    async def _find_or_load(self, frame: OpenConfigured | OpenVersion) -> tuple[Computable, PatchFeatures | None]:
        """The model of a frame, and its patch features; a version has none."""
        if isinstance(frame, OpenConfigured):
            opened = self._configured[frame.index]  # the lock is free once all are loaded
            patches = opened.patches if isinstance(opened, OpenedImages) else None
            return _started(opened)[0], None if patches is None else patches[0]
        label = f"{frame.name}:{frame.digest}"
        if label not in self._models:
            source = ModelSource(frame.name, Path(frame.path), frame.origin, frame.digest)
            load = self._source.open_program if isinstance(frame, OpenProgram) else self._source.open_version
            self._models[label] = _started(await self._loop.run_in_executor(self._loading, load, source))
        return self._models[label][0], None

    async def _load_configured(self) -> None:
        def load() -> list[AnyOpened]:
            opened = list(self._source.open_configured())
            gc.freeze()  # a million objects of PyTorch stay: collections need not look at them again
            return opened

        # This thread computes with all threads, and must end: OpenMP counts those of a thread that is only idle, too,
        # and then takes twice as long for one short text (decision 16).
        thread = ThreadPoolExecutor(1, thread_name_prefix="open-models")
        try:
            async with self._opening:
                self._configured = await self._loop.run_in_executor(thread, load)
                self._models.update(_by_label(self._configured))
        except Exception as error:  # any failure must end the process
            message = getattr(error, "message", None)
            log.critical("models cannot be loaded: %s", message or error, exc_info=None if message else error)
            self._end(2 if isinstance(error, ConfigError) else 1)
            return
        finally:
            thread.shutdown(wait=False)
        self._process.send_state("ready")

    async def _send_moved_deadlines(self) -> None:
        """Send fronts the deadlines that have moved, a few times within the callers' patience."""
        while True:
            await asyncio.sleep(min(_DEADLINES_S, self._settings.default_timeout_s / 4))
            for front in self._fronts:
                front.send_moved_deadlines()

    def _on_signal(self) -> None:
        if self._draining:
            self._end(0)
            return
        self._draining = True
        self._process.send_state("draining")
        log.info("draining: %d fronts", len(self._fronts))
        if self._process.has_parent:  # without one, the fronts drain by themselves
            for front in self._fronts:
                front.send(Draining(0))
        self._start(self._drain())

    async def _drain(self) -> None:
        deadline = self._loop.time() + self._settings.shutdown_s
        while self._fronts and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_S)
        self._end(0)

    def _fail(self, error: Exception) -> None:
        """End the process after a lost device. For any thread."""
        self._loop.call_soon_threadsafe(self._end, 1)

    def _end(self, code: int) -> None:
        self.exit_code = max(self.exit_code, code)
        self._ended.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _started(opened: AnyOpened) -> Started:
    if isinstance(opened, OpenedProgram):
        return opened.program, opened.engine
    return (opened.model, opened.engine) if isinstance(opened, OpenedImages) else opened


def _by_label(configured: Iterable[AnyOpened]) -> Iterator[tuple[str, Started]]:
    """Models and their engines by the labels that fronts submit to; patch features have one of their own."""
    for opened in configured:
        model, engine = _started(opened)
        yield model.metadata.label, (model, engine)
        if isinstance(opened, OpenedImages) and opened.patches is not None:
            yield opened.patches[0].metadata.label, opened.patches


def serve_engine(settings: Settings, metrics: Metrics, process: ServerProcess) -> int:
    """Run the engine process until a signal; return its exit code."""

    async def run() -> int:
        return await EngineServer(settings, metrics, process).run()

    # As in a server: Python's default of 5 ms is as long as a whole batch takes.
    sys.setswitchinterval(0.0001)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
