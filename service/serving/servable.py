"""The common part of models in service: metadata, admission, engine, and the way through the queue."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.metadata import Computable, ModelMetadata
from service.engine.cache import LruCache, Sized
from service.engine.request import Item, Request
from service.engine.row_engine import RowEngine
from service.errors import ClientGone, DeadlineExceeded, InvalidRequest, Overloaded
from service.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: the client for fair queueing, and the deadline in monotonic seconds.

    With `patience_s`, the caller has set no time: the deadline moves to that long after each batch of its request.
    Requests of a `bulk` caller never overtake others.
    """

    client: str = ""
    deadline: float | None = None
    patience_s: float | None = None
    bulk: bool = False

    def is_late(self) -> bool:
        """Whether the time that the caller has set is over."""
        return self.patience_s is None and self.deadline is not None and time.monotonic() > self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Sizes and times of a computation, for headers and logs."""

    inputs: int
    token_count: int
    truncated: int = 0
    tokenize_s: float = 0.0
    queue_s: float
    inference_s: float


class Admission:
    """Limits the work inside the service, for the event loop alone: items and estimated tokens of all requests.

    Others are refused at once.
    """

    def __init__(self, max_items: int, max_tokens: int, metrics: Metrics) -> None:
        self._max_items = max_items
        self._max_tokens = max_tokens
        self._metrics = metrics
        self.items = 0
        self.tokens = 0

    @contextmanager
    def admit(self, items: int, tokens: int, tokens_per_s: Callable[[], float]) -> Iterator[None]:
        """Hold room for a request. A larger one than the limit must be alone.

        Raises Overloaded with the seconds in which the backlog should be computed.
        """
        self._refuse_if_full("items", self.items, items, self._max_items, tokens_per_s)
        self._refuse_if_full("tokens", self.tokens, tokens, self._max_tokens, tokens_per_s)
        self.items += items
        self.tokens += tokens
        try:
            yield
        finally:
            self.items -= items
            self.tokens -= tokens

    def _refuse_if_full(self, unit: str, held: int, more: int, limit: int, tokens_per_s: Callable[[], float]) -> None:
        if held and held + more > limit:
            self._metrics.shed.labels(unit).inc()
            wait_s = max(math.ceil(self.tokens / (tokens_per_s() or self.tokens or 1.0)), 1)
            message = f"{held} {unit} are waiting, {limit} are allowed; try again in {wait_s} s"
            raise Overloaded(message, retry_after_s=wait_s)


@dataclass(frozen=True, slots=True)
class ServingContext:
    """What all models in service share."""

    admission: Admission
    fitted: LruCache[str, Sized]
    pool: Executor
    metrics: Metrics
    max_request_tokens: int


class Servable:
    """A loaded model and its engine. It lives on the event loop; the engine's threads compute."""

    # What its inputs are.
    reads: ClassVar[str]

    def __init__(
        self, model: Computable, engine: RowEngine[Any], context: ServingContext, metadata: ModelMetadata | None = None
    ) -> None:
        """`metadata` is for what was trained on the model, which computes for it."""
        self.engine = engine
        self.metadata = metadata or model.metadata
        # The value of the header `x-sonde-model`, which is a name that requests can use.
        self.label = self.metadata.label
        self._computes = model
        self._admission = context.admission
        self._fitted = context.fitted
        self._pool = context.pool
        self._metrics = context.metrics
        self._max_request_tokens = context.max_request_tokens

    @property
    def does(self) -> str:
        """Its task, for messages; models of texts do it without saying so."""
        task = self.metadata.task
        return task if self.reads == "texts" else f"{task} with {self.reads}"

    @property
    def engines(self) -> list[RowEngine[Any]]:
        """Its engines, of which most models have one."""
        return [self.engine]

    def memory_bytes(self) -> int:
        """Bytes of the model on its device."""
        return self._computes.memory_bytes()

    async def run_in_pool(self, work: Callable[[], T]) -> T:
        """Run work that needs no model in a thread, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _require_room(self, tokens: int, param: str) -> None:
        if tokens > self._max_request_tokens:
            # Images and tensors have no tokens of their own; they are counted by what they cost.
            has = "the request has" if self.reads == "texts" else f"the {self.reads} of the request count as"
            allowed = f"{self._max_request_tokens} are allowed: send it in several requests"
            raise InvalidRequest(f"{has} {tokens} tokens, {allowed}", param=param)

    async def _compute_rows(self, items: Sequence[Item], caller: Caller) -> tuple[NDArray[np.float32], float, float]:
        """Queue items; return their rows, and the seconds of waiting and of computing."""
        deadline, patience_s = caller.deadline, caller.patience_s
        if deadline is not None and patience_s is not None:
            deadline = max(deadline, time.monotonic() + patience_s)
        request = self.engine.submit(
            items, client=caller.client, deadline=deadline, patience_s=patience_s, bulk=caller.bulk
        )
        try:
            values = await wait_for_rows(request)
        except TimeoutError:
            self.engine.cancel(request, DeadlineExceeded("the request's time ran out"))
            raise DeadlineExceeded("the request's time ran out before its answer was there") from None
        except asyncio.CancelledError:
            self.engine.cancel(request, ClientGone("the caller hung up"))
            raise
        return values, request.queue_s, request.inference_s


async def wait_for_rows(request: Request) -> NDArray[np.float32]:
    """The rows of a request. Raises TimeoutError at its deadline, which moves with each batch of a patient caller."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    ended: asyncio.Future[None] = loop.create_future()

    def wake_up(_: object) -> None:
        if threading.get_ident() == thread:  # a front's rows come on its event loop
            _end(ended)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_end, ended)

    request.future.add_done_callback(wake_up)
    timer = _Timer(request, ended)
    try:
        await ended
        return request.future.result()
    finally:
        timer.stop()


class _Timer:
    """Ends a wait at the deadline of a request, wherever that is by then."""

    def __init__(self, request: Request, ended: asyncio.Future[None]) -> None:
        self._request = request
        self._ended = ended
        self._handle: asyncio.TimerHandle | None = None
        self._check()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _check(self) -> None:
        if self._request.deadline is None or self._ended.done():
            return
        remaining = self._request.deadline - time.monotonic()
        if remaining <= 0:
            self._ended.set_exception(TimeoutError())
        else:
            self._handle = self._ended.get_loop().call_later(remaining, self._check)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
