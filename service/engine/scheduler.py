"""The queue of one engine: callers add requests, a scheduler chooses batches, runners take them.

Fairness is weighted fair queueing over tokens (Demers, Keshav, Shenker, 1989). Each request has a virtual finish time:
when it would finish if all clients shared the model token by token. A single query that arrives while another client's
2,048 texts wait is next in line, and the 2,048 still get their share. Requests of one client divide its share.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.preemption import PreemptionFlag
from service.engine.request import Flow, Request
from service.errors import DeadlineExceeded
from service.metrics import Metrics

QueuedItem = tuple[Request, int]
# Work worth one more runner: this many tokens, or fewer that take a slow model this long. Less work is done sooner in
# one batch with what comes next: a small batch takes nearly as long as a larger one, and its processor is missing to
# the batch beside it and to the threads that speak HTTP (benchmarks/NOTES.md).
_RUNNER_TOKENS, _RUNNER_S = 128, 0.015
# A batch takes the rest of a request up to this part of its own tokens: the request would wait for one more batch.
_REST_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of a batch. If the model `pads`, padding counts, up to a share `max_padding`.

    A request of at most `interactive_tokens` is interactive: a user waits for it. Larger requests are bulk, and those
    whose callers say so.
    """

    max_tokens: int = 1024
    max_items: int = 256
    max_padding: float = 0.25
    free_padding_tokens: int = 64
    look_ahead: int = 64
    interactive_tokens: int = 256
    pads: bool = True

    def padded(self, items: int, tokens: int, longest: int) -> int:
        """Tokens of a batch with the padding, if the model pads."""
        return longest * items if self.pads else tokens

    def admits(self, items: int, tokens: int, longest: int) -> bool:
        """Whether `items` with `tokens` real tokens and a `longest` item keep to the limits."""
        padded = self.padded(items, tokens, longest)
        waste = padded - tokens
        return (
            items <= self.max_items
            and padded <= self.max_tokens
            and waste <= max(self.max_padding * padded, self.free_padding_tokens)
        )


