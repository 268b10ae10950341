"""Did a column change its unit? Level and spread of stretches of normal readings, each against one a little later.

Stretches follow one another as in the file, run after run and into the held-out part, so that a change at a silence,
between two machines or after the cut is seen as one in mid-run is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.training.data.segments import Rows, Segments, join_small
from models.training.data.table import Doubles
from models.training.report import Finding, Status, named_rows

_STRETCHES, _LEAST_STRETCH = 40, 16


@dataclass(frozen=True, slots=True)
class JumpLimits:
    """The least factor by which level and spread grow, how far the two factors may lie apart, of how many stretches
    on each side the median is taken, and how many times what is usual within a run the growth (as a logarithm) has
    to be."""

    factor: float
    alike: float
    pooled: int
    unusual: float


# Long stretches accuse. Short ones only warn, of a larger factor: few rows move by chance, and may be an event.
_LONG, _BRIEF = JumpLimits(8.0, 1.5, 3, 6.0), JumpLimits(100.0, 2.0, 1, 6.0)
# What comes at more places than these is how the machine works.
_OPERATION, _OFTEN = (JumpLimits(8.0, 2.0, 1, 0.0), JumpLimits(100.0, np.inf, 1, 0.0)), 4
# Conversions that no large factor tells: y = factor · x + offset.
_CONVERSIONS = {
    "°C and °F": (1.8, 32.0),
    "°C and K": (1.0, 273.15),
    "°F and K": (5 / 9, 255.372),
    "psi and kPa": (6.894757, 0.0),
}
# The level moves so many spreads, to within a part of one, and of the way, of where the conversion leads.
_FAR, _NEAR, _OFF = 4.0, 0.5, 0.03
_SAYS: dict[Status, str] = {
    "fail": "its level and its spread alike, as if its unit had changed",
    "warn": "as if its unit changed there, or something happened",
}
_REMEDIES: dict[Status, str] = {
    "fail": "Convert the column to one unit. If the machines or the operation differ so much, train a model on each "
    "alone, "
    "or leave the column out.",
    "warn": (
        "Look at these lines: convert them to one unit, or label them 1 if they are an anomaly; what is trained "
        "on is not found later."
    ),
}


@dataclass(frozen=True, slots=True)
class Stretches:
    """Of m stretches the rows they begin at and the part each is of, [m], and medians, levels and spreads of their
    columns, [m, d].
    """

    begins: Rows
    part: Rows
    middle: Doubles
    level: Doubles
    spread: Doubles


@dataclass(frozen=True, slots=True)
class Jump:
    """A column (its index) that changes near a row, by what factor, and how to say so."""

    column: int
    row: int
    factor: float
    told: str


def check_units(train: Segments, held_out: Segments) -> Finding:
    """Fail for a column that changes its unit for long; warn where it may be an event, or another way of working."""
    readings = np.concatenate([train.readings, held_out.readings])
    lines = np.concatenate([train.lines, held_out.lines])
    parts = [*train.normal_rows(), *(rows + len(train) for rows in held_out.normal_rows())]
    # Lines that both have are of two files: the held-out rows are those of a validation file.
    one_file = not np.isin(held_out.lines, train.lines).any()
    if one_file:
        parts.sort(key=lambda rows: int(lines[rows[0]]))
    status, jumps = _found(readings, parts)
    if not jumps:
        return Finding("data", "unit_jumps", "ok", 0.0, _LONG.factor, "No column changes its unit.", "")
    first = jumps[0]
    of = "" if one_file or first.row < len(train) else " of the validation file"
    message = f"{train.columns[first.column]!r} {first.told} near line {lines[first.row]}{of}, {_SAYS[status]}."
    rows = named_rows(lines[jump.row] for jump in jumps if one_file or jump.row < len(train))
    return Finding("data", "unit_jumps", status, first.factor, _LONG.factor, message, _REMEDIES[status], rows)


def _found(x: Doubles, parts: Sequence[Rows]) -> tuple[Status, list[Jump]]:
    long, short = (_measured(x, parts, least) for least in (_long(parts), _LEAST_STRETCH))
    busy = _busy(short)
    jumps = list(_factors(long, _LONG, busy))
    return ("fail", jumps) if jumps else ("warn", [*_conversions(long, busy), *_factors(short, _BRIEF, busy)])


def _long(parts: Sequence[Rows]) -> int:
    return max(_LEAST_STRETCH, -(-sum(map(len, parts)) // _STRETCHES))


def _measured(x: Doubles, parts: Sequence[Rows], least: int) -> Stretches:
    """Stretches of at least so many rows; shorter parts go together."""
    begins, part, found = [], [], []
    for number, rows in enumerate(join_small(parts, least)):
        count = max(len(rows) // least, 1)
        size = len(rows) // count
        cut = rows[: count * size].reshape(count, size)
        found.append(_statistics(x[cut]))
        begins.append(cut[:, 0])
        part.append(np.full(count, number))
    middle, level, spread = (np.concatenate(values) for values in zip(*found, strict=True))
    return Stretches(np.concatenate(begins), np.concatenate(part), middle, level, spread)


def _statistics(x: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Medians, levels and spreads [m, d] of stretches [m, n, d]."""
    low, middle, high = np.quantile(x, [0.1, 0.5, 0.9], axis=1)
    return middle, np.median(np.abs(x), axis=1), high - low


