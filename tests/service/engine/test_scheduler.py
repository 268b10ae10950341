"""Which items run next: tables of cases, and properties that hold for all arrivals."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.engine.request import Request
from service.engine.scheduler import BatchLimits, Queue, QueuedItem, Scheduler
from service.metrics import Metrics
from tests.fakes.item import Piece, request

LIMITS = BatchLimits(max_tokens=100, max_items=6, max_padding=0.25, free_padding_tokens=8, interactive_tokens=40)


def scheduler(*requests: Request, limits: BatchLimits = LIMITS) -> Scheduler:
    made = Scheduler(limits)
    for one in requests:
        made.add(one)
    return made


def counts(batch: list[QueuedItem]) -> list[int]:
    return [owner.items[index].count for owner, index in batch]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([], []),
        ([[10]], [10]),
        ([[500]], [500]),  # alone, though it is over the limit
        ([[10], [10], [10]], [10, 10, 10]),  # several callers share a batch
        ([[5] * 8], [5] * 6),  # at most six items
        ([[30] * 4], [30] * 3),  # at most 100 tokens
        ([[20, 50, 21]], [50]),  # longest first, and 21 beside 50 would be padding
        ([[50, 45, 44]], [50, 45]),  # like lengths go together
        ([[10], [40], [11]], [10, 11]),  # the first in line, and what goes well with it
        ([[10], [60, 60]], [10]),  # interactive and bulk apart
    ],
)
def test_batches(waiting: list[list[int]], expected: list[int]) -> None:
    assert counts(scheduler(*(request(*each) for each in waiting)).next_batch()) == expected


@pytest.mark.parametrize(("look_ahead", "expected"), [(2, [50]), (3, [50, 45])])
def test_a_batch_looks_past_few_requests_that_do_not_fit(look_ahead: int, expected: list[int]) -> None:
    limits = BatchLimits(max_tokens=100, look_ahead=look_ahead, interactive_tokens=0)
    waiting = [request(size) for size in (50, 51, 52, 45)]
    assert counts(scheduler(*waiting, limits=limits).next_batch()) == expected


def test_padding_counts_towards_the_limit() -> None:
    limits = BatchLimits(max_tokens=100, max_padding=1.0, interactive_tokens=1000)
    assert counts(scheduler(request(50, 10, 10), limits=limits).next_batch()) == [50, 10]


def test_where_nothing_is_padded_tokens_alone_count() -> None:
    limits = BatchLimits(max_tokens=100, max_padding=0.0, free_padding_tokens=0, interactive_tokens=1000, pads=False)
    assert counts(scheduler(request(50, 10, 30, 20), limits=limits).next_batch()) == [50, 30, 20]


def test_a_single_query_behind_2048_others_is_in_the_next_batch() -> None:
    bulk, single = request(*[30] * 2048, client="bulk"), request(12, client="chat")
    queue = scheduler(bulk)
    queue.next_batch()
    queue.add(single)
    assert queue.next_batch() == [(single, 0)]


def test_a_small_request_is_bulk_where_its_caller_says_so() -> None:
    queue = Scheduler(LIMITS)
    small = Request([Piece(0, 10)], 2, bulk=True)
    queue.add(small)
    assert not small.interactive
    assert queue.next_batch(interactive_only=True) == []
    assert queue.next_batch() == [(small, 0)]


def test_interactive_only_leaves_bulk_alone() -> None:
    queue = scheduler(request(*[30] * 9), request(12))
    assert counts(queue.next_batch(interactive_only=True)) == [12]
    assert queue.next_batch(interactive_only=True) == []
    assert queue.items == 9


def drained(queue: Scheduler, batches: int) -> Counter[str]:
    """Tokens by client over so many batches."""
    served: Counter[str] = Counter()
    for _ in range(batches):
        for owner, index in queue.next_batch():
            served[owner.client] += owner.items[index].count
    return served


def test_two_bulk_clients_get_equal_tokens() -> None:
    queue = scheduler(request(*[20] * 500, client="a"), request(*[45] * 500, client="b"))
    served = drained(queue, 100)
    assert abs(served["a"] - served["b"]) <= 200  # two batches' worth


def test_many_requests_of_one_client_do_not_beat_one_of_another() -> None:
    many = [request(*[25] * 100, client="many") for _ in range(8)]
    queue = scheduler(*many, request(*[25] * 400, client="one"))
    served = drained(queue, 60)
    assert 0.4 < served["one"] / served.total() < 0.6


@pytest.mark.parametrize(("requests", "items"), [(8, 400), (40, 40), (100, 40), (100, 400)])
def test_many_requests_of_one_client_take_turns_with_one_of_another(requests: int, items: int) -> None:
    many = [request(*[12] * items, client="many") for _ in range(requests)]
    queue = scheduler(*many, request(*[12] * 168, client="one"), limits=BatchLimits(max_tokens=504, pads=False))
    assert drained(queue, 8)["one"] == 4 * 504


def test_a_request_does_not_wait_for_those_of_its_client_that_were_removed() -> None:
    many = [request(*[12] * 40, client="many") for _ in range(100)]
    queue = scheduler(*many, request(*[12] * 400, client="one"), limits=BatchLimits(max_tokens=504, pads=False))
    for gone in many[:-1]:
        queue.remove(gone)
    assert any(owner is many[-1] for _ in range(2) for owner, _ in queue.next_batch())


def test_a_steady_stream_of_queries_does_not_starve_a_bulk_request() -> None:
    bulk = request(*[25] * 40, client="bulk")
    queue = scheduler(bulk)
    for _ in range(60):
        for _ in range(4):
            queue.add(request(20, client="chat"))
        queue.next_batch()
    assert not any(owner is bulk for owner, _ in drain_all(queue)), (
        "after so many batches the bulk request must be done"
    )


def drain_all(queue: Scheduler) -> list[QueuedItem]:
    slots: list[QueuedItem] = []
    while batch := queue.next_batch():
        slots += batch
    return slots


def test_removed_requests_never_run() -> None:
    gone, stays = request(10, 10), request(10)
    queue = scheduler(gone, stays)
    assert queue.remove(gone) == 2
    assert queue.remove(gone) == 0
    assert drain_all(queue) == [(stays, 0)]


def test_a_half_served_request_can_be_removed() -> None:
    long = request(*[60] * 3)
    queue = scheduler(long)
    queue.next_batch()
    assert queue.remove(long) == 2
    assert (queue.items, queue.tokens, queue.next_batch()) == (0, 0, [])


def test_expired_names_those_whose_time_is_up() -> None:
    late, timely, patient = request(10, deadline=5.0), request(10, deadline=9.0), request(10)
    queue = scheduler(late, timely, patient)
    assert queue.expired(4.9) == []
    assert queue.expired(5.0) == [late]


def test_drain_empties_the_queue() -> None:
    waiting = [request(10), request(60, 60)]
    queue = scheduler(*waiting)
    assert queue.drain() == waiting
    assert (queue.items, queue.tokens, queue.interactive_items, queue.next_batch()) == (0, 0, 0, [])


def test_a_request_may_be_queued_in_part() -> None:
    queue = Scheduler(LIMITS)
    one = request(10, 20, 30)
    queue.add(one, [2])
    assert queue.next_batch() == [(one, 2)]


@given(st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=12), max_size=12))
def test_everything_runs_exactly_once_within_the_limits(waiting: list[list[int]]) -> None:
    requests = [request(*each, client=str(number % 3)) for number, each in enumerate(waiting)]
    queue = scheduler(*requests)
    seen: list[tuple[int, int]] = []
    while queue.items:
        batch = queue.next_batch()
        assert batch, "work waits, so there is a batch"
        sizes = counts(batch)
        assert len(batch) == 1 or LIMITS.admits(len(batch), sum(sizes), max(sizes))
        assert len({owner.interactive for owner, _ in batch}) == 1
        seen += [(owner.number, index) for owner, index in batch]
    assert sorted(seen) == sorted((one.number, index) for one in requests for index in range(len(one.items)))


class QueueMachine(RuleBasedStateMachine):
    """Any order of adding, taking and removing keeps the books right and starves nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Scheduler(LIMITS)
        self.waiting: dict[int, tuple[Request, set[int]]] = {}

    @rule(sizes=st.lists(st.integers(1, 110), min_size=1, max_size=8), client=st.sampled_from("abc"))
    def add(self, sizes: list[int], client: str) -> None:
        one = request(*sizes, client=client)
        self.queue.add(one)
        self.waiting[one.number] = (one, set(range(len(sizes))))

    @rule(interactive_only=st.booleans())
    def take(self, interactive_only: bool) -> None:
        could = [one for one, _ in self.waiting.values() if one.interactive or not interactive_only]
        batch = self.queue.next_batch(interactive_only=interactive_only)
        assert bool(batch) == bool(could)
        for owner, index in batch:
            _, left = self.waiting[owner.number]
            left.remove(index)
            if not left:
                del self.waiting[owner.number]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        one, left = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
        assert self.queue.remove(one) == len(left)

    @invariant()
    def the_books_are_right(self) -> None:
        items = [(one, index) for one, left in self.waiting.values() for index in left]
        assert self.queue.items == len(items)
        assert self.queue.tokens == sum(one.items[index].count for one, index in items)
        assert self.queue.interactive_items == sum(one.interactive for one, _ in items)


