"""Hard negatives: texts that the encoder takes for an answer and that are none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.training.data.rows import TextRows, normalised

Floats = NDArray[np.float32]

# A candidate nearly as near as the positive is, more often than not, an answer that nobody marked (Moreira et al.,
# NV-Retriever, 2024: keep what scores below 95 % of the positive).
_BELOW_POSITIVE = 0.95
_SAME_AS_POSITIVE = 0.95
_CANDIDATES = 64
_ROWS_AT_ONCE = 1024


def mine(rows: TextRows, embed: Callable[[Sequence[str]], Floats], each: int, *, seed: int) -> TextRows:
    """Pairs → triplets with the `each` nearest wrong positives of other anchors as negatives, one row for each.

    Never taken: any positive of the same anchor, the anchor itself, near-positives. An anchor for which nothing is
    left gets a random text, so that no pair is lost. Needs two different positives, else ValueError.
    """
    if rows.kind != "pairs":
        raise ValueError(f"expected pairs, got {rows.kind}")
    anchors, positives = rows.texts
    pool = list({normalised(text): text for text in positives}.values())
    vectors, candidates, own = embed(anchors), embed(pool), embed(positives)
    banned = _banned(anchors, positives, pool)
    if all(len(ban) == len(pool) for ban in banned.values()):
        raise ValueError("no anchor has a text that is not its own positive")
    rng = random.Random(f"{seed}:negatives")
    chosen: list[tuple[int, str]] = []
    for start in range(0, len(anchors), _ROWS_AT_ONCE):
        part = range(start, min(start + _ROWS_AT_ONCE, len(anchors)))
        similarity, to_positive = vectors[start : part.stop] @ candidates.T, own[start : part.stop] @ candidates.T
        for place, row in enumerate(part):
            ban = banned[normalised(anchors[row])]
            limit = _BELOW_POSITIVE * float(vectors[row] @ own[row])
            picked = _nearest(similarity[place], to_positive[place], limit, ban)[:each]
            chosen += [(row, pool[number]) for number in picked or _any_other(len(pool), ban, rng)]
    taken = rows.take([row for row, _ in chosen])
    return TextRows("triplets", [*taken.texts, [text for _, text in chosen]], None, None, taken.lines, rows.notes)


def _banned(anchors: Sequence[str], positives: Sequence[str], pool: Sequence[str]) -> dict[str, set[int]]:
    """For each anchor the pool's texts that are its positives or itself."""
    number = {normalised(text): index for index, text in enumerate(pool)}
    banned: dict[str, set[int]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        key = normalised(anchor)
        banned.setdefault(key, {number[key]} if key in number else set()).add(number[normalised(positive)])
    return banned


def _nearest(similarity: Floats, to_positive: Floats, limit: float, banned: set[int]) -> list[int]:
    """The pool's texts nearest to an anchor, near-positives left out."""
    allowed = (similarity < limit) & (to_positive < _SAME_AS_POSITIVE)
    allowed[list(banned)] = False
    found = np.flatnonzero(allowed)
    order = np.argsort(-similarity[found], kind="stable")[:_CANDIDATES]
    return [int(index) for index in found[order]]


def _any_other(size: int, banned: set[int], rng: random.Random) -> list[int]:
    free = [index for index in range(size) if index not in banned]
    return [rng.choice(free)] if free else []
