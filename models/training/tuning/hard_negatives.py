"""Hard negatives: texts that an encoder mistakes for the positive of an anchor."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.training.data.rows import TextRows, normalized

Floats = NDArray[np.float32]

# A candidate nearly as near as the positive is usually a positive that the file does not mark (Moreira et al.,
# NV-Retriever, 2024: keep candidates below 95 % of the positive's score).
_MAX_OF_POSITIVE = 0.95
_MAX_TO_POSITIVE = 0.95
_CANDIDATES = 64
_BLOCK = 1024


def mine_hard_negatives(rows: TextRows, embed: Callable[[Sequence[str]], Floats], each: int, *, seed: int) -> TextRows:
    """Turn pairs into triplets with hard negatives.

    The `each` nearest positives of other anchors are an anchor's negatives, one row for each. Left out are the anchor
    itself, all of its positives, and texts close to them. An anchor without a candidate gets a random text, so that no
    pair is lost. Raises ValueError without two different positives.
    """
    if rows.kind != "pairs":
        raise ValueError(f"expected pairs, got {rows.kind}")
    anchors, positives = rows.texts
    pool = list({normalized(text): text for text in positives}.values())
    excluded = _excluded(anchors, positives, pool)
    if all(len(own) == len(pool) for own in excluded.values()):
        raise ValueError("no anchor has a text that is not its own positive")
    vectors, candidates, own_vectors = embed(anchors), embed(pool), embed(positives)
    rng = random.Random(f"{seed}:negatives")
    chosen: list[tuple[int, str]] = []
    for start in range(0, len(anchors), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity, to_positive = vectors[block] @ candidates.T, own_vectors[block] @ candidates.T
        for place, row in enumerate(range(start, min(start + _BLOCK, len(anchors)))):
            own = excluded[normalized(anchors[row])]
            limit = _MAX_OF_POSITIVE * float(vectors[row] @ own_vectors[row])
            nearest = _nearest(similarity[place], to_positive[place], limit, own)[:each]
            chosen += [(row, pool[number]) for number in nearest or _random_other(len(pool), own, rng)]
    taken = rows.take([row for row, _ in chosen])
    return TextRows("triplets", [*taken.texts, [text for _, text in chosen]], None, None, taken.lines, rows.notes)


def _excluded(anchors: Sequence[str], positives: Sequence[str], pool: Sequence[str]) -> dict[str, set[int]]:
    """For each anchor, the texts of the pool that are its positives or itself."""
    number = {normalized(text): index for index, text in enumerate(pool)}
    excluded: dict[str, set[int]] = {}
    for anchor, positive in zip(anchors, positives, strict=True):
        key = normalized(anchor)
        excluded.setdefault(key, {number[key]} if key in number else set()).add(number[normalized(positive)])
    return excluded


def _nearest(similarity: Floats, to_positive: Floats, limit: float, excluded: set[int]) -> list[int]:
    """The texts of the pool nearest to an anchor, without those close to its positive."""
    allowed = (similarity < limit) & (to_positive < _MAX_TO_POSITIVE)
    allowed[list(excluded)] = False
    found = np.flatnonzero(allowed)
    order = np.argsort(-similarity[found], kind="stable")[:_CANDIDATES]
    return [int(index) for index in found[order]]


def _random_other(size: int, excluded: set[int], rng: random.Random) -> list[int]:
    free = [index for index in range(size) if index not in excluded]
    return [rng.choice(free)] if free else []
