"""One front's connection to the engine process: its models and its open requests."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import msgspec

from models.errors import SondeError
from service.engine.frames import (
    Cancel,
    CloseModel,
    Deadline,
    FrameBuffer,
    FrameTooLong,
    Rows,
    Submit,
    SubmitImages,
    SubmitTensors,
    ToFront,
    encode,
    failure,
    to_engine,
)
from service.engine.request import Item, Request
from service.engine.row_engine import RowEngine
from service.errors import BackendError, ClientGone, Unavailable
from service.serving.image_frames import images_of
from service.serving.tensor_frames import outputs_of, tensors_of
from service.serving.token_frames import tokens_of

if TYPE_CHECKING:
    from service.serving.engine_server import EngineServer

log = logging.getLogger(__name__)


class FrontConnection(asyncio.Protocol):
    """One front's connection: its models and its open requests."""

    def __init__(self, server: EngineServer) -> None:
        self.models: Counter[str] = Counter()  # how often it holds each
        self._server = server
        self._buffer = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._begun: dict[int, list[Item]] = {}  # the items of submissions of which more must come
        self._open: dict[int, _Submission] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the front in."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._server.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the front's requests and models."""
        self._transport = None
        if self._buffer.torn:
            log.warning("a front's connection ended within a frame")
        for number in list(self._open):
            self._cancel(number)
        self._server.disconnected(self)

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete. A frame that cannot be read ends this connection alone."""
        try:
            for body in self._buffer.feed(data):
                self._receive(body)
        except (FrameTooLong, msgspec.MsgspecError, ValueError) as error:
            log.warning("a front sent a frame that cannot be read, its connection ends: %s", error)
            self.abort()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, frame: ToFront) -> None:
        """Send a frame, unless the front has gone; in place of one that is too long, its failure."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            content = encode(frame)
        except FrameTooLong as error:
            content = encode(failure(frame.number, BackendError(f"the answer is {error}: send fewer inputs a request")))
        self._transport.write(content)

    def send_moved_deadlines(self) -> None:
        """Send the deadlines that have moved since the last call."""
        for number, submission in self._open.items():
            if (moved := submission.moved_deadline()) is not None:
                self.send(Deadline(number, moved))

    def _receive(self, body: bytes) -> None:
        frame = to_engine.decode(body)
        if isinstance(frame, Submit | SubmitImages | SubmitTensors):
            self._submit(frame)
        elif isinstance(frame, Cancel):
            self._cancel(frame.number)
        elif isinstance(frame, CloseModel):
            self.models -= Counter([frame.model])
            self._server.release(frame.model)
        else:
            self._server.open(self, frame)

    def _submit(self, frame: Submit | SubmitImages | SubmitTensors) -> None:
        items = self._begun.pop(frame.number, [])
        items += _items_of(frame)
        if frame.more:
            self._begun[frame.number] = items
            return
        found = self._server.find(frame.model)
        if found is None:
            self.send(failure(frame.number, Unavailable(f"{frame.model} is not loaded", retry_after_s=2)))
            return
        engine, admitted = found[1], ExitStack()
        try:
            tokens = sum(item.count for item in items)
            admitted.enter_context(self._server.admission.admit(len(items), tokens, lambda: engine.tokens_per_s))
            request = engine.submit(
                items, client=frame.client, deadline=frame.deadline, patience_s=frame.patience_s, bulk=frame.bulk
            )
        except SondeError as error:
            admitted.close()
            self.send(failure(frame.number, error))
            return
        self._open[frame.number] = _Submission(engine, request, admitted)
        request.future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._answer, frame.number))

    def _answer(self, number: int) -> None:
        submission = self._open.pop(number, None)
        if submission is None:  # cancelled
            return
        submission.admitted.close()
        request, engine = submission.request, submission.engine
        if (error := request.future.exception()) is not None:
            self.send(failure(number, error))
            return
        rows = request.future.result().tobytes()
        times = request.queue_s, request.inference_s, engine.tokens_per_s
        self.send(Rows(number, rows, *times, outputs_of(request)))

    def _cancel(self, number: int) -> None:
        submission = self._open.pop(number, None)
        if submission is not None:
            submission.admitted.close()
            submission.engine.cancel(submission.request, ClientGone("the caller hung up"))


def _items_of(frame: Submit | SubmitImages | SubmitTensors) -> Sequence[Item]:
    """The items of a submission. Raises ValueError where its parts do not fit each other."""
    if isinstance(frame, SubmitTensors):
        return tensors_of(frame)
    return images_of(frame) if isinstance(frame, SubmitImages) else tokens_of(frame)


class _Submission:
    """A request of a front, the model that computes it, and its admission."""

    __slots__ = ("_sent_deadline", "admitted", "engine", "request")

    def __init__(self, engine: RowEngine[Any], request: Request, admitted: ExitStack) -> None:
        self.engine = engine
        self.request = request
        self.admitted = admitted
        self._sent_deadline = request.deadline

    def moved_deadline(self) -> float | None:
        """The deadline, where it has moved since the last call."""
        if self.request.deadline == self._sent_deadline:
            return None
        self._sent_deadline = self.request.deadline
        return self._sent_deadline
