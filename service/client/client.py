"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

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


def blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method that sends the call and returns its answer."""

    @wraps(build)
    def send(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(build(*args, **kwargs))

    return send


class Client:
    """A client of one service.

    Its methods take what `service.client.calls` describes, and raise ClientError. `timeout_s` limits
    each attempt. `on_wait` hears of each pause before another attempt. `http` replaces the connection, as tests do.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        http: httpx.Client | None = None,
        on_wait: Callable[[Wait], object] = lambda wait: None,
    ) -> None:
        address = address_of(url)
        self._http = http or httpx.Client(base_url=address, timeout=timeout_s, verify=authorities_for(address))
        self._http.headers.update(key_headers(key))
        self._on_wait = on_wait

    embed = blocking(calls.embed)
    classify = blocking(calls.classify)
    anomaly = blocking(calls.anomaly)
    forecast = blocking(calls.forecast)
    detect = blocking(calls.detect)
    ocr = blocking(calls.ocr)
    rerank = blocking(calls.rerank)
    feedback = blocking(calls.feedback)
    upload = blocking(calls.upload)
    delete_file = blocking(calls.delete_file)
    train = blocking(calls.train)
    job = blocking(calls.job)
    jobs = blocking(calls.jobs)
    cancel = blocking(calls.cancel)
    pause = blocking(calls.pause)
    resume = blocking(calls.resume)
    events = blocking(calls.events)
    report = blocking(calls.report)
    report_page = blocking(calls.report_page)
    models = blocking(calls.models)
    model = blocking(calls.model)
    versions = blocking(calls.versions)
    promote = blocking(calls.promote)
    rollback = blocking(calls.rollback)
    delete_model = blocking(calls.delete_model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a call, again where `exchange` says so. Raises ClientError."""
        steps = exchange(call)
        got: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step = steps.send(got)
                if isinstance(step, Wait):
                    self._on_wait(step)
                    time.sleep(step.seconds)
                    got = None
                else:
                    got = self._attempt(step)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def follow(self, job_id: str, *, poll_s: float = 1.0) -> Iterator[JobEvent]:
        """The events of a job as they come, until it has ended."""
        log, ended = EventLog(), False
        while not ended:
            ended = (self.job(job_id)).ended  # before the events, so that the last ones are among them
            after = log.add(self.events(job_id))
            while after is not None:
                after = log.add(self.events(job_id, after=after))
            yield from log.take()
            if not ended:
                time.sleep(poll_s)

    def stream(
        self,
        model: str,
        *,
        alpha: float = 0.05,
        contributions: bool = False,
        events: bool | Mapping[str, int] = False,
        state: str | None = None,
    ) -> Stream:
        """A series that is scored piece by piece; `events` as in `anomaly`."""
        series = Series(model, alpha=alpha, contributions=contributions, events=events, state=state)
        return Stream(self, series)

    def forecast_frame(self, frame: DataFrame, *, model: str, horizon: int | None = None) -> DataFrame:
        """The next steps of a frame's columns; see `frames.forecast_frame`."""
        return forecast_frame(self.forecast(**readings_of(frame), model=model, horizon=horizon))

    def _attempt(self, request: dict[str, object]) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.request(**request)  # type: ignore[arg-type]  # made by Call.request
        except httpx.TransportError as error:
            return error


class Stream:
    """A series of readings; each piece continues from the `state` after the one before."""

    def __init__(self, client: Client, series: Series) -> None:
        self._client, self._series = client, series

    @property
    def state(self) -> str | None:
        """What the next piece continues from."""
        return self._series.state

    def score(
        self,
        series: calls.Readings,
        *,
        columns: Sequence[str] | None = None,
        timestamps: Sequence[str | float] | None = None,
    ) -> Scores:
        """Score the next readings. After an error, `state` is as before, so the piece can be sent again."""
        return self._series.take(self._client.send(self._series.call(series, columns, timestamps)))

    def score_frame(self, frame: DataFrame) -> DataFrame:
        """Score the next rows of a frame; see `frames.scores_frame`."""
        return scores_frame(self.score(**readings_of(frame)), frame)
