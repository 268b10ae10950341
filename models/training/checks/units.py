"""Data check of units: does a column change as if its unit had changed?

Normal readings are cut into stretches, each compared with one a little later. Stretches follow one another as in the
file, run after run and into the held-out part. So a change at a silence, between machines or after the cut is found
like one in mid-run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sensors.model import Doubles
from models.training.data.segments import Rows, Segments, join_small
from models.training.report import Finding, Status

Flags = NDArray[np.bool_]

_STRETCHES, _MIN_STRETCH = 40, 16


@dataclass(frozen=True, slots=True)
class JumpLimits:
    """What makes growth of level and spread a jump.

    `factor`: the least factor by which both grow. `alike`: the largest ratio of the two factors. `pooled`: the
    stretches on each side whose median is taken. `unusual`: how often the usual growth within runs (as a logarithm)
    the jump exceeds.
    """

    factor: float
    alike: float
    pooled: int
    unusual: float


# Long stretches fail. Short ones only warn, at a larger factor: few rows move by chance, and may be an event.
_LONG, _BRIEF = JumpLimits(8.0, 1.5, 3, 6.0), JumpLimits(100.0, 2.0, 1, 6.0)
# A column that jumps at more places than these works that way.
_OPERATION, _OFTEN = (JumpLimits(8.0, 2.0, 1, 0.0), JumpLimits(100.0, np.inf, 1, 0.0)), 4
# Conversions y = factor · x + offset, too small for the factors above.
_CONVERSIONS = {
    "°C and °F": (1.8, 32.0),
    "°C and K": (1.0, 273.15),
    "°F and K": (5 / 9, 255.372),
    "psi and kPa": (6.894757, 0.0),
}
# A conversion moves the level by `_FAR` spreads at least, and ends within `_NEAR` spreads and `_OFF` of the way.
_FAR, _NEAR, _OFF = 4.0, 0.5, 0.03
_MEANINGS: dict[Status, str] = {
    "fail": "its level and its spread alike, as if its unit had changed",
    "warn": "as if its unit changed there, or something happened",
}
_REMEDIES: dict[Status, str] = {
    "fail": "Convert the column to one unit. If machines or operation differ so much, train a model for each alone, or "
    "leave the column out.",
    "warn": "Look at these lines: convert them to one unit, or label them 1 if they are an anomaly. A detector misses "
    "anomalies that it was trained on.",
}


@dataclass(frozen=True, slots=True)
class Stretches:
    """First rows and parts [m] of m stretches, and medians, levels and spreads [m, d]."""

    begins: Rows
    part: Rows
    middle: Doubles
    level: Doubles
    spread: Doubles


@dataclass(frozen=True, slots=True)
class Jump:
    """A change of a column (its index) near a row, by a factor, in words."""

    column: int
    row: int
    factor: float
    description: str


def check_units(train: Segments, held_out: Segments) -> Finding:
    """Fail for a column that changes its unit for long; warn of what may be an event."""
    readings = np.concatenate([train.readings, held_out.readings])
    lines = np.concatenate([train.lines, held_out.lines])
    parts = [*train.normal_rows(), *(rows + len(train) for rows in held_out.normal_rows())]
    # Lines in both parts come from two files: the held-out rows are those of a validation file.
    one_file = not np.isin(held_out.lines, train.lines).any()
    if one_file:
        parts.sort(key=lambda rows: int(lines[rows[0]]))
    status, jumps = _find_jumps(readings, parts)
    if not jumps:
        return Finding.of("data", "unit_jumps", "ok", 0.0, _LONG.factor, "No column changes its unit.")
    first = jumps[0]
    file = "" if one_file or first.row < len(train) else " of the validation file"
    name, line = train.columns[first.column], lines[first.row]
    message = f"{name!r} {first.description} near line {line}{file}, {_MEANINGS[status]}."
    rows = [int(lines[jump.row]) for jump in jumps if one_file or jump.row < len(train)]
    return Finding.of("data", "unit_jumps", status, first.factor, _LONG.factor, message, _REMEDIES[status], rows)


def _find_jumps(x: Doubles, parts: Sequence[Rows]) -> tuple[Status, list[Jump]]:
    long = max(_MIN_STRETCH, -(-sum(map(len, parts)) // _STRETCHES))
    long_stretches, short_stretches = (_cut_stretches(x, parts, rows) for rows in (long, _MIN_STRETCH))
    operating = _operating_columns(short_stretches)
    jumps = list(_factor_jumps(long_stretches, _LONG, operating))
    if jumps:
        return "fail", jumps
    brief = _factor_jumps(short_stretches, _BRIEF, operating)
    return "warn", [*_conversion_jumps(long_stretches, operating), *brief]


def _cut_stretches(x: Doubles, parts: Sequence[Rows], least: int) -> Stretches:
    """Stretches of at least `least` rows; shorter parts are joined."""
    begins, part, statistics = [], [], []
    for number, rows in enumerate(join_small(parts, least)):
        count = max(len(rows) // least, 1)
        size = len(rows) // count
        cut = rows[: count * size].reshape(count, size)
        statistics.append(_statistics(x[cut]))
        begins.append(cut[:, 0])
        part.append(np.full(count, number))
    middle, level, spread = (np.concatenate(values) for values in zip(*statistics, strict=True))
    return Stretches(np.concatenate(begins), np.concatenate(part), middle, level, spread)


def _statistics(x: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Medians, levels and spreads [m, d] of stretches [m, n, d]."""
    low, middle, high = np.quantile(x, [0.1, 0.5, 0.9], axis=1)
    return middle, np.median(np.abs(x), axis=1), high - low