def _pairs(part: Rows) -> tuple[Rows, Rows]:
    """Each stretch and the second after it, since the one between may be of both units; the next at the end and from
    part to part.
    """
    before = np.arange(len(part) - 1)
    second = np.minimum(before + 2, len(part) - 1)
    return before, np.where(part[second] == part[before], second, before + 1)


def _sides(stretches: Stretches, values: Doubles, pooled: int) -> tuple[Doubles, Doubles]:
    """For each pair the median of values [m, d] of the last stretches before it and of the first after, each of one
    part.
    """
    before, after = _pairs(stretches.part)
    first = np.searchsorted(stretches.part, stretches.part[before])
    last = np.searchsorted(stretches.part, stretches.part[after], side="right") - 1
    steps = np.arange(pooled)
    earlier = np.maximum(before[:, None] - steps, first[:, None])
    later = np.minimum(after[:, None] + steps, last[:, None])
    return np.median(values[earlier], axis=1), np.median(values[later], axis=1)


def _factors(stretches: Stretches, scale: JumpLimits, busy: NDArray[np.bool_]) -> Iterator[Jump]:
    """Where level and spread grow, or shrink, by the same large factor."""
    growth, jumps = _grown(stretches, scale)
    for pair, column in _places(np.sign(growth) * (jumps & ~busy)):
        factor = float(np.exp(growth[pair, column]))
        told = f"grows {factor:.3g} times" if factor > 1 else f"shrinks {1 / factor:.3g} times"
        yield Jump(column, int(stretches.begins[pair + 1]), factor, told)


def _places(ways: Doubles) -> Iterator[tuple[int, int]]:
    """The middle pair and the column of each jump: -1, 0 or 1 for each pair and column, [m, d]; neighbours that
    agree are one jump.
    """
    for column in np.flatnonzero(ways.any(axis=0)).tolist():
        way = ways[:, column]
        for pairs in np.split(np.arange(len(way)), np.flatnonzero(np.diff(way)) + 1):
            if way[pairs[0]]:
                yield int(pairs[len(pairs) // 2]), column


def _grown(stretches: Stretches, scale: JumpLimits) -> tuple[Doubles, NDArray[np.bool_]]:
    """For each pair and column the logarithm of the factor by which the level grows, and whether that is a unit's,
    [m, d].
    """
    level, spread = (
        _growth(*_sides(stretches, values, scale.pooled)) for values in (stretches.level, stretches.spread)
    )
    within = level[_inside(stretches.part)[:, 0]]
    usual = np.median(np.abs(within), axis=0) if len(within) else 0.0
    large = np.abs(level) > np.maximum(np.log(scale.factor), scale.unusual * usual)
    return level, large & (np.abs(level - spread) < np.log(scale.alike))


def _busy(stretches: Stretches) -> NDArray[np.bool_]:
    """Columns [d] that jump at many places within runs: a machine that is switched on and off, or works in bursts."""
    busy = np.zeros(stretches.level.shape[1], np.bool_)
    for scale in _OPERATION:
        growth, jumps = _grown(stretches, scale)
        ways = np.sign(growth) * (jumps & _inside(stretches.part))
        busy |= ((np.diff(ways, axis=0, prepend=0) != 0) & (ways != 0)).sum(axis=0) > _OFTEN
    return busy


def _inside(part: Rows) -> NDArray[np.bool_]:
    """Which pairs are of one part, [m, 1]."""
    before, after = _pairs(part)
    within: NDArray[np.bool_] = part[before] == part[after]
    return within[:, None]


def _growth(before: Doubles, after: Doubles) -> Doubles:
    """The logarithm of after / before, 0 where one of them is 0."""
    known = (before > 0) & (after > 0)
    return np.log(np.where(known, after, 1.0)) - np.log(np.where(known, before, 1.0))


def _conversions(stretches: Stretches, busy: NDArray[np.bool_]) -> Iterator[Jump]:
    """Level and spread that move as a known conversion would move them, either way."""
    # The nearest stretches tell a level best, which may wander; a spread takes more rows.
    (was, now), (narrow, wide) = (
        _sides(stretches, stretches.middle, 1),
        _sides(stretches, stretches.spread, _LONG.pooled),
    )
    growth = _growth(narrow, wide)
    far = np.abs(now - was) > _FAR * np.maximum(narrow, wide)
    for name, (factor, offset) in _CONVERSIONS.items():
        for scale, shift in ((factor, offset), (1 / factor, -offset / factor)):
            near = np.abs(scale * was + shift - now) < np.minimum(_NEAR * wide, _OFF * np.abs(now - was))
            alike = (np.abs(growth - np.log(scale)) < np.log(_LONG.alike)) & (narrow > 0) & (wide > 0)
            for pair, column in _places(1.0 * (far & near & alike & ~busy)):
                told = f"moves from {was[pair, column]:.4g} to {now[pair, column]:.4g} ({name})"
                yield Jump(column, int(stretches.begins[pair + 1]), scale, told)
