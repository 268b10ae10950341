"""The state of an adaptive detector, and a check of a caller's state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.sensors.adaptive.features import FEATURES, StreamFeatures
from models.sensors.adaptive.running_p_values import RunningPValues
from models.sensors.adaptive.tails import BLOCK, BLOCKS, MAX_RARITY, BlockTails
from models.sensors.base import State

# A column's score looks at the last 5 readings.
WINDOW_ROWS = 5
# Scores this many readings apart share no feature.
INDEPENDENT_ROWS = 8
_MAX_BYTES = 60_000
# Parts of the state whose length varies, and their greatest lengths.
_MAX_ROWS = {"maxima": BLOCKS, "open": BLOCK - 1, "uncounted": INDEPENDENT_ROWS - 1, "recent": WINDOW_ROWS - 1}

RUNNING = RunningPValues(MAX_RARITY, INDEPENDENT_ROWS)


def new_state(columns: int, seasons: tuple[int, ...], unit: NDArray[np.float64]) -> State:
    """The state before the first reading.

    "recent" holds the last rarities, "rest" the quiet rows still to come.
    """
    features, tails = StreamFeatures(columns, seasons, unit), BlockTails(len(FEATURES) * columns)
    memory = features.new_memory() | tails.new_memory() | RUNNING.new_memory()
    return memory | {"recent": np.zeros((0, len(FEATURES), columns)), "rest": np.zeros(1)}


def copy_state(state: State, like: State) -> State:
    """A copy of `state` to update. Raises ValueError unless its shapes are those of `like`."""
    if set(state) != set(like):
        raise ValueError(f"state: expected {', '.join(sorted(like))}, got {', '.join(sorted(state))}")
    for name, part in state.items():
        expected = like[name].shape
        fits = part.shape[1:] == expected[1:] if name in _MAX_ROWS else part.shape == expected
        if not fits or not np.isfinite(part).all():
            raise ValueError(
                f"state: {name}: expected finite numbers of the shape {list(expected)}, got {list(part.shape)}"
            )
        if len(part) > _MAX_ROWS.get(name, len(part)):
            raise ValueError(f"state: {name}: expected at most {_MAX_ROWS[name]} rows, got {len(part)}")
    return dict(state)


def seasons_that_fit(columns: int, seasons: tuple[int, ...]) -> tuple[int, ...]:
    """The seasons that fit the state, without the longest. ValueError for too many columns."""
    each = BlockTails(len(FEATURES)).size + 8 * len(FEATURES)
    room = _MAX_BYTES // 8 - RUNNING.size
    for left_out in range(len(seasons) + 1):
        if sum(seasons[left_out:]) <= room // columns - each:
            return seasons[left_out:]
    raise ValueError(
        f"columns: the adaptive detector takes at most {room // each} columns, got {columns}; train several detectors "
        f"on a few columns each, or choose another detector"
    )
