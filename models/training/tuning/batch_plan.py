"""Batch plans of a whole training run, as pure functions of the rows and a seed."""

from __future__ import annotations

import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

Plan = list[list[int]]
Epoch = Callable[[random.Random], Plan]

# Groups skipped in search of another label; without a limit, planning few labels would take quadratic time.
_LOOK_AHEAD = 256


def plan(epoch: Epoch, *, epochs: float, seed: int, max_steps: int | None = None) -> Plan:
    """The batches (row indices) of `epochs` passes; a fraction ends within a pass.

    Each epoch has its own generator, so a resumed run has the same batches as an uninterrupted one.
    """
    steps: Plan = []
    for number in range(math.ceil(epochs)):
        batches = epoch(random.Random(f"{seed}:{number}"))
        share = min(epochs - number, 1.0)
        steps += batches[: max(round(len(batches) * share), 1)]
    return steps if max_steps is None else steps[:max_steps]


def in_order(rows: int, batch_size: int) -> Plan:
    """Every row once, in order."""
    return _slices(list(range(rows)), batch_size)


def shuffled(rows: int, batch_size: int) -> Epoch:
    """Every row once an epoch; the last batch may be small."""

    def epoch(rng: random.Random) -> Plan:
        order = list(range(rows))
        rng.shuffle(order)
        return _slices(order, batch_size)

    return epoch


def by_label(labels: Sequence[str], batch_size: int, each: int = 2) -> Epoch:
    """Every row once an epoch, in groups of one label, several labels a batch.

    A group has `each` rows, the last of a label up to twice that. Losses over labels need positives and negatives in
    every batch; labels with a single row bring no positive and are left out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)

    def epoch(rng: random.Random) -> Plan:
        groups = [group for label in sorted(members) for group in _group(rng, members[label], each)]
        rng.shuffle(groups)
        return _pack(groups, labels, batch_size)

    return epoch


def no_duplicates(columns: Sequence[Sequence[str]], batch_size: int) -> Epoch:
    """Every row once an epoch, and no text twice in a batch.

    A copy of the positive would count as a negative. Rows that fit no other batch end in small ones; single rows,
    which have no negative, are left out.
    """
    texts = [frozenset(row) for row in zip(*columns, strict=True)]

    def epoch(rng: random.Random) -> Plan:
        order = list(range(len(texts)))
        rng.shuffle(order)
        waiting = deque(order)
        batches: Plan = []
        while waiting:
            batches.append(_take_distinct(waiting, texts, batch_size))
        return [batch for batch in batches if len(batch) > 1]

    return epoch


def _slices(order: list[int], batch_size: int) -> Plan:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _take_distinct(waiting: deque[int], texts: Sequence[frozenset[str]], batch_size: int) -> list[int]:
    """Take the first rows that share no text; the skipped ones stay at the front."""
    batch: list[int] = []
    skipped: list[int] = []
    seen: set[str] = set()
    while waiting and len(batch) < batch_size:
        row = waiting.popleft()
        if seen.isdisjoint(texts[row]):
            batch.append(row)
            seen |= texts[row]
        else:
            skipped.append(row)
    waiting.extendleft(reversed(skipped))
    return batch


def _group(rng: random.Random, rows: Sequence[int], each: int) -> Iterator[list[int]]:
    """Rows of one label in groups of at least `each`; none for a single row."""
    order = list(rows)
    rng.shuffle(order)
    number = max(len(order) // each, 1)
    if len(order) > 1:
        yield from (order[start::number] for start in range(number))


def _pack(groups: list[list[int]], labels: Sequence[str], batch_size: int) -> Plan:
    """Batches of up to `batch_size` rows, of several labels."""
    batches: Plan = []
    waiting = deque(groups)
    while waiting:
        batch = _take_varied(waiting, labels, batch_size)
        if len({labels[row] for row in batch}) == 1 and batches:
            # One label alone has no negatives: its rows join the batch before.
            batches[-1] += batch
        else:
            batches.append(batch)
    return batches


def _take_varied(waiting: deque[list[int]], labels: Sequence[str], batch_size: int) -> list[int]:
    """Take the next groups that fit, new labels first; the skipped ones stay at the front."""
    batch: list[int] = []
    skipped: deque[list[int]] = deque()
    used: set[str] = set()
    while waiting and len(skipped) < _LOOK_AHEAD and _fits(batch, waiting[0], batch_size):
        group = waiting.popleft()
        if labels[group[0]] in used:
            skipped.append(group)
        else:
            batch += group
            used.add(labels[group[0]])
    while skipped and len(used) > 1 and _fits(batch, skipped[0], batch_size):
        batch += skipped.popleft()
    waiting.extendleft(reversed(skipped))
    return batch


def _fits(batch: list[int], group: list[int], batch_size: int) -> bool:
    return not batch or len(batch) + len(group) <= batch_size
