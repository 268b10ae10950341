"""What every model in service has, whatever it reads: a card, an engine, and the way of items through its queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.base import Computable, ModelMetadata
from service.engine.admission import Admission
from service.engine.cache import LruCache, Sized
from service.engine.engine import Engine
from service.engine.request import Item
from service.errors import ClientGone, DeadlineExceeded, InvalidRequest
from service.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the client to be fair to, and when (monotonic seconds) the answer is of no use any more."""

    client: str = ""
    deadline: float | None = None


class Timings(Protocol):
    """What a computation was made of and how long it took, for headers and logs."""

    @property
    def inputs(self) -> int: ...
    @property
    def token_count(self) -> int: ...
    @property
    def truncated(self) -> int: ...
    @property
    def tokenize_s(self) -> float: ...
    @property
    def queue_s(self) -> float: ...
    @property
    def inference_s(self) -> float: ...


class Servable:
    """A loaded model and its engine. Lives on the event loop; the computing happens in the engine's threads."""

    def __init__(
        self,
        model: Computable,
        engine: Engine[Any],
        *,
        admission: Admission,
        fitted: LruCache[str, Sized],
        pool: Executor,
        metrics: Metrics,
        max_request_tokens: int,
    ) -> None:
        self.engine = engine
        self._computes = model
        self._admission = admission
        self._fitted = fitted
        self._pool = pool
        self._metrics = metrics
        self._max_request_tokens = max_request_tokens

    @property
    def card(self) -> ModelMetadata:
        return self._computes.card

    @property
    def label(self) -> str:
        """What `x-sonde-model` says."""
        return f"{self.card.name}:{self.card.version}"

    def memory_bytes(self) -> int:
        """Bytes that the model holds on its device."""
        return self._computes.memory_bytes()

    async def run_in_pool(self, work: Callable[[], T]) -> T:
        """Run something that computes, but needs no model, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _require_room(self, tokens: int, param: str) -> None:
        if tokens > self._max_request_tokens:
            raise InvalidRequest(
                f"the request has {tokens} tokens, {self._max_request_tokens} are allowed: send it in several requests",
                param=param,
            )

    async def _queued(self, items: Sequence[Item], caller: Caller) -> tuple[NDArray[np.float32], float, float]:
        """The rows of items, with the seconds that they waited and that they were computed."""
        request = self.engine.submit(items, client=caller.client, deadline=caller.deadline)
        remaining = None if caller.deadline is None else caller.deadline - time.monotonic()
        try:
            values = await asyncio.wait_for(asyncio.wrap_future(request.future), remaining)
        except TimeoutError:
            self.engine.cancel(request, DeadlineExceeded("the request's time ran out"))
            raise DeadlineExceeded("the request's time ran out before its answer was there") from None
        except asyncio.CancelledError:
            self.engine.cancel(request, ClientGone("the caller hung up"))
            raise
        started = request.started if request.started is not None else request.submitted
        return values, started - request.submitted, request.inference_s
