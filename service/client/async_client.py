"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from service.client import calls
from service.client.answers import Scores
from service.client.call import Call, Wait, address_of, authorities_for, exchange, key_headers
from service.client.data_frames import forecast_frame, readings_of, scores_frame
from service.client.event_log import EventLog
from service.client.job_answers import JobEvent
from service.client.series import Series

if TYPE_CHECKING:
    from pandas import DataFrame

P = ParamSpec("P")
T = TypeVar("T")


def awaitable(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A method that sends the call and awaits its answer."""

    @wraps(build)
    async def send(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.send(build(*args, **kwargs))

    return send


class AsyncClient:
    """An asynchronous client of one service.

    Its methods take what `service.client.calls` describes, and raise ClientError. `timeout_s` limits
    each attempt. `on_wait` hears of each pause before another attempt. `http` replaces the connection, as tests do.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        http: httpx.AsyncClient | None = None,
        on_wait: Callable[[Wait], object] = lambda wait: None,
    ) -> None:
        address = address_of(url)
        self._http = http or httpx.AsyncClient(base_url=address, timeout=timeout_s, verify=authorities_for(address))
        self._http.headers.update(key_headers(key))
        self._on_wait = on_wait

    embed = awaitable(calls.embed)
    classify = awaitable(calls.classify)
    anomaly = awaitable(calls.anomaly)
    forecast = awaitable(calls.forecast)
    detect = awaitable(calls.detect)
    ocr = awaitable(calls.ocr)
    rerank = awaitable(calls.rerank)
    feedback = awaitable(calls.feedback)
    upload = awaitable(calls.upload)
    delete_file = awaitable(calls.delete_file)
    train = awaitable(calls.train)
    job = awaitable(calls.job)
    jobs = awaitable(calls.jobs)
    cancel = awaitable(calls.cancel)
    pause = awaitable(calls.pause)
    resume = awaitable(calls.resume)
    events = awaitable(calls.events)
    report = awaitable(calls.report)
    report_page = awaitable(calls.report_page)
    models = awaitable(calls.models)
    model = awaitable(calls.model)
    versions = awaitable(calls.versions)
    promote = awaitable(calls.promote)
    rollback = awaitable(calls.rollback)
    delete_model = awaitable(calls.delete_model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call, again where `exchange` says so. Raises ClientError."""
        steps = exchange(call)
        got: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step = steps.send(got)
                if isinstance(step, Wait):
                    self._on_wait(step)
                    await asyncio.sleep(step.seconds)
                    got = None
                else:
                    got = await self._attempt(step)
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def follow(self, job_id: str, *, poll_s: float = 1.0) -> AsyncIterator[JobEvent]:
        """The events of a job as they come, until it has ended."""
        log, ended = EventLog(), False
        while not ended:
            ended = (await self.job(job_id)).ended  # before the events, so that the last ones are among them
            after = log.add(await self.events(job_id))
            while after is not None:
                after = log.add(await self.events(job_id, after=after))
            for event in log.take():
                yield event
            if not ended:
                await asyncio.sleep(poll_s)

    def stream(
        self,
        model: str,
        *,
        alpha: float = 0.05,
        contributions: bool = False,
        events: bool | Mapping[str, int] = False,
        state: str | None = None,
    ) -> AsyncStream:
        """A series that is scored piece by piece; `events` as in `anomaly`."""
        series = Series(model, alpha=alpha, contributions=contributions, events=events, state=state)
        return AsyncStream(self, series)

    async def forecast_frame(self, frame: DataFrame, *, model: str, horizon: int | None = None) -> DataFrame:
        """The next steps of a frame's columns; see `frames.forecast_frame`."""
        return forecast_frame(await self.forecast(**readings_of(frame), model=model, horizon=horizon))

    async def _attempt(self, request: dict[str, Any]) -> httpx.Response | httpx.TransportError:
        try:
            return await self._http.request(**request)
        except httpx.TransportError as error:
            return error


class AsyncStream:
    """A series of readings; each piece continues from the `state` after the one before."""

    def __init__(self, client: AsyncClient, series: Series) -> None:
        self._client, self._series = client, series

    @property
    def state(self) -> str | None:
        """What the next piece continues from."""
        return self._series.state

    async def score(
        self,
        series: calls.Readings,
        *,
        columns: Sequence[str] | None = None,
        timestamps: Sequence[str | float] | None = None,
    ) -> Scores:
        """Score the next readings. After an error, `state` is as before, so the piece can be sent again."""
        return self._series.take(await self._client.send(self._series.call(series, columns, timestamps)))

    async def score_frame(self, frame: DataFrame) -> DataFrame:
        """Score the next rows of a frame; see `frames.scores_frame`."""
        return scores_frame(await self.score(**readings_of(frame)), frame)
