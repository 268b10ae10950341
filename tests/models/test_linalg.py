"""Arithmetic on rows: lengths of 1, fewer dimensions, and integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.linalg import Quantization, first_occurrences, normalize, quantize, ranks_of, shorten
from models.probabilities import probabilities

ROWS = arrays.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=st.floats(-1e3, 1e3, width=32)
)


def rows(*values: list[float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_rows_become_of_length_1_and_keep_their_direction() -> None:
    scaled = normalize(rows([3, 4], [0, -2], [0.6, 0.8]))
    np.testing.assert_allclose(scaled, rows([0.6, 0.8], [0, -1], [0.6, 0.8]), rtol=1e-6)


@pytest.mark.parametrize(
    "values", [[2.0, 1.0, 2.0, 3.0, 2.0, 1.0], [5.0], [-0.5, 7.0, 1e300], [], [1.0, np.nan, np.nan]]
)
def test_equal_values_share_their_mean_rank(values: list[float]) -> None:
    np.testing.assert_array_equal(ranks_of(np.array(values)), rankdata(values))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_single_label_is_judged_by_itself(multi_label: bool) -> None:
    found = probabilities(rows([0], [-2]), multi_label=multi_label)
    np.testing.assert_allclose(found, rows([0.5], [1 / (1 + np.e**2)]), rtol=1e-6)


def test_a_zero_row_stays_zero() -> None:
    assert normalize(rows([0, 0], [1, 0])).tolist() == [[0, 0], [1, 0]]


@given(ROWS)
@pytest.mark.slow
def test_every_row_has_length_1_or_is_next_to_nothing(given_rows: NDArray[np.float32]) -> None:
    before = given_rows.copy()
    scaled = normalize(given_rows)
    assert (scaled.dtype, scaled.shape) == (np.dtype(np.float32), given_rows.shape)
    lengths = np.linalg.norm(given_rows, axis=1)
    np.testing.assert_allclose(np.linalg.norm(scaled[lengths > 1e-6], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(given_rows, before)  # not changed in place


@pytest.mark.parametrize(("dimensions", "expected"), [(None, [[1, 2, 3]]), (1, [[1]]), (2, [[1, 2]]), (3, [[1, 2, 3]])])
def test_the_first_dimensions_are_kept_as_they_are(dimensions: int | None, expected: list[list[float]]) -> None:
    assert shorten(rows([1, 2, 3]), dimensions).tolist() == expected


def test_shortened_rows_are_of_length_1_only_after_normalizing_again() -> None:
    short = shorten(normalize(rows([3, 4, 12])), 2)
    assert np.linalg.norm(short) < 0.5
    np.testing.assert_allclose(normalize(short), [[0.6, 0.8]], rtol=1e-6)


def test_copies_name_the_first_of_their_like() -> None:
    x = normalize(np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32))
    x[1200], x[1400], x[7] = x[3], x[1200], 0.0
    expected = np.arange(1500)
    expected[[1200, 1400]] = 3
    assert np.array_equal(first_occurrences(x), expected)


def cosines(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled = normalize(vectors)
    return scaled @ scaled.T


def some_vectors(count: int = 64, width: int = 384) -> NDArray[np.float32]:
    """Unit vectors with a dimension far larger than the others, as some encoders have."""
    drawn = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    drawn[:, 7] += 8
    return normalize(drawn)


@pytest.mark.parametrize(("kind", "shift"), [("int8", 0), ("uint8", 128)])
def test_integers_of_8_bits_keep_cosines(kind: Quantization, shift: int) -> None:
    vectors = some_vectors()
    integers, loss = quantize(vectors, kind)
    assert (integers.dtype, integers.shape) == (np.dtype(kind), vectors.shape)
    np.testing.assert_allclose(cosines(integers.astype(np.float32) - shift), cosines(vectors), atol=0.005)
    assert 0 < loss < 1e-3


@pytest.mark.parametrize("kind", ["binary", "ubinary"])
def test_bits_are_packed_as_sentence_transformers_packs_them(kind: Quantization) -> None:
    from sentence_transformers.util import quantize_embeddings

    vectors = some_vectors()
    integers, loss = quantize(vectors, kind)
    expected = quantize_embeddings(vectors, precision=kind)
    assert integers.dtype == expected.dtype
    np.testing.assert_array_equal(integers, expected)
    assert 0.1 < loss < 0.5


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_the_loss_is_that_of_what_the_integers_say(kind: Quantization) -> None:
    vectors = some_vectors(width=24)
    integers, loss = quantize(vectors, kind)
    wide = integers.astype(np.int64)
    read = {
        "int8": lambda: wide,
        "uint8": lambda: wide - 128,
        "ubinary": lambda: 2 * np.unpackbits(integers.astype(np.uint8), axis=1).astype(np.int64) - 1,
        "binary": lambda: 2 * np.unpackbits((wide + 128).astype(np.uint8), axis=1).astype(np.int64) - 1,
    }[kind]()
    expected = 1 - (normalize(read.astype(np.float32)) * vectors).sum(axis=1).mean()
    assert loss == pytest.approx(expected, abs=1e-5)


def test_a_row_of_zeros_stays_one() -> None:
    assert not quantize(np.zeros((1, 8), np.float32), "int8")[0].any()