class Scheduler:
    """The waiting items of one engine, and the choice of batches: fair, within a token budget, with little padding.

    A pure data structure: no torch, no threads, no clock of its own. `Queue` holds the lock.

    Interactive and bulk requests never share a batch: small batches answer sooner, large ones compute more per second.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._heaps: dict[bool, list[tuple[float, int, Flow]]] = {True: [], False: []}
        self._flows: dict[int, Flow] = {}
        self._live: Counter[str] = Counter()
        self._with_removed: set[str] = set()  # clients whose other requests still stand behind removed ones
        self._virtual = 0.0
        self.items = self.tokens = self.interactive_items = 0

    def add(self, request: Request, indices: list[int] | None = None) -> None:
        """Add a request's items, all of them or those at `indices`."""
        indices = list(range(len(request.items))) if indices is None else indices
        if not indices:
            return
        flow = Flow(request, indices)
        request.interactive = not request.bulk and flow.tokens <= self._limits.interactive_tokens
        self._flows[request.number] = flow
        self._live[request.client] += 1
        self._count(flow, len(indices), flow.tokens)
        flow.finish = self._finish_behind(self._live[request.client], flow)
        self._push(flow)

    def remove(self, request: Request) -> int:
        """Remove a request, but for its heap entry; return how many of its items were waiting."""
        flow = self._flows.get(request.number)
        if flow is None:
            return 0
        waiting = len(flow.order)
        self._count(flow, -waiting, -flow.tokens)
        flow.order.clear()
        self._forget(flow)
        self._with_removed.add(request.client)
        return waiting

    def expired(self, now: float) -> list[Request]:
        """Requests with waiting items whose deadline has passed."""
        return [f.request for f in self._flows.values() if f.request.deadline is not None and f.request.deadline <= now]

    def next_batch(
        self, *, interactive_only: bool = False, most_tokens: float = math.inf, largest: float = math.inf
    ) -> list[QueuedItem]:
        """Take the most urgent item, whatever it costs, and others that fit it until `most_tokens`.

        Items of a request stay together: with two requests in each batch, neither would be done before both are.
        Items of more tokens than `largest` are left. Without it, empty only where no item of the wanted kind waits.
        """
        if self._with_removed:
            self._close_gaps()
        batch: list[QueuedItem] = []
        tokens = longest = 0
        left: list[Flow] = []
        clients = max(len(self._live), 1)
        heap = self._heaps[interactive_only or self._interactive_is_next()]
        while heap and len(left) < self._limits.look_ahead and not (batch and tokens >= most_tokens):
            _, _, flow = heapq.heappop(heap)
            while flow.order and (count := flow.next_count) <= largest:
                if batch and not self._limits.admits(len(batch) + 1, tokens + count, max(longest, count)):
                    break
                batch.append(self._take(flow))
                tokens, longest = tokens + count, max(longest, count)
                if tokens >= most_tokens and flow.tokens > tokens * _REST_SHARE:
                    break
            if flow.order:
                left.append(flow)
        for flow in left:
            self._push(flow)
        self._virtual += tokens / clients
        return batch

    def drain(self) -> list[Request]:
        """Remove everything; return the requests that were waiting."""
        waiting = [flow.request for flow in self._flows.values()]
        for request in waiting:
            self.remove(request)
        return waiting

    def _take(self, flow: Flow) -> QueuedItem:
        count, index = flow.next_count, flow.order.popleft()
        flow.finish += min(count, flow.beyond(self._limits.max_tokens)) * self._live[flow.request.client]
        flow.tokens -= count
        self._count(flow, -1, -count)
        if not flow.order:
            self._forget(flow)
        return flow.request, index

    def _finish_behind(self, live: int, flow: Flow) -> float:
        """When a flow that comes now would finish its part of a batch, as the last of its client's `live` ones."""
        return self._virtual + (flow.tokens - flow.beyond(self._limits.max_tokens)) * live

    def _close_gaps(self) -> None:
        """Let requests finish no later than if they came now, without those of their client that were removed."""
        live: Counter[str] = Counter()
        self._heaps = {True: [], False: []}
        for flow in sorted(self._flows.values(), key=lambda flow: flow.finish):
            live[flow.request.client] += 1
            if flow.request.client in self._with_removed:
                flow.finish = min(flow.finish, self._finish_behind(live[flow.request.client], flow))
            self._push(flow)
        self._with_removed.clear()

    def _push(self, flow: Flow) -> None:
        heapq.heappush(self._heaps[flow.request.interactive], (flow.finish, flow.request.number, flow))

    def _interactive_is_next(self) -> bool:
        """Whether the most urgent item of all belongs to an interactive request."""
        for heap in self._heaps.values():
            while heap and not heap[0][2].order:
                heapq.heappop(heap)
        interactive, bulk = self._heaps[True], self._heaps[False]
        return bool(interactive) and (not bulk or interactive[0] < bulk[0])

    def _count(self, flow: Flow, items: int, tokens: int) -> None:
        self.items += items
        self.tokens += tokens
        self.interactive_items += items * flow.request.interactive

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow.request.number]
        self._live[flow.request.client] -= 1
        if not self._live[flow.request.client]:
            del self._live[flow.request.client]


