"""Which rows make a batch: plans of a whole training run, each a pure function of the rows and a seed."""

from __future__ import annotations

import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

Plan = list[list[int]]

# How many groups are passed over in search of another label; without a bound, planning would be quadratic for few
# labels.
_LOOK_AHEAD = 256


def plan(one_epoch: Callable[[random.Random], Plan], *, epochs: float, seed: int, max_steps: int | None = None) -> Plan:
    """The batches of `epochs` passes, row indices for each step; a broken pass (2.5) ends in its middle.

    Every epoch draws from a generator of its own, so a resumed run has the very batches of an uninterrupted one.
    """
    steps: Plan = []
    for epoch in range(math.ceil(epochs)):
        batches = one_epoch(random.Random(f"{seed}:{epoch}"))
        share = min(epochs - epoch, 1.0)
        steps += batches[: max(round(len(batches) * share), 1)]
    return steps if max_steps is None else steps[:max_steps]


def shuffled(rows: int, batch_size: int) -> Callable[[random.Random], Plan]:
    """Every row once an epoch; the last batch may be small."""

    def epoch(rng: random.Random) -> Plan:
        order = list(range(rows))
        rng.shuffle(order)
        return [order[start : start + batch_size] for start in range(0, rows, batch_size)]

    return epoch


def by_label(labels: Sequence[str], batch_size: int, each: int = 2) -> Callable[[random.Random], Plan]:
    """Every row once an epoch, in groups of `each` (the last of a label up to twice that) of one label, several
    labels a batch.

    Losses over labels need positives and negatives in every batch; labels with a single row bring no positive and
    are left out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)

    def epoch(rng: random.Random) -> Plan:
        groups = [group for label in sorted(members) for group in _groups(rng, members[label], each)]
        rng.shuffle(groups)
        return _packed(groups, labels, batch_size)

    return epoch


def no_duplicates(columns: Sequence[Sequence[str]], batch_size: int) -> Callable[[random.Random], Plan]:
    """Every row once an epoch and no text twice in a batch: in-batch negatives would call the twin of a positive a
    negative.

    Rows that fit no batch with others end in small ones; single rows, which have no negative, are left out.
    """
    texts = [frozenset(row) for row in zip(*columns, strict=True)]

    def epoch(rng: random.Random) -> Plan:
        order = list(range(len(texts)))
        rng.shuffle(order)
        waiting = deque(order)
        batches: Plan = []
        while waiting:
            batches.append(_distinct(waiting, texts, batch_size))
        return [batch for batch in batches if len(batch) > 1]

    return epoch


def _distinct(waiting: deque[int], texts: Sequence[frozenset[str]], batch_size: int) -> list[int]:
    """Take the first rows that share no text; those passed over stay at the front."""
    batch: list[int] = []
    passed: list[int] = []
    seen: set[str] = set()
    while waiting and len(batch) < batch_size:
        row = waiting.popleft()
        if seen.isdisjoint(texts[row]):
            batch.append(row)
            seen |= texts[row]
        else:
            passed.append(row)
    waiting.extendleft(reversed(passed))
    return batch


def _groups(rng: random.Random, rows: Sequence[int], each: int) -> Iterator[list[int]]:
    """Rows of one label in groups of at least `each`; none for a single row."""
    order = list(rows)
    rng.shuffle(order)
    number = max(len(order) // each, 1)
    if len(order) > 1:
        yield from (order[start::number] for start in range(number))


def _packed(groups: list[list[int]], labels: Sequence[str], batch_size: int) -> Plan:
    """Groups in batches of up to `batch_size` rows, of as many labels as come."""
    batches: Plan = []
    waiting = deque(groups)
    while waiting:
        batch = _varied(waiting, labels, batch_size)
        if len({labels[row] for row in batch}) == 1 and batches:
            # One label alone has no negatives: its rows join the batch before.
            batches[-1] += batch
        else:
            batches.append(batch)
    return batches


def _varied(waiting: deque[list[int]], labels: Sequence[str], batch_size: int) -> list[int]:
    """Take the next groups that fit, those of labels not yet in the batch first; those passed over stay at the
    front.
    """
    batch: list[int] = []
    passed: deque[list[int]] = deque()
    used: set[str] = set()
    while waiting and len(passed) < _LOOK_AHEAD and _fits(batch, waiting[0], batch_size):
        group = waiting.popleft()
        if labels[group[0]] in used:
            passed.append(group)
        else:
            batch += group
            used.add(labels[group[0]])
    while passed and len(used) > 1 and _fits(batch, passed[0], batch_size):
        batch += passed.popleft()
    waiting.extendleft(reversed(passed))
    return batch


def _fits(batch: list[int], group: list[int], batch_size: int) -> bool:
    return not batch or len(batch) + len(group) <= batch_size
