"""Healthy rows for tests to break, and embeddings without weights."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.training.data.rows import TextRows
from models.training.report import Finding

_TOPICS = {
    "lost_card": ["lost", "missing", "cannot find", "dropped", "misplaced"],
    "top_up": ["top up", "add money", "fund", "load", "deposit"],
    "exchange": ["exchange", "currency", "convert", "euros", "dollars"],
    "pin": ["pin", "passcode", "code", "unblock", "forgot"],
}
_FILLER = [
    "today",
    "yesterday",
    "please",
    "quickly",
    "abroad",
    "holiday",
    "brother",
    "office",
    "train",
    "morning",
    "evening",
    "weekend",
    "urgent",
    "advice",
    "phone",
    "branch",
    "letter",
    "summer",
    "Paris",
    "London",
    "shop",
    "market",
    "again",
    "never",
    "always",
    "somehow",
    "perhaps",
    "maybe",
    "garden",
    "station",
    "airport",
    "hotel",
    "rent",
]


def healthy(count: int = 240, seed: int = 0) -> TextRows:
    """Rows of four classes whose words say which, in random order, no two alike; lines from 1."""
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    names = list(_TOPICS)
    while len(texts) < count:
        label = names[len(texts) % len(names)]
        words = [*rng.sample(_TOPICS[label], 2), *rng.sample(_FILLER, 4)]
        rng.shuffle(words)
        texts.setdefault(" ".join(words), label)
    return TextRows("labelled", [list(texts)], list(texts.values()), None, list(range(1, count + 1)))


def parts(rows: TextRows, held_out: int = 60) -> tuple[TextRows, TextRows]:
    """The first rows to train on, the last held out."""
    return rows.take(range(len(rows) - held_out)), rows.take(range(len(rows) - held_out, len(rows)))


def relabelled(rows: TextRows, places: Iterable[int]) -> TextRows:
    """The rows with wrong labels at some positions."""
    assert rows.labels is not None
    labels, names = list(rows.labels), sorted(set(rows.labels))
    for place in places:
        labels[place] = names[(names.index(labels[place]) + 1) % len(names)]
    return replace(rows, labels=labels)


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """The sum of a fixed random vector for each word, float32 [n, 32]; texts that share words are near."""
    rows = [
        np.sum([np.random.default_rng(zlib.crc32(word.encode())).normal(size=32) for word in text.split()], axis=0)
        for text in texts
    ]
    return np.asarray(rows, dtype=np.float32)


def troubles(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings that warn or fail, by check."""
    return {finding.check: finding for finding in findings if finding.status in ("warn", "fail")}