class Queue:
    """A thread-safe scheduler. Requests past their deadline end uncomputed.

    `urgent` is up while an interactive request waits. The runners keep `token_s`, the seconds of a processor that one
    token takes: other work on the machine does not make a token larger.
    """

    def __init__(
        self, name: str, limits: BatchLimits, metrics: Metrics, clock: Callable[[], float], runners: int
    ) -> None:
        self._runners = runners
        self._max_tokens = limits.max_tokens
        self._queue_wait = metrics.queue_wait.labels(name)
        self._clock = clock
        self._scheduler = scheduler = Scheduler(limits)
        metrics.queue_items.labels(name).set_function(lambda: scheduler.items)
        metrics.queue_tokens.labels(name).set_function(lambda: scheduler.tokens)
        self._lock = threading.Lock()
        self._computing = dict.fromkeys(range(runners), 0)  # the tokens that each runner has taken last
        self._idle: list[threading.Condition] = []  # one for each idle runner; the last one is woken first
        self.urgent: PreemptionFlag = np.array([False])
        self.token_s = 0.0
        self.closed = False

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens in the queue."""
        return self._scheduler.items, self._scheduler.tokens

    @property
    def idle_runners(self) -> int:
        """How many runners wait for work."""
        return len(self._idle)

    def add(self, request: Request, indices: list[int], *, wake: bool = True) -> bool:
        """Queue the items at `indices`, and `wake` a runner for them; False when the queue is closed."""
        with self._lock:
            if self.closed:
                return False
            self._scheduler.add(request, indices)
            self._mark_urgent()
            if wake:
                self._wake_for_work()
        return True

    def remove(self, request: Request) -> int:
        """Take a request out; return how many of its items were still waiting."""
        with self._lock:
            waiting = self._scheduler.remove(request)
            self._mark_urgent()
        return waiting

    def take(self, runner: int = 0) -> list[QueuedItem] | None:
        """Wait for the next batch of a runner; None once closed. Of those that wait, number 0 is served first."""
        with self._lock:
            self._computing[runner] = 0
            while not self.closed:
                others_computing = self._runners - len(self._idle) - 1
                if self._has_work_beside(others_computing) and (batch := self._next_batch(self._even_share())):
                    self._computing[runner] = sum(request.items[index].count for request, index in batch)
                    self._wake_for_work()
                    return batch
                self._wait_for_work(first=runner == 0)
        return None

    def take_urgent(self) -> list[QueuedItem]:
        """A batch of interactive requests; empty when none waits."""
        with self._lock:
            batch = self._next_batch(self._fair_share(), interactive_only=True)
            self._wake_for_work()
        return batch

    def take_some(self, most_tokens: int) -> list[QueuedItem]:
        """A batch of interactive items, none larger than `most_tokens`, which ends once it has `most_tokens`.

        It wakes no runner for the others.
        """
        with self._lock:
            return self._next_batch(most_tokens, interactive_only=True, largest=most_tokens)

    def close(self) -> None:
        """Give out nothing more."""
        with self._lock:
            self.closed = True
            while self._idle:
                self._idle.pop().notify()

    def drain(self) -> list[Request]:
        """Forget everything; return the requests that were waiting."""
        with self._lock:
            waiting = self._scheduler.drain()
            self._mark_urgent()
        return waiting

    def _next_batch(
        self, most_tokens: int, *, interactive_only: bool = False, largest: float = math.inf
    ) -> list[QueuedItem]:
        self._expire()
        batch = self._scheduler.next_batch(interactive_only=interactive_only, most_tokens=most_tokens, largest=largest)
        self._mark_urgent()
        self._mark_started(batch)
        return batch

    def _fair_share(self) -> int:
        """Tokens of a batch when what waits is cut into equal ones: as few as may be, yet one for each idle runner.

        A batch of all that fits would leave a small one behind it, which takes longer for each token.
        """
        tokens = self._scheduler.tokens
        batches = max(self._ready_runners(), -(-tokens // self._max_tokens))
        return -(-tokens // batches)

    def _even_share(self) -> int:
        """The fair share, yet no more than an equal one of all work, with what the other runners compute."""
        computing = [taken for taken in self._computing.values() if taken]
        even = -(-(self._scheduler.tokens + sum(computing)) // (self._ready_runners() + len(computing)))
        return min(self._fair_share(), even)

    def _ready_runners(self) -> int:
        """How many runners could share what waits: the asking one, and idle ones where the work is worth them."""
        return max(min(1 + len(self._idle), self._runners_worth()), 1)

    def _has_work_beside(self, computing: int) -> bool:
        """Whether the work is worth one more runner; any work is while none computes."""
        return self._runners_worth() > 0 or (self._scheduler.items > 0 and computing == 0)

    def _runners_worth(self) -> int:
        """How many runners the waiting work is worth."""
        tokens = self._scheduler.tokens
        return int(max(tokens / _RUNNER_TOKENS, tokens * self.token_s / _RUNNER_S))

    def _wake_for_work(self) -> None:
        """Wake one idle runner if the work is worth it. That one wakes the next."""
        if self._idle and self._has_work_beside(computing=self._runners - len(self._idle)):
            self._idle.pop().notify()

    def _wait_for_work(self, *, first: bool) -> None:
        wakeup = threading.Condition(self._lock)
        self._idle.insert(len(self._idle) if first else 0, wakeup)
        wakeup.wait()

    def _expire(self) -> None:
        for request in self._scheduler.expired(self._clock()):
            self._scheduler.remove(request)
            request.fail(DeadlineExceeded("the request's time ran out in the queue"))

    def _mark_started(self, batch: Sequence[QueuedItem]) -> None:
        now = self._clock()
        for request, _ in batch:
            if request.started is None:
                request.started = now
                self._queue_wait.observe(now - request.submitted)

    def _mark_urgent(self) -> None:
        self.urgent[0] = self._scheduler.interactive_items > 0
