"""Data checks of copies: within the training part, and between it and the held-out part."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.counted import counted
from models.training.checks.wording import warn_if
from models.training.data.rows import TextRows, normalized
from models.training.report import Finding, Status

Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]

# The vectors of two images of one kind are nearer to each other than those of texts.
NEAR_COSINE = {"texts": 0.97, "images": 0.99}
MAX_DUPLICATES = 0.05
MAX_NEAR_DUPLICATES = 0.10
MAX_LEAKS = 0.10
MAX_NEAR_LEAKS = 0.20
# Comparing every row with every other grows with the square: 10,000 rows take some seconds on a core.
_COMPARED = 10_000
# Similarities held at a time: 64 MiB.
_BLOCK_CELLS = 1 << 24


def check_duplicates(train: TextRows) -> Finding:
    """Count rows that repeat an earlier one."""
    seen: dict[str, int] = {}
    rows = [line for key, line in zip(row_keys(train), train.lines, strict=True) if seen.setdefault(key, line) != line]
    suffix = " (case and punctuation aside)" if train.inputs == "texts" else ""
    share = counted(len(rows), f"of {len(train)} rows repeats", f"of {len(train)} rows repeat")
    message = f"{share} an earlier one{suffix}."
    return _finding(
        "exact_duplicates", rows, len(train), MAX_DUPLICATES, message, "Remove the copies: they count twice."
    )


def check_near_duplicates(train: TextRows, x: Vectors) -> Finding:
    """Count rows close to an earlier, different text, by unit vectors float32 [n, d].

    Pairs and triplets are compared by their first text; their other texts must be equal.
    """
    keys = np.array(_numbered(map(normalized, train.texts[0])))
    others = np.array(_numbered(zip(*train.texts[1:], strict=True)) or [0] * len(train))
    compared, cosine = min(len(train), _COMPARED), NEAR_COSINE[train.inputs]
    rows = [
        train.lines[row]
        for row, near in _near_rows(x[:_COMPARED], x[:_COMPARED], cosine)
        if ((near < row) & (keys[near] != keys[row]) & (others[near] == others[row])).any()
    ]
    close = counted(len(rows), f"of {compared} compared rows is", f"of {compared} compared rows are")
    message = f"{close} close to an earlier one (cosine {cosine} or more)."
    remedy = "Keep one of each; varied rows teach more."
    return _finding("near_duplicates", rows, compared, MAX_NEAR_DUPLICATES, message, remedy)


def check_leaks(train: TextRows, held_out: TextRows) -> Finding:
    """Count held-out rows that the training part has too."""
    known = dict(zip(row_keys(train), train.lines, strict=True))
    rows = [known[key] for key in row_keys(held_out) if key in known]
    share = len(rows) / max(len(held_out), 1)
    message = (
        f"{len(rows)} of {len(held_out)} held-out rows are also training rows (the lines of those are named). Each "
        f"one flatters the figures; more than {MAX_LEAKS:.0%} end the job."
    )
    status: Status = "ok" if not rows else "fail" if share > MAX_LEAKS else "warn"
    remedy = "Remove these rows from one of the parts: the evaluation would reward memory."
    return Finding.of("data", "leaks", status, share, MAX_LEAKS, message, remedy, rows)


def check_near_leaks(train: TextRows, held_out: TextRows, x: Vectors, other: Vectors) -> Finding:
    """Count held-out rows close to a training row, by unit vectors [m, d] and [n, d]."""
    cosine = NEAR_COSINE[train.inputs]
    rows = [train.lines[near[0]] for _, near in _near_rows(other[:_COMPARED], x, cosine)]
    compared = min(len(held_out), _COMPARED)
    message = (
        f"{len(rows)} of {compared} held-out rows are close to a training row (cosine {cosine} or more; the lines "
        "of those are named)."
    )
    groups = "conversations, users or templates" if train.inputs == "texts" else "parts, days or cameras"
    remedy = f"Hold out whole {groups}, so that near copies stay on one side."
    return _finding("near_leaks", rows, compared, MAX_NEAR_LEAKS, message, remedy)


def _numbered(values: Iterable[Hashable]) -> list[int]:
    """A number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def row_keys(rows: TextRows) -> list[str]:
    """Each row's texts as one string, case and punctuation aside."""
    return ["\n".join(map(normalized, texts)) for texts in zip(*rows.texts, strict=True)]


def _near_rows(x: Vectors, reference: Vectors, cosine: float) -> Iterator[tuple[int, Indices]]:
    """Each row of x within `cosine` of rows of the reference, with those; all rows can be close to all others."""
    block = max(_BLOCK_CELLS // max(len(reference), 1), 1)
    with threadpool_limits(limits=1, user_api="blas"):
        for start in range(0, len(x), block):
            close = x[start : start + block] @ reference.T >= cosine
            for row in np.flatnonzero(close.any(axis=1)).tolist():
                yield start + row, np.flatnonzero(close[row])


def _finding(check: str, rows: Iterable[int], total: int, limit: float, message: str, remedy: str) -> Finding:
    """A warning where the share of rows exceeds the limit."""
    lines = list(rows)
    share = len(lines) / total
    message = f"{message} The limit is {limit:.0%}."
    return Finding.of("data", check, warn_if(share > limit), share, limit, message, remedy, lines)