TestQueue = pytest.mark.slow(QueueMachine.TestCase)
TestQueue.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.parametrize("waiting", [[[0]], [[0, 0]], [[0], [0, 3]]])
def test_items_without_cost_are_given_out_whatever_the_share(waiting: list[list[int]]) -> None:
    queue = scheduler(*(request(*items) for items in waiting))
    assert queue.next_batch(most_tokens=0)


@pytest.mark.parametrize("sizes", [[12] * 32, [12], [60, 12, 12]])
def test_requests_are_served_one_after_the_other(sizes: list[int]) -> None:
    limits = BatchLimits(max_tokens=512, pads=False)
    first, second = request(*sizes), request(*sizes)
    queue = scheduler(first, second, limits=limits)
    batches = [queue.next_batch(most_tokens=sum(sizes)) for _ in range(2)]
    assert [{owner for owner, _ in batch} for batch in batches] == [{first}, {second}]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (32, 32),
        (36, 36),  # the request would wait for four texts
        (37, 32),
        (64, 32),
    ],
)
def test_a_small_rest_of_a_request_goes_along(texts: int, expected: int) -> None:
    queue = scheduler(request(*[12] * texts), limits=BatchLimits(max_tokens=512, pads=False))
    assert len(queue.next_batch(most_tokens=32 * 12)) == expected


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (1, [12]),
        (42, [504]),
        (44, [264, 264]),  # not 504 and 24
        (64, [384, 384]),  # not 504 and 264
        (96, [384, 384, 384]),
    ],
)
def test_what_waits_is_cut_into_few_equal_batches(waiting: int, expected: list[int]) -> None:
    queue = Queue("even", BatchLimits(max_tokens=512, pads=False), Metrics(), time.monotonic, runners=1)
    one = request(*[12] * waiting)
    queue.add(one, list(range(waiting)))
    sizes = []
    while queue.waiting[0]:
        sizes.append(sum(counts(queue.take() or [])))
    assert sizes == expected


def test_a_batch_is_no_larger_than_those_beside_it() -> None:
    queue = Queue("even", BatchLimits(max_tokens=512, pads=False), Metrics(), time.monotonic, runners=2)
    sizes = []
    for runner, waiting in [(0, 11), (1, 33), (0, 11)]:
        for _ in range(waiting):
            queue.add(request(12), [0])
        sizes.append(len(queue.take(runner) or []))
    assert sizes == [11, 22, 22]


def test_a_batch_that_overtakes_may_be_larger_than_those_beside_it() -> None:
    queue = Queue("even", BatchLimits(max_tokens=512, pads=False), Metrics(), time.monotonic, runners=1)
    queue.add(request(60), [0])
    assert counts(queue.take() or []) == [60]
    for _ in range(40):
        queue.add(request(12), [0])
    assert len(queue.take_urgent()) == 40
