"""Which labels a classifier takes for which on held-out rows, in bounds that any file keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.errors import shorten

MAX_LABELS, MAX_PAIRS, MAX_EXAMPLES = 30, 20, 3
_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Example:
    """A held-out text, shortened, or an image's name and picture (a data URI), and its line in the file."""

    line: int
    text: str
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """A label and another that it was taken for: in `rows` of its `of` held-out rows."""

    label: str
    taken_for: str
    rows: int
    of: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix and its worst pairs, the most frequent first.

    `counts` [labels][labels] counts rows by true and by predicted label. It has the labels that were confused most;
    `left_out` counts the others.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    left_out: int
    pairs: tuple[ConfusedPair, ...]

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        truth: NDArray[np.int64],
        predicted: NDArray[np.int64],
        texts: Sequence[str],
        lines: Sequence[int],
        picture: Callable[[int], str] | None = None,
    ) -> Confusion:
        """The confusion of class numbers [n] into `labels`; `texts` and `lines` are those of the rows.

        `picture` draws the image of a row.
        """
        rows: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for row, pair in enumerate(zip(truth.tolist(), predicted.tolist(), strict=True)):
            rows[pair].append(row)
        wrong = {pair: found for pair, found in rows.items() if pair[0] != pair[1]}
        shown, occurring = _most_confused(rows, wrong)
        of_label = Counter(truth.tolist())
        pairs = tuple(
            ConfusedPair(
                labels[true],
                labels[taken],
                len(wrong[true, taken]),
                of_label[true],
                tuple(
                    Example(lines[row], shorten(texts[row], _MAX_CHARACTERS), picture(row) if picture else None)
                    for row in wrong[true, taken][:MAX_EXAMPLES]
                ),
            )
            for true, taken in sorted(wrong, key=lambda pair: (-len(wrong[pair]), pair))[:MAX_PAIRS]
        )
        counts = tuple(tuple(len(rows.get((true, taken), ())) for taken in shown) for true in shown)
        return cls(tuple(labels[number] for number in shown), counts, occurring - len(shown), pairs)

    def to_json(self) -> dict[str, Any]:
        """Plain data; examples of texts have no picture."""
        data = asdict(self)
        for pair in data["pairs"]:
            pair["examples"] = [
                {key: value for key, value in one.items() if value is not None} for one in pair["examples"]
            ]
        return data


def _most_confused(
    rows: Mapping[tuple[int, int], list[int]], wrong: Mapping[tuple[int, int], list[int]]
) -> tuple[list[int], int]:
    """The labels of the matrix, in the order of their numbers, and how many labels occur."""
    mistakes: Counter[int] = Counter()
    for pair, found in wrong.items():
        for label in pair:
            mistakes[label] += len(found)
    occurring = sorted({label for pair in rows for label in pair})
    return sorted(sorted(occurring, key=lambda label: -mistakes[label])[:MAX_LABELS]), len(occurring)
