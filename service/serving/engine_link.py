"""A front's connection to the engine process, replaced when the engine is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import cast

import msgspec
import numpy as np

from models.counted import counted
from models.errors import ModelError, SondeError
from service.engine.frames import (
    Cancel,
    CloseModel,
    Deadline,
    Failed,
    FrameBuffer,
    FrameTooLong,
    OpenConfigured,
    Opened,
    OpenVersion,
    Rows,
    Submission,
    ToEngine,
    encode,
    error_of,
    to_front,
)
from service.engine.request import Request
from service.errors import BodyTooLarge, Unavailable
from service.serving.tensor_frames import give_outputs

log = logging.getLogger(__name__)

# Asks for the model again at each new engine, with the number of the exchange.
MakeOpen = Callable[[int], OpenConfigured | OpenVersion]
_ASK_AGAIN_S = 0.1
RECONNECTING = "a connection to the engine is being made"


class _EngineGone(Exception):
    """The engine has ended before it answered."""


class EngineLink(asyncio.Protocol):
    """Sends requests to the engine and completes them. `lost` says why it cannot now; None where it can.

    The supervisor sends a new connection for each `ask`. The models that were open are opened at the new engine before
    anything else. A model that is another one there ends this front by `on_failure`, and the supervisor replaces it.
    State belongs to the event loop; `open`, `submit`, `cancel`, `release` and `close` are for any thread.
    """

    def __init__(self, ask: Callable[[], None], on_failure: Callable[[Exception], None]) -> None:
        self.lost: Exception | None = Unavailable(RECONNECTING, retry_after_s=2)
        self.tokens_per_s: dict[str, float] = {}
        self._ask = ask
        self._on_failure = on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: int | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = FrameBuffer()
        self._leaving = False
        self._connected = threading.Event()
        self._closed = False
        # Exchanges that open a model have negative numbers, submissions those of their requests.
        self._numbers = itertools.count(-1, -1)
        self._opening: dict[int, tuple[MakeOpen, Future[Opened]]] = {}
        # By label, one for each `open` until its `release`: a version may come back while requests hold it from before.
        self._held: dict[str, list[MakeOpen]] = {}
        self._open: dict[int, tuple[str, Request]] = {}

    def open(self, make: MakeOpen) -> Opened:
        """Open a model, at the next engine if this one ends meanwhile. Blocks. Raises ModelError and Unavailable."""
        while True:
            self._connected.wait()
            if self._closed:
                raise Unavailable("the service is shutting down")
            answer: Future[Opened] = Future()
            self._on_loop(self._send_open, make, answer)
            with contextlib.suppress(_EngineGone):
                return answer.result()

    def submit(self, model: str, frames: Iterable[Submission], request: Request) -> None:
        """Send a request; its future gets the answer. Raises BodyTooLarge for more than a frame has room for."""
        try:
            contents = [encode(frame) for frame in frames]
        except FrameTooLong as error:
            raise BodyTooLarge(f"the request's inputs take {error}: send fewer inputs a request") from error
        self._on_loop(self._send_submission, model, contents, request)

    def cancel(self, request: Request) -> None:
        """Let the engine drop what waits of a request."""
        self._on_loop(self._send_cancel, request.number)

    def release(self, label: str) -> None:
        """Hold a model no longer; its requests get Unavailable."""
        self._on_loop(self._send_close, label)

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._open)

    def close(self) -> None:
        """End the calls of `open` that wait."""
        self._closed = True
        self._connected.set()
        for _, answer in list(self._opening.values()):
            _complete(answer, Unavailable("the service is shutting down"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the models that were open, then take requests."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._transport, self._buffer, self._leaving = cast(asyncio.WriteTransport, transport), FrameBuffer(), False
        self._connected.set()
        self._loop.create_task(self._restore()).add_done_callback(_forget)

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete. A frame that cannot be read ends the connection."""
        try:
            for body in self._buffer.feed(data):
                self._receive(body)
        except (FrameTooLong, msgspec.MsgspecError, ValueError) as error:
            log.warning("the engine sent a frame that cannot be read, the connection ends: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits, and ask for another connection."""
        self._transport = None
        if not self._closed:
            self._connected.clear()
            level = logging.INFO if self._leaving else logging.WARNING
            log.log(
                level,
                "the connection to the engine has ended, another is asked for: %s failed",
                counted(len(self._open), "request"),
            )
        self._mark_lost()
        opening, self._opening = self._opening, {}
        for _, answer in opening.values():
            _complete(answer, _EngineGone())
        requests, self._open = self._open, {}
        for _, request in requests.values():
            request.fail(Unavailable(RECONNECTING, retry_after_s=2))
        if not self._closed:
            asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self._ask)

    async def _restore(self) -> None:
        """Open at a new engine what was open at the last one."""
        try:
            for label, make in [(label, make) for label, makes in self._held.items() for make in makes]:
                answer: Future[Opened] = Future()
                self._send_open(make, answer)
                opened = await asyncio.wrap_future(answer)
                found = opened.metadata.label
                if found != label:
                    raise ModelError(f"the new engine has {found} instead of {label}")
        except _EngineGone:
            return
        except SondeError as error:
            log.critical("a model of this front is not in the new engine, the front is replaced: %s", error.message)
            self._on_failure(error)
            return
        if not self._leaving:
            self.lost = None

    def _receive(self, body: bytes) -> None:
        frame = to_front.decode(body)
        if isinstance(frame, Rows):
            self._complete_rows(frame)
        elif isinstance(frame, Deadline):
            if (found := self._open.get(frame.number)) is not None:
                found[1].deadline = frame.deadline
        elif isinstance(frame, Failed):
            self._fail(frame)
        elif isinstance(frame, Opened):
            make, answer = self._opening.pop(frame.number)
            held = self._held.setdefault(frame.metadata.label, [])
            if make not in held:  # a new engine opens it again
                held.append(make)
            _complete(answer, frame)
        else:
            self._leave()

    def _complete_rows(self, frame: Rows) -> None:
        found = self._open.get(frame.number)
        if found is None:  # its caller has gone
            return
        model, request = found
        if frame.outputs:
            give_outputs(request.items, frame.outputs)
        request.rows[...] = np.frombuffer(frame.rows, dtype=np.float32).reshape(request.rows.shape)
        del self._open[frame.number]  # a request whose rows do not fit fails with its connection
        self.tokens_per_s[model] = frame.tokens_per_s
        request.answer(request.rows, frame.queue_s, frame.inference_s)
        self._end_if_left()

    def _fail(self, frame: Failed) -> None:
        if (opening := self._opening.pop(frame.number, None)) is not None:
            _complete(opening[1], error_of(frame))
        elif (found := self._open.pop(frame.number, None)) is not None:
            found[1].fail(error_of(frame))
        self._end_if_left()

    def _leave(self) -> None:
        """Send this engine nothing new, and leave it after its answers."""
        self._leaving = True
        self._mark_lost()
        self._end_if_left()

    def _mark_lost(self) -> None:
        self.lost = Unavailable(RECONNECTING, retry_after_s=2)

    def _end_if_left(self) -> None:
        if self._leaving and not self._open and self._transport is not None:
            self._transport.close()

    def _send_open(self, make: MakeOpen, answer: Future[Opened]) -> None:
        number = next(self._numbers)
        if self._transport is None:
            _complete(answer, _EngineGone())
            return
        self._opening[number] = make, answer
        self._write(make(number))

    def _send_submission(self, model: str, contents: list[bytearray], request: Request) -> None:
        if self._transport is None or self._leaving:
            request.fail(Unavailable(RECONNECTING, retry_after_s=2))
            return
        if not request.finished:
            self._open[request.number] = model, request
            self._transport.writelines(contents)

    def _send_cancel(self, number: int) -> None:
        if self._open.pop(number, None) is not None:
            self._write(Cancel(number))
        self._end_if_left()

    def _send_close(self, label: str) -> None:
        if not (held := self._held.get(label)):
            return
        held.pop()
        if not held:
            del self._held[label]
            for number in [number for number, (model, _) in self._open.items() if model == label]:
                _, request = self._open.pop(number)
                request.fail(Unavailable("the service is shutting down"))
                self._write(Cancel(number))
        self._write(CloseModel(next(self._numbers), label))

    def _write(self, frame: ToEngine) -> None:
        if self._transport is not None:
            self._transport.write(encode(frame))

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        """Run a call on the event loop: now where this is its thread. The loop's end was the connection's, too."""
        if self._loop is None or self._loop.is_closed():
            return
        if threading.get_ident() == self._loop_thread:
            call(*arguments)
        else:
            self._loop.call_soon_threadsafe(call, *arguments)


def _complete(answer: Future[Opened], outcome: Opened | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _forget(task: asyncio.Task[None]) -> None:
    """Raise what a task raised where the event loop reports it."""
    task.result()
