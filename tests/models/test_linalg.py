"""Arithmetic on rows: lengths of 1, and fewer dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.linalg import first_occurrences, normalize, shorten

ROWS = arrays.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=st.floats(-1e3, 1e3, width=32)
)


def rows(*values: list[float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_rows_become_of_length_1_and_keep_their_direction() -> None:
    scaled = normalize(rows([3, 4], [0, -2], [0.6, 0.8]))
    np.testing.assert_allclose(scaled, rows([0.6, 0.8], [0, -1], [0.6, 0.8]), rtol=1e-6)


def test_a_zero_row_stays_zero() -> None:
    assert normalize(rows([0, 0], [1, 0])).tolist() == [[0, 0], [1, 0]]


@given(ROWS)
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


def test_shortened_rows_are_of_length_1_only_after_normalising_again() -> None:
    short = shorten(normalize(rows([3, 4, 12])), 2)
    assert np.linalg.norm(short) < 0.5
    np.testing.assert_allclose(normalize(short), [[0.6, 0.8]], rtol=1e-6)


def test_copies_name_the_first_of_their_like() -> None:
    x = normalize(np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32))
    x[1200], x[1400], x[7] = x[3], x[1200], 0.0
    expected = np.arange(1500)
    expected[[1200, 1400]] = 3
    assert np.array_equal(first_occurrences(x), expected)
