"""The state of an adaptive detector, and a check of a caller's state."""

from __future__ import annotations

import numpy as np

from models.sensors.adaptive.design import DESIGNS, NEWEST, Design
from models.sensors.adaptive.features import StreamFeatures
from models.sensors.adaptive.running_p_values import RunningPValues
from models.sensors.adaptive.tails import BLOCK, BLOCKS, MAX_RARITY, BlockTails
from models.sensors.model import State

# A column's score looks at the last 5 readings.
WINDOW_ROWS = 5
# Scores this many readings apart share no feature.
INDEPENDENT_ROWS = 8
_MAX_BYTES = 64_500
# Parts of the state whose length varies, and their greatest lengths.
_MAX_ROWS = {"maxima": BLOCKS, "open": BLOCK - 1, "uncounted": INDEPENDENT_ROWS - 1, "recent": WINDOW_ROWS - 1}


def running(design: Design) -> RunningPValues:
    """The p-values of a generation; their memory has the same form in all."""
    return RunningPValues(MAX_RARITY, INDEPENDENT_ROWS, design.half_life_rows, design.rows_a_score)


def new_state(features: StreamFeatures) -> State:
    """The state before the first reading.

    "recent" holds the last rarities, "rest" the quiet rows still to come.
    """
    series, columns = len(features.design.features), features.columns
    memory = features.new_memory() | BlockTails(series * columns).new_memory() | running(features.design).new_memory()
    return memory | {"recent": np.zeros((0, series, columns)), "rest": np.zeros(1)}


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


def plan_that_fits(columns: int, seasons: tuple[int, ...]) -> tuple[Design, tuple[int, ...]]:
    """The design and the seasons that fit the state: the most seasons first, then the newest design.

    The longest season is the first to be left out. ValueError for too many columns.
    """
    room = _MAX_BYTES // 8 - running(NEWEST).size
    for left_out in range(len(seasons) + 1):
        kept = seasons[left_out:]
        for design in sorted(DESIGNS.values(), key=lambda one: -one.version):
            profiles = sum(kept) + (sum(kept[-1:]) if design.rhythm else 0)
            if columns * (_each(design) + profiles) <= room:
                return design, kept
    most = max(room // _each(design) for design in DESIGNS.values())
    raise ValueError(
        f"columns: the adaptive detector takes at most {most} columns, got {columns}; train several detectors "
        f"on a few columns each, or choose another detector"
    )


def _each(design: Design) -> int:
    """The float64 values of a column without its seasons."""
    return BlockTails(len(design.features)).size + 8 * len(design.features)