def _pairs(part: Rows) -> tuple[Rows, Rows]:
    """Each stretch and the second after it, because the one between may hold both units.

    At the end, and from part to part, it is the next one.
    """
    before = np.arange(len(part) - 1)
    second = np.minimum(before + 2, len(part) - 1)
    return before, np.where(part[second] == part[before], second, before + 1)


def _pooled_sides(stretches: Stretches, values: Doubles, pooled: int) -> tuple[Doubles, Doubles]:
    """For each pair, the medians of values [m, d] over `pooled` stretches on each side.

    Each side stays within one part.
    """
    before, after = _pairs(stretches.part)
    first = np.searchsorted(stretches.part, stretches.part[before])
    last = np.searchsorted(stretches.part, stretches.part[after], side="right") - 1
    steps = np.arange(pooled)
    earlier = np.maximum(before[:, None] - steps, first[:, None])
    later = np.minimum(after[:, None] + steps, last[:, None])
    return np.median(values[earlier], axis=1), np.median(values[later], axis=1)


def _factor_jumps(stretches: Stretches, limits: JumpLimits, operating: Flags) -> Iterator[Jump]:
    """Where level and spread grow, or shrink, by the same large factor."""
    growth, jumps = _level_growth(stretches, limits)
    for pair, column in _merge_neighbours(np.sign(growth) * (jumps & ~operating)):
        factor = float(np.exp(growth[pair, column]))
        description = f"grows {factor:.3g} times" if factor > 1 else f"shrinks {1 / factor:.3g} times"
        yield Jump(column, int(stretches.begins[pair + 1]), factor, description)


def _conversion_jumps(stretches: Stretches, operating: Flags) -> Iterator[Jump]:
    """Where level and spread move as a known conversion would move them, in either direction."""
    # A level may wander, so the nearest stretches tell it best; a spread takes more rows.
    was, now = _pooled_sides(stretches, stretches.middle, 1)
    narrow, wide = _pooled_sides(stretches, stretches.spread, _LONG.pooled)
    growth = _log_growth(narrow, wide)
    far = np.abs(now - was) > _FAR * np.maximum(narrow, wide)
    for name, (factor, offset) in _CONVERSIONS.items():
        for scale, shift in ((factor, offset), (1 / factor, -offset / factor)):
            near = np.abs(scale * was + shift - now) < np.minimum(_NEAR * wide, _OFF * np.abs(now - was))
            alike = (np.abs(growth - np.log(scale)) < np.log(_LONG.alike)) & (narrow > 0) & (wide > 0)
            for pair, column in _merge_neighbours(1.0 * (far & near & alike & ~operating)):
                description = f"moves from {was[pair, column]:.4g} to {now[pair, column]:.4g} ({name})"
                yield Jump(column, int(stretches.begins[pair + 1]), scale, description)


def _merge_neighbours(directions: Doubles) -> Iterator[tuple[int, int]]:
    """The middle pair and the column of each jump, from directions (-1, 0, 1) [m, d].

    Neighbouring pairs of one direction are one jump.
    """
    for column in np.flatnonzero(directions.any(axis=0)).tolist():
        direction = directions[:, column]
        for pairs in np.split(np.arange(len(direction)), np.flatnonzero(np.diff(direction)) + 1):
            if direction[pairs[0]]:
                yield int(pairs[len(pairs) // 2]), column


def _level_growth(stretches: Stretches, limits: JumpLimits) -> tuple[Doubles, Flags]:
    """The logarithm of the level's growth, and whether it is a jump: both [pairs, d]."""
    level = _log_growth(*_pooled_sides(stretches, stretches.level, limits.pooled))
    spread = _log_growth(*_pooled_sides(stretches, stretches.spread, limits.pooled))
    within = level[_within_part(stretches.part)[:, 0]]
    usual = np.median(np.abs(within), axis=0) if len(within) else 0.0
    large = np.abs(level) > np.maximum(np.log(limits.factor), limits.unusual * usual)
    return level, large & (np.abs(level - spread) < np.log(limits.alike))


def _operating_columns(stretches: Stretches) -> Flags:
    """Columns [d] that jump at many places within runs.

    Such a machine switches on and off, or works in bursts.
    """
    operating = np.zeros(stretches.level.shape[1], np.bool_)
    for limits in _OPERATION:
        growth, jumps = _level_growth(stretches, limits)
        directions = np.sign(growth) * (jumps & _within_part(stretches.part))
        begins = (np.diff(directions, axis=0, prepend=0) != 0) & (directions != 0)
        operating |= begins.sum(axis=0) > _OFTEN
    return operating


def _within_part(part: Rows) -> Flags:
    """Which pairs lie within one part, [m, 1]."""
    before, after = _pairs(part)
    within: Flags = part[before] == part[after]
    return within[:, None]


def _log_growth(before: Doubles, after: Doubles) -> Doubles:
    """The logarithm of after / before; 0 where one of them is 0."""
    known = (before > 0) & (after > 0)
    return np.log(np.where(known, after, 1.0)) - np.log(np.where(known, before, 1.0))
