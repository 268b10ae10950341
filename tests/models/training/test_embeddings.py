"""Embeddings are computed once, kept by content, and bounded on disk."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from models.linalg import normalize
from models.training.embeddings import Embedder, EmbeddingCache
from tests.fakes.model import FakeModel

TEXTS = ["where is my card", "hello", "where is my card", "I want a refund please and soon", "hello there"]


def rows(count: int, width: int = 4) -> list[tuple[bytes, np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    return [(index.to_bytes(32, "big"), np.full(width, index, np.float32)) for index in range(count)]


def test_rows_are_unit_vectors_in_the_order_of_the_texts() -> None:
    model = FakeModel()
    embedded = Embedder(model)(TEXTS)
    expected = normalize(model.forward(model.text.encode(TEXTS)))
    np.testing.assert_allclose(embedded, expected, atol=1e-6)


def test_equal_texts_are_encoded_once_and_long_ones_first() -> None:
    model = FakeModel()
    Embedder(model)(TEXTS)
    counts = [item.count for batch in model.batches for item in batch]
    assert len(counts) == 4
    assert counts == sorted(counts, reverse=True)


def test_no_text_is_no_row() -> None:
    assert Embedder(FakeModel())([]).shape == (0, 16)


def test_a_second_embedder_finds_what_the_first_kept(tmp_path: Path) -> None:
    first = Embedder(FakeModel(), EmbeddingCache(tmp_path))
    second = Embedder(FakeModel(), EmbeddingCache(tmp_path))
    made = first(TEXTS)
    found = second([*TEXTS, "new"])
    assert np.array_equal(made, found[:-1])
    assert (first.computed, second.computed) == (4, 1)


def test_each_spelling_has_a_row_of_its_own_because_tokenizers_may_see_whitespace(tmp_path: Path) -> None:
    embedder = Embedder(FakeModel(), EmbeddingCache(tmp_path))
    embedder(["my  card ", "my  card "])
    embedder(["my card"])
    assert embedder.computed == 2


def test_another_version_width_or_prompt_is_another_row(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    Embedder(FakeModel(), cache)(TEXTS)
    wider = Embedder(FakeModel(width=8), cache)
    assert wider(TEXTS).shape == (5, 8)
    assert wider.computed == 4


def test_the_cache_forgets_what_was_longest_unused(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, max_bytes=10 * 16)
    cache.put(rows(8))
    cache.get([key for key, _ in rows(3)], 4)
    cache.put(
        [(b"n" * 32, np.ones(4, np.float32)), (b"m" * 32, np.ones(4, np.float32)), (b"o" * 32, np.ones(4, np.float32))]
    )
    assert cache.size_bytes() <= 10 * 16
    kept = cache.get([key for key, _ in rows(8)] + [b"n" * 32, b"m" * 32, b"o" * 32], 4)
    assert {b"n" * 32, b"m" * 32, b"o" * 32} | {key for key, _ in rows(3)} <= set(kept)


def test_a_row_of_another_width_counts_as_missing(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put(rows(2, width=4))
    assert cache.get([key for key, _ in rows(2)], 5) == {}


def test_more_keys_than_one_statement_takes(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put(rows(2500))
    found = cache.get([key for key, _ in rows(2500)], 4)
    assert len(found) == 2500
    assert float(found[(7).to_bytes(32, "big")][0]) == 7.0


def test_several_threads_share_a_cache(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(start: int) -> None:
        try:
            EmbeddingCache(tmp_path).put(rows(40)[start::4])
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert len(EmbeddingCache(tmp_path).get([key for key, _ in rows(40)], 4)) == 40


def test_what_was_encoded_before_a_failure_is_kept(tmp_path: Path) -> None:
    texts = [f"text number {index}" for index in range(1300)]
    calls = 0

    def fail(batch: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        Embedder(FakeModel(fault=fail), EmbeddingCache(tmp_path))(texts)
    again = Embedder(FakeModel(), EmbeddingCache(tmp_path))
    again(texts)
    assert again.computed < 1300
